"""Agreement with what the official code of each toolkit returned."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
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


def test_every_row_is_there() -> None:
    assert len(ROWS) == 661
    assert not any("error" in row for row in ROWS)


Near = Callable[[Any, Any, float], bool]


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_every_row_agrees(name: str, scorers_near: Near) -> None:
    metric, part = GOLDEN_NAMES[name]
    for row in BY_NAME[name]:
        options = {key: row[key] for key in OPTIONS if key in row}
        found = score(metric, row["prediction"], row["answers"], **options)
        assert found.metric == metric
        value = found.value if part == "value" else found.parts[part]
        assert scorers_near(value, row["score"], 1e-6), row
        for key in BESIDE:
            assert key not in row or scorers_near(found.parts[key], row[key], 1e-6), (key, row)
        if "parsed" in row:
            parsed = found.parts.get("extracted", found.parts.get("parsed"))
            assert scorers_near(parsed, row["parsed"], 1e-6), row


def test_recorded_names_lead_to_metrics() -> None:
    assert {recorded.metric for recorded in GOLDEN_NAMES.values()} <= set(metric_names())
