from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from alignvlm.cli import measure as module
from alignvlm.synth.generate import KINDS
from alignvlm.synth.pdf_pages import HELD_OUT_PDF_PACKAGES


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    module.register(app)
    app.callback()(lambda: None)
    return app


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """Stands in for finding a model and for measuring it."""
    found: list[dict[str, Any]] = []

    def run(folder: Path, config: Any, label: Any, predictions: Path, **options: Any) -> list[Any]:
        found.append({"folder": folder, "config": config, "predictions": predictions, **options})
        options["on_progress"]("pages", 1, 1)
        cold = {"row": "cold", "kind": "easy", "seconds": 2.0, "peak_bytes": 1_000_000_000}
        return [cold]

    monkeypatch.setenv("ALIGNVLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("alignvlm.evaluation.measure.measure", run)
    monkeypatch.setattr(
        "alignvlm.inference.loading.find_model", lambda model: tmp_path / (model or "default")
    )
    return found


def test_results_and_the_files_names(
    app: typer.Typer, calls: list[dict[str, Any]], tmp_path: Path
) -> None:
    output = tmp_path / "results"
    done = CliRunner().invoke(app, ["measure", "--output", str(output)])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        str(output / "default_model.json"),
        str(output / "default_model.md"),
        "runs/measure/predictions.jsonl",
    ]
    record = json.loads((output / "default_model.json").read_text("utf-8"))
    assert record["results"]["cold"]["easy"]["seconds"]["value"] == 2.0
    assert record["run"]["model"] == "default"
    assert record["run"]["settings"]["seed"] == 0
    assert {"commit", "machine", "versions", "weights"} <= set(record["run"])
    assert calls[0]["config"].kinds == KINDS
    assert calls[0]["config"].baselines
    assert calls[0]["config"].limit_s is None
    # The warm answers are given on the CPU, and so are those of fresh processes.
    arguments = ["ask", "--model", str(tmp_path / "default"), "--device", "cpu"]
    assert calls[0]["ask_command"][-5:] == arguments


def test_held_out_pdfs_are_found_or_left_out_with_a_note(
    app: typer.Typer, calls: list[dict[str, Any]], tmp_path: Path
) -> None:
    mine, cached = tmp_path / "mine", tmp_path / "cache" / "pdfs"
    options = ["measure", "--output", str(tmp_path / "results")]

    def found(*more: str) -> tuple[Path | None, str]:
        done = CliRunner().invoke(app, [*options, *more])
        assert done.exit_code == 0, done.output
        return calls[-1]["pdfs"], done.stderr

    folder, note = found()
    assert folder is None
    assert note.startswith("Pages of PDFs are left out. No PDF of the heldout split is in ")
    for root, package in ((mine, "octave-doc"), (cached, HELD_OUT_PDF_PACKAGES[0])):
        (root / package).mkdir(parents=True)
        (root / package / "a.pdf").touch()
    assert found() == (cached, "")
    folder, note = found("--pdfs", str(mine))  # it has nothing but what is trained on
    assert folder is None and str(mine) in note
    (mine / HELD_OUT_PDF_PACKAGES[1]).mkdir()
    (mine / HELD_OUT_PDF_PACKAGES[1] / "b.pdf").touch()
    assert found("--pdfs", str(mine)) == (mine, "")


def test_options_reach_the_measurement(
    app: typer.Typer, calls: list[dict[str, Any]], tmp_path: Path
) -> None:
    arguments = [
        "measure", "--model", "mine", "--kinds", "easy, invoice", "--num-pages", "2",
        "--num-easy-pages", "3", "--seed", "7", "--strength", "0", "--skip-baselines",
        "--limit-time", "60", "-o", str(tmp_path), "--predictions", str(tmp_path / "p.jsonl"),
    ]  # fmt: skip
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    config = calls[0]["config"]
    assert (config.kinds, config.num_pages, config.num_easy_pages) == (("easy", "invoice"), 2, 3)
    assert (config.seed, config.strength, config.baselines, config.limit_s) == (7, 0.0, False, 60)
    assert calls[0]["folder"] == tmp_path / "mine"
    assert calls[0]["predictions"] == tmp_path / "p.jsonl"


@pytest.mark.parametrize(
    "arguments", [["--num-pages", "-1"], ["--strength", "2"], ["--limit-time", "0"]]
)
def test_options_out_of_range_are_misuse(app: typer.Typer, arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["measure", *arguments]).exit_code == 2
