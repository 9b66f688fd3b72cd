"""The fused kernels against `rows.py` in Triton's interpreter, and through Triton's compiler.

Triton reads TRITON_INTERPRET when it is imported, so one process interprets and another compiles,
both the script fused_checks.py. No GPU is needed.
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
# What to compile for, and the bytes of stack a thread may have.
TARGETS = [("bf16", 80, 0), ("bf16", 90, 0), ("fp32", 90, 16), ("fp64", 90, math.inf)]


def run_checks(*calls: str, interpret: bool, cache: Path) -> dict[str, Any]:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(cache)}
    environment.pop("TRITON_INTERPRET", None)
    if interpret:
        environment["TRITON_INTERPRET"] = "1"
    result = subprocess.run(
        [sys.executable, str(CHECKS), *calls],
        env=environment,
        capture_output=True,
        text=True,
        timeout=230,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the checks in Triton's interpreter found."""
    calls = [*(f"agreement:{dtype}" for dtype in DTYPES), "autograd", "edges", "mixture"]
    return run_checks(*calls, interpret=True, cache=tmp_path_factory.mktemp("triton"))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What Triton's compiler makes of every kernel for each of `TARGETS`."""
    calls = [f"compiler:{dtype}:{architecture}" for dtype, architecture, _ in TARGETS]
    return run_checks(*calls, interpret=False, cache=tmp_path_factory.mktemp("triton"))


@needs_triton
@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_with_rows(dtype: str, interpreted: dict[str, Any]) -> None:
    found = interpreted[f"agreement:{dtype}"]
    num_options = 2 + (6 if dtype in ("float32", "bfloat16") else 2)
    assert len(found) == num_options * (1 + 4)
    for case, errors in found.items():
        assert errors.pop("outside") == 0, case
        for name, error in errors.items():
            allowed = OWN_TOLERANCE if name in ("probs", "grads") else WIDE_TOLERANCE
            assert error <= allowed[dtype], (case, name, error)


@needs_triton
def test_the_gradients_are_those_of_autograd(interpreted: dict[str, Any]) -> None:
    found = interpreted["autograd"]
    assert len(found) == 6
    for name, error in found.items():
        assert error < 1e-11, name


@needs_triton
def test_edges(interpreted: dict[str, Any]) -> None:
    found = interpreted["edges"]
    assert len(found) == 13
    assert not [name for name, holds in found.items() if not holds]


@needs_triton
def test_the_whole_mixture_is_that_of_rows(interpreted: dict[str, Any]) -> None:
    found = interpreted["mixture"]
    assert len(found) == 14
    assert max(found.values()) < 1e-5, found


@needs_triton
@pytest.mark.parametrize(("dtype", "architecture", "stack"), TARGETS)
def test_every_kernel_compiles(
    dtype: str, architecture: int, stack: float, compiled: dict[str, Any]
) -> None:
    found = compiled[f"compiler:{dtype}:{architecture}"]
    assert len(found) == (9 if dtype == "bf16" else 6)
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
