from __future__ import annotations

import pytest

from alignvlm.evaluation.reporting.method import notes

SETTINGS = {"dialect": "strict", "paper_dialect": "vlmevalkit-2025.05"}


@pytest.mark.parametrize(
    ("remarks", "expected"),
    [(["prompts of lmms-eval"], 1), (["1 question failed and counts as 0"], 0), ([], 0)],
)
def test_prompts_are_named_where_a_benchmark_was_put_in_two_ways(
    remarks: list[str], expected: int
) -> None:
    """Runs of unlike prompt dialects that share no benchmark, or put it alike, have no remark."""
    runs = [
        {"label": label, "prompt_dialect": label, "unfinished": []} for label in ("due", "strict")
    ]
    result = {"remarks": remarks, "num_questions": 3, "num_expected": None, "title": "Mine"}
    said = notes({"settings": SETTINGS, "tables": [], "runs": runs, "results": [result]})
    assert len([one for one in said if "different prompts" in one]) == expected
