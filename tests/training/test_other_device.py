"""Nothing stays on the CPU when a model is sent elsewhere: the GPU's path, without a GPU.

A stand-in for a GPU (tests/builders/other_device.py) computes with the CPU's kernels, refuses
tensors of the CPU, and has CUDA's rules of autocast.
"""

from __future__ import annotations

import json
from typing import Any

import on_other_device
import pytest
import warm

CONNECTORS = on_other_device.available()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    folder = tmp_path_factory.mktemp("other")
    process = warm.start(on_other_device.compare, folder / "f.json", stderr=folder / "stderr")
    process.join(timeout=400)  # 15 seconds on an idle machine
    process.kill()
    assert process.exitcode == 0, (folder / "stderr").read_text()
    results: dict[str, list[Any]] = json.loads((folder / "f.json").read_text())
    return results


@pytest.mark.parametrize("what", [*CONNECTORS, "align by tokens", "align by words"])
def test_a_step_is_the_same(found: dict[str, list[Any]], what: str) -> None:
    here, there = found[f"one step, {what}"]
    assert there["loss"] == pytest.approx(here["loss"], rel=1e-5)
    assert there["norms"] == pytest.approx(here["norms"], rel=1e-3, abs=1e-5)
    assert there["health"] == pytest.approx(here["health"], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("trained, float32", 1e-5), ("trained, bfloat16", 1e-2), ("read", 1e-5),
        ("answer", 1e-5), ("from CPU", 1e-5), ("to CPU", 1e-5),
    ],
)  # fmt: skip
def test_runs_are_the_same(found: dict[str, list[Any]], what: str, error: float) -> None:
    here, there = found[what]
    assert there == pytest.approx(here, rel=error)


@pytest.mark.parametrize("what", ["float32", "bfloat16", "pruned"])
def test_answers_are_the_same(found: dict[str, list[Any]], what: str) -> None:
    here, there = found[f"answered, {what}"]
    assert there == here


def test_what_stays_behind_is_noticed(found: dict[str, list[Any]]) -> None:
    assert "of the CPU meets one of another device" in found["strays"][1]
