"""Agreement with what the official code of each toolkit returned."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from alignvlm.evaluation import GOLDEN_NAMES, metric_names, score

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parent / "golden.jsonl").read_text(encoding="utf-8").splitlines()
]
BY_NAME: dict[str, list[dict[str, Any]]] = defaultdict(list)
for _row in ROWS:
    BY_NAME[_row["metric"]].append(_row)

OPTIONS = ("options", "target_canon", "categories")
BESIDE = (
    "precision",
    "recall",
    "per_blank",
    "max_sim_string",
    "judge_calls",
    "prediction_after_roundtrip",
)


def near(found: Any, wanted: Any) -> bool:
    """Equality to 1e-6, inside lists and mappings too."""
    if isinstance(wanted, dict):
        return set(found) == set(wanted) and all(near(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(near, found, wanted))
    if isinstance(wanted, int | float) and isinstance(found, int | float):
        return abs(found - wanted) < 1e-6
    return bool(found == wanted)


def test_every_row_is_there() -> None:
    assert len(ROWS) == 661
    assert not any("error" in row for row in ROWS)


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_every_row_agrees(name: str) -> None:
    metric, part = GOLDEN_NAMES[name]
    for row in BY_NAME[name]:
        options = {key: row[key] for key in OPTIONS if key in row}
        found = score(metric, row["prediction"], row["answers"], **options)
        assert found.metric == metric
        assert near(found.value if part == "value" else found.parts[part], row["score"]), row
        for key in BESIDE:
            assert key not in row or near(found.parts[key], row[key]), (key, row)
        if "parsed" in row:
            parsed = found.parts.get("extracted", found.parts.get("parsed"))
            assert near(parsed, row["parsed"]), row


def test_recorded_names_lead_to_metrics() -> None:
    assert {recorded.metric for recorded in GOLDEN_NAMES.values()} <= set(metric_names())
