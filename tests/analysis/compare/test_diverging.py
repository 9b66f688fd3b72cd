"""Runs whose loss becomes no number after the search: said so, counted nowhere, not run again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alignvlm.analysis.compare import Comparison, compare, estimate
from alignvlm.analysis.compare.report import write_report
from alignvlm.analysis.compare.scoring import Scorer
from alignvlm.analysis.compare.summary import summarise
from alignvlm.errors import TrainingError
from alignvlm.training import runs
from alignvlm.training.configuration import RunConfig
from alignvlm.training.task import Loss

Make = Callable[..., Comparison]
Install = Callable[[Callable[[RunConfig], bool]], list[tuple[int, int]]]


@pytest.fixture
def diverges(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Has the loss of some runs be no number; gives (steps, seed) of all runs that are opened."""

    def install(is_bad: Callable[[RunConfig], bool]) -> list[tuple[int, int]]:
        real, opened = runs.open_run, []

        def open_run(config: RunConfig, device: str) -> Any:
            task, settings = real(config, device)
            opened.append((config.num_steps or 0, config.seed))
            if is_bad(config):
                monkeypatch.setattr(task, "loss", lambda _: Loss(_a_nan(task), 1, {}))
            return task, settings

        monkeypatch.setattr(runs, "open_run", open_run)
        return opened

    return install


def _a_nan(task: Any) -> torch.Tensor:
    return next(p for p in task.module.parameters() if p.requires_grad).sum() * float("nan")


def one_rate(make: Make, **options: Any) -> Comparison:
    return make(**{"rates": (1e-3,), "variants": ("align", "mlp")} | options)


def test_the_second_seed_is_said_to_be_none(comparison: Make, out: Path, diverges: Install) -> None:
    """The others go on, and means are of them."""
    opened = diverges(lambda c: c.seed == 1 and c.model.connector["name"] == "mlp")
    made = one_rate(comparison, budgets=(2,))
    assert compare(made, out, "cpu") and compare(made, out, "cpu")
    assert sorted(opened) == [(1, 0), (1, 0), (1, 1), (1, 1)], "each cell once"
    assert estimate(made, out).num_done == 4
    (bad,) = [cell for cell in made.scored("mlp", 1e-3) if cell.seed == 1]
    result = json.loads((out / bad.name / "result.json").read_text("utf-8"))
    assert result["loss"] is None and result["validation_loss"] is None and "pages" not in result
    assert not list((out / bad.name).glob("step-*"))
    write_report(made, out)
    results = json.loads((out / "results.json").read_text("utf-8"))
    assert results["cells"] == results["cells_wanted"] == 4
    assert results["diverged"] == [{"variant": "mlp", "budget": 2, "seed": 1, "rate": 1e-3}]
    (align,), (mlp,) = (row["budgets"] for row in results["rows"])
    assert (align["num_seeds"], mlp["num_seeds"]) == (2, 1)
    good = json.loads((out / bad.name / "../../seed-0/rate-0.001/result.json").read_text("utf-8"))
    assert mlp["loss"] == {"mean": good["loss"], "spread": None}
    assert {(test["connector"], test["num_seeds"]) for test in results["tests"]} == {("mlp", 1)}
    check_tables(out)


def check_tables(out: Path) -> None:
    table = (out / "table.md").read_text("utf-8")
    number = r"-?\d+\.\d+"
    assert re.search(rf"^\| align( \| {number} ± {number}){{4}} \|$", table, re.MULTILINE)
    assert re.search(rf"^\| mlp( \| {number} \(1 of 2\)){{4}} \|$", table, re.MULTILINE)
    assert "the seeds that are left stand behind it" in table
    assert "**Runs whose loss became no number, left out of all figures**" in table
    assert "\n| mlp | 2 | 1 | 0.001 |\n" in table
    assert "Runs whose loss became no number" in (out / "report.html").read_text("utf-8")


def test_a_budget_without_any_number(comparison: Make, out: Path, diverges: Install) -> None:
    diverges(lambda c: c.num_steps == 2)
    made = one_rate(comparison, variants=("mlp",), num_seeds=1)
    assert compare(made, out, "cpu")
    write_report(made, out)
    table = (out / "table.md").read_text("utf-8")
    assert re.search(r"^\| mlp( \| -?\d+\.\d+){4}( \| no number){4} \|$", table, re.MULTILINE)
    found = summarise(made, out)
    assert found["curves"] == [] and found["noise"] == [], "both are of the largest budget"
    assert found["examples_budget"] == 2


def test_pages_on_which_the_loss_is_no_number(
    comparison: Make, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained well, and yet nothing that could be averaged."""
    real, calls = Scorer.losses, []

    def losses(self: Scorer, pages: Any) -> list[float]:
        calls.append(len(pages))
        found = real(self, pages)
        return [*found[:-1], float("nan")] if calls == [2, 3] else found

    monkeypatch.setattr(Scorer, "losses", losses)
    made = one_rate(comparison, variants=("mlp",), budgets=(2,), num_seeds=1)
    assert compare(made, out, "cpu")
    write_report(made, out)
    results = json.loads((out / "results.json").read_text("utf-8"))
    assert results["rows"] == [] and len(results["diverged"]) == 1


def test_other_errors_still_end_it(
    comparison: Make, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = one_rate(comparison, variants=("mlp",), budgets=(2,), num_seeds=1)
    compare(made, out, "cpu")

    def refuse(*_: Any, **__: Any) -> None:
        raise TrainingError("The checkpoint cannot be written: free some space")

    monkeypatch.setattr("alignvlm.training.loop.train", refuse)
    more = one_rate(comparison, variants=("mlp",), budgets=(2,))
    with pytest.raises(TrainingError, match="free some space"):
        compare(more, out, "cpu")
    assert len(list(out.rglob("result.json"))) == 1
