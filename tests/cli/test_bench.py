from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alignvlm.analysis import runtime
from alignvlm.analysis.runtime import Cost, ScalingPoint
from alignvlm.cli import run
from alignvlm.errors import MissingDependencyError


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stands in for the measurements; what they were asked for."""
    found: list[dict[str, Any]] = []

    def measure(workload: Any, variants: Any, runner: Any, dtype: Any, told: Any) -> list[Cost]:
        told("something")
        found.append({"workload": workload, "variants": list(variants), "runner": runner})
        return [
            Cost(
                connector=label, num_parameters=5, num_visual_tokens=3, num_new_tokens=4,
                seconds=(2.0,), first_token_s=(1.0,), connector_s=(0.5,), peak_bytes=10**9,
                connector_flops=1, prefill_flops=2,
            )
            for label in variants
        ]  # fmt: skip

    def scale(workload: Any, names: Any, *args: Any, **options: Any) -> list[ScalingPoint]:
        found.append({"scaled": list(names)})
        return [
            ScalingPoint(connector="align", axis="tiles", num_tiles=n, vocab_size=8,
                         seconds=(1.0,), extra_bytes=n, flops=n)
            for n in (1, 2, 3)
        ]  # fmt: skip

    monkeypatch.setattr(runtime, "measure_connectors", measure)
    monkeypatch.setattr(runtime, "measure_scaling", scale)
    return found


def test_tables_on_stdout(
    calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["bench", "connectors", "--device", "cpu", "--connectors", "mlp, align"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and "\x1b" not in out
    assert "Cost of a connector" in out and "Table 7" in out and "against work" not in out
    (line,) = (line for line in out.splitlines() if line.split()[:2] == ["mlp", "3"])
    assert line.split() == [
        "mlp",
        "3",
        "0.00",
        "M",
        "2.00",
        "(2.00-2.00)",
        "2.0",
        "1.00",
        "1.00",
    ]
    assert calls[0]["variants"] == ["mlp", "align"]
    assert calls[0]["workload"].name == "smol", "the model for a CPU"
    assert len(calls) == 1


def test_options_reach_the_measurement(
    calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--preset", "llama-3.2-1b", "--device", "cpu", "--num-samples", "7"]
    assert run(["bench", "connectors", *options, "--num-tiles", "2"]) == 0
    workload = calls[0]["workload"]
    assert (workload.name, workload.num_samples, workload.num_tiles) == ("llama-3.2-1b", 7, 2)
    assert calls[0]["variants"][-1] == "align_pruned"
    assert "…" not in capsys.readouterr().out, "80 columns hold the longest name too"


def test_a_gpu_gets_the_papers_model(
    calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = runtime.choose_runner("cpu")
    monkeypatch.setattr(type(gpu), "device", torch.device("meta"))  # any but the CPU
    monkeypatch.setattr(runtime, "choose_runner", lambda device: gpu)
    assert run(["bench", "connectors"]) == 0
    assert calls[0]["workload"].name == "llama-3.2-3b"


@pytest.mark.parametrize(
    ("named", "scaled"),
    [([], ["align", "mlp"]), (["--connectors", "ovis,align_pruned"], ["ovis"]),
     (["--connectors", "align_pruned"], ["align", "mlp"])],
)  # fmt: skip
def test_what_is_scaled(
    named: list[str],
    scaled: list[str],
    calls: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["bench", "connectors", "--device", "cpu", "--scaling", *named]) == 0
    assert calls[1]["scaled"] == scaled
    assert "against work" in capsys.readouterr().out


def test_results_and_the_files_names(
    calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    assert run(["bench", "connectors", "--device", "cpu", "--out", str(tmp_path / "a")]) == 0
    names = ["runtime.png", "runtime.json", "runtime.csv", "runtime.md"]
    assert capsys.readouterr().out.splitlines()[-4:] == [str(tmp_path / "a" / n) for n in names]
    facts = json.loads((tmp_path / "a" / "runtime.json").read_text("utf-8"))["run"]
    assert {"preset", "device", "weights", "commit", "machine", "versions", "settings",
            "peak memory"} <= set(facts)  # fmt: skip
    assert facts["settings"] == {"tiles": 1, "prompt tokens": 32, "new tokens": 8, "samples": 3}


def test_a_missing_matplotlib_is_said_before_the_work(
    calls: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    one_sentence: Callable[[str], str],
    tmp_path: Path,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    arguments = ["bench", "connectors", "--device", "cpu", "--out", str(tmp_path)]
    assert run(arguments) == MissingDependencyError.exit_code
    assert "matplotlib" in one_sentence(capsys.readouterr().err)
    assert calls == []


@pytest.mark.parametrize("arguments", [["--preset", "llama"], ["--device", "tpu"]])
def test_misuse(
    arguments: list[str],
    calls: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    one_sentence: Callable[[str], str],
) -> None:
    assert run(["bench", "connectors", *arguments]) == 2
    assert arguments[1] in one_sentence(capsys.readouterr().err)
    assert calls == []
