"""What is said of the default model is what was measured: stale numbers fail."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CARD = ROOT / "src/alignvlm/weights/default/README.md"
DOCUMENTATION = ROOT / "docs/default_model.md"
MEASURED = json.loads((ROOT / "benchmarks/results/default_model.json").read_text("utf-8"))
KINDS = {
    "easy pages": "easy",
    "all documents, by characters": "all documents",
    "held-out PDF packages": "pdf (held-out packages)",
}


def rows(page: Path, heading: str) -> list[list[str]]:
    """Cells of the tables' rows below a heading, without those of the tables' heads."""
    _, _, rest = page.read_text("utf-8").partition(f"\n## {heading}\n")
    lines = re.findall(r"^\| (.*) \|$", rest.partition("\n## ")[0], re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines if line[0] != "|"]


def value(of: dict[str, Any]) -> str:
    return f"{of['value']:.3f}"


def test_the_card_has_every_bar_and_the_commit() -> None:
    bars = [row for row in rows(CARD, "Metrics") if "[" in row[1]]
    assert len(bars) == len(MEASURED["results"]["bars"])
    for (_, found, bar), expected in zip(bars, MEASURED["results"]["bars"], strict=True):
        parts = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", found)]
        exact = [expected["measured"][name] for name in ("value", "low", "high", "num_units")]
        digits = len(found.split(" ")[0].partition(".")[2])
        assert parts == [round(number, digits) for number in exact]
        assert bar.split()[0] == expected["bar"].split()[0]
        assert float(bar.split()[1]) == float(expected["bar"].split()[1])
    assert f"`{MEASURED['run']['commit']}`" in CARD.read_text("utf-8")


@pytest.mark.parametrize(
    ("page", "heading"), [(CARD, "Metrics"), (DOCUMENTATION, "Beside an OCR pipeline")]
)
def test_errors_by_kind_are_those_measured(page: Path, heading: str) -> None:
    results = MEASURED["results"]
    kinds = [row for row in rows(page, heading) if "[" not in row[1]]
    assert {KINDS.get(row[0], row[0]) for row in kinds} == set(
        results["character_error"]["alignvlm"]
    )
    for name, ours, theirs, *answers in kinds:
        kind = KINDS.get(name, name)
        assert ours == value(results["character_error"]["alignvlm"][kind])
        assert theirs == value(results["character_error"]["rapidocr"][kind])
        if answers and answers != [""]:
            assert answers == [value(results["anls"]["alignvlm"][kind])]
