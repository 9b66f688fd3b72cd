"""The fused kernels against `rows.py` in Triton's interpreter, and through Triton's compiler.

Triton reads TRITON_INTERPRET when it is imported, so each check is a process of its own: a script,
fused_checks.py. No GPU is needed.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from alignvlm.connectors.mixture import device

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
CHECKS = Path(__file__).with_name("fused_checks.py")
DTYPES = ("float32", "bfloat16", "float16", "float64")
# Of results in the wide dtype: float64's is loose because Triton takes eps as a float32.
WIDE_TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-5, "float16": 1e-5, "float64": 1e-11}
# Of P and gradients in the logits' own dtype: one rounding to the other side.
OWN_TOLERANCE = {"float32": 5e-6, "bfloat16": 2**-7, "float16": 2**-10, "float64": 1e-11}


def check(name: str, *args: str, interpret: bool, cache: Path) -> Any:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(cache)}
    environment.pop("TRITON_INTERPRET", None)
    if interpret:
        environment["TRITON_INTERPRET"] = "1"
    result = subprocess.run(
        [sys.executable, str(CHECKS), name, *args],
        env=environment,
        capture_output=True,
        text=True,
        timeout=230,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@needs_triton
@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_with_rows(dtype: str, tmp_path: Path) -> None:
    found = check("agreement", dtype, interpret=True, cache=tmp_path)
    assert len(found) == 2 * 4 + 24
    for case, errors in found.items():
        wide = max(errors["statistics"], errors["log_normaliser"], errors["sums"])
        own = max(errors["probs"], errors["probs_again"], errors["grads"])
        assert wide <= WIDE_TOLERANCE[dtype], (case, errors)
        assert own <= OWN_TOLERANCE[dtype], (case, errors)
        assert errors["outside"] == 0, case


@needs_triton
def test_the_gradients_are_those_of_autograd(tmp_path: Path) -> None:
    for name, error in check("autograd", interpret=True, cache=tmp_path).items():
        assert error < 1e-11, name


@needs_triton
def test_edges(tmp_path: Path) -> None:
    found = check("edges", interpret=True, cache=tmp_path)
    assert len(found) == 13
    assert not [name for name, holds in found.items() if not holds]


@needs_triton
def test_the_whole_mixture_is_that_of_rows(tmp_path: Path) -> None:
    found = check("mixture", interpret=True, cache=tmp_path)
    assert len(found) == 14
    assert max(found.values()) < 1e-5, found


@needs_triton
@pytest.mark.parametrize(
    ("dtype", "architecture", "stack"),
    [("bf16", 80, 0), ("bf16", 90, 0), ("fp32", 90, 16), ("fp64", 90, math.inf)],
)
def test_every_kernel_compiles(dtype: str, architecture: int, stack: float, tmp_path: Path) -> None:
    found = check("compiler", dtype, str(architecture), interpret=False, cache=tmp_path)
    assert len(found) == 9
    for name, kernel in found.items():
        assert kernel["stack"] <= stack, name  # where registers would be spilled to
        # n V may pass 2^31: the strides that row numbers are multiplied by become 64 bits wide.
        assert kernel["strides"], name
        for use in kernel["strides"]:
            assert re.fullmatch(r"arith\.extsi %\w+ : i32 to i64", use), (name, use)


def test_where_the_kernels_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = device.fused_problem
    assert problem(torch.device("cpu")) == "the device is cpu and fused needs CUDA"
    monkeypatch.setattr(device, "find_spec", lambda name: None)
    assert problem(torch.device("cuda", 1)) == (
        'triton is not installed: pip install "alignvlm[fused]"'
    )
    monkeypatch.setattr(device, "find_spec", lambda name: object() if name == "triton" else None)
    assert problem(torch.device("cuda")) is None
