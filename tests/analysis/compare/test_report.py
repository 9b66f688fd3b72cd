"""Tables and page of results that are written here by hand, hostile answers among them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from alignvlm.analysis.compare import Comparison, report
from alignvlm.analysis.compare.report import write_report
from alignvlm.analysis.compare.summary import _ratio
from alignvlm.analysis.compare.tables import as_csv, as_markdown, curves_as_csv, tables, value

HOSTILE = '</td><script>alert(1)</script> | \udcff & "x"'


def spread(mean: float, of: float | None = None) -> dict[str, float | None]:
    return {"mean": mean, "spread": of}


def entry(budget: int, anls: float) -> dict[str, Any]:
    return {
        "budget": budget, "num_seeds": 3, "train_seconds": 1234.5, "anls": spread(anls, 0.012),
        "exact": spread(0.5, 0.0), "loss": spread(1.25, 0.125), "gain": spread(-0.001),
    }  # fmt: skip


@pytest.fixture
def results() -> dict[str, Any]:
    row = {"connector": "align", "rate": 3e-4, "parameters": 29_295_744, "visual_tokens": 144,
           "trained_parameters": 34_180_224, "cpu_seconds_per_sample": 1.234}  # fmt: skip
    other = {**row, "connector": "mlp", "parameters": 1_217_664}
    noise = {"connector": "mlp", "sigma": "1x", "num_seeds": 3, "noisy_anls": spread(0.25, 0.05),
             "noisy_exact": spread(0.5), "anls_drop": spread(0.125), "exact_drop": spread(0.0),
             "noise_distance": spread(0.0005), "patch_distance": spread(0.0),
             "feature_rms": spread(0.949), "ratio": spread(None)}  # fmt: skip
    test = {"connector": "mlp", "budget": 1000, "metric": "anls", "difference": -0.0123,
            "low": -0.02, "high": 0.001, "p": 0.0004, "p_holm": 0.0496, "num_pages": 8,
            "num_seeds": 3}  # fmt: skip
    return {
        "budgets": [1000, 4000], "num_seeds": 3, "num_pages": 2, "reference": "align", "cells": 9,
        "cells_wanted": 12,
        "rows": [{**row, "budgets": [entry(1000, 0.1), entry(4000, 0.4)]},
                 {**other, "budgets": [entry(1000, 0.2)]}],
        "tests": [test, {**test, "metric": "loss", "p": 1.0, "p_holm": 1.0}],
        "noise": [noise],
        "diverged": [],
        "search": [
            {"connector": "align", "losses": {"0.0003": 1.5, "0.001": 1.75}, "diverged": [],
             "chosen": 3e-4},
            {"connector": "mlp", "losses": {"0.0003": 2.0, "0.001": None}, "diverged": ["0.001"],
             "chosen": 3e-4},
            {"connector": "ovis", "losses": {"0.0003": 2.0, "0.001": None}, "diverged": [],
             "chosen": None},
        ],
        "curves": [{"connector": "align", "samples": [20, 40], "loss": [3.5, 2.5]}],
        "examples_budget": 1000,
        "examples": [
            {"key": "synth:1", "question": HOSTILE, "answer": "12",
             "said": {"align": {"answer": HOSTILE, "anls": 0.0, "exact": 0.0},
                      "mlp": {"answer": "", "anls": 0.5, "exact": 0.0}}},
        ],
    }  # fmt: skip


def test_markdown(results: dict[str, Any]) -> None:
    text = as_markdown(tables(results))
    for line in (
        "| align | 10.0 ± 1.2 | 50.0 ± 0.0 | 1.250 ± 0.125 | -0.001 | 40.0 ± 1.2 | 50.0 ± 0.0 | "
        "1.250 ± 0.125 | -0.001 |",
        "| mlp | 20.0 ± 1.2 | 50.0 ± 0.0 | 1.250 ± 0.125 | -0.001 |  |  |  |  |",
        "| mlp | 1k | ANLS | -1.2 | -2.0 to +0.1 | < 0.001 | 0.050 |",
        "| mlp | 1k | loss | -0.012 | -0.020 to +0.001 | 1.000 | 1.000 |",
        "| mlp | 1x | 25.0 ± 5.0 | 12.5 | 0.0005 | 0.0000 | all alike | 0.95 |",
        "| align | 29.3M | 34.2M | 144 | 0.0003 | 1.23 | 1,234 | 1,234 |",
        "| mlp | 1.22M | 34.2M | 144 | 0.0003 | 1.23 | 1,234 |  |",
        "| mlp | 2.000 | no number | 0.0003 |",
        "| ovis | 2.000 |  |  |",
    ):
        assert line in text.splitlines()
    assert "(so far 9 of 12 runs)" in text
    for table in text.split("\n\n")[1::2]:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_nothing_yet() -> None:
    """Before the first run there is a report, and it says so."""
    nothing: dict[str, Any] = {
        "budgets": [4], "num_seeds": 1, "num_pages": 1, "reference": "", "cells": 0,
        "cells_wanted": 1, "rows": [], "tests": [], "noise": [], "search": [], "curves": [],
        "diverged": [],
    }  # fmt: skip
    assert tables(nothing) == [] and as_markdown(tables(nothing)).strip() == ""
    assert as_csv(nothing).count("\n") == curves_as_csv(nothing).count("\n") == 1


def test_csv_holds_every_figure(results: dict[str, Any]) -> None:
    rows = list(csv.reader(io.StringIO(as_csv(results))))
    assert all(len(row) == 6 for row in rows)
    assert ["align", "4000", "anls", "0.4", "0.012", "3"] in rows
    assert ["align", "4000", "gain", "-0.001", "", "3"] in rows
    assert ["mlp", "4000", "ratio at noise 1x", "", "", "3"] in rows
    assert curves_as_csv(results) == "connector,samples,loss\nalign,20,3.5\nalign,40,2.5\n"


@pytest.mark.parametrize(
    ("figure", "metric", "text"),
    [(spread(0.1234), "anls", "12.3"), (spread(0.1234, 0.0), "exact", "12.3 ± 0.0"),
     (spread(2.0, 0.25), "loss", "2.000 ± 0.250"), (spread(0.5), "", "0.500")],
)  # fmt: skip
def test_a_mean_with_its_spread(figure: Any, metric: str, text: str) -> None:
    assert value(figure, metric) == text


def test_the_ratio_of_what_noise_moves() -> None:
    """Of the means, for a mean of ratios is that of the run whose tokens are most alike."""
    runs = [{"noise_distance": 0.1, "patch_distance": 0.5},
            {"noise_distance": 0.3, "patch_distance": 0.1}]  # fmt: skip
    assert _ratio(runs)["mean"] == pytest.approx(0.4 / 0.6)
    assert _ratio(runs[:1]) == {"mean": pytest.approx(0.2), "spread": None}
    collapsed = {"noise_distance": 1e-8, "patch_distance": 3e-8}
    assert _ratio([*runs, collapsed]) == {"mean": None, "spread": None}


class Tags(HTMLParser):
    """Names of all tags, and all addresses."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_what_models_say_stays_text(
    results: dict[str, Any],
    comparison: Callable[..., Comparison],
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out.mkdir()
    monkeypatch.setattr(report, "summarise", lambda *_: results)
    written = write_report(comparison(), out)
    assert all(path.stat().st_size > 0 for path in written)
    tags = Tags((out / "report.html").read_text("utf-8"))
    assert "script" not in tags.names
    assert all(address.startswith("data:image/png;base64,") for address in tags.addresses)
    assert "✗ </td><script>alert(1)</script> | " in tags.text and "≈ nothing" in tags.text
    assert "Answers to the same pages after 1k samples" in tags.text
    assert json.loads((out / "results.json").read_text("utf-8"))["noise"][0]["ratio"] == spread(
        None
    )
    for name in ("losses.png", "efficiency.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
