"""MM-Vet: what a judge is asked, and what its replies are worth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignvlm.errors import InputError
from alignvlm.evaluation import RecordedJudge, score
from alignvlm.evaluation.scorers.judge import prompt_sha256
from alignvlm.evaluation.scorers.judge_prompt import lmms_eval_prompt, vlmevalkit_prompt


def value(metric: str, prediction: Any, answers: Any, **options: Any) -> float:
    return score(metric, prediction, answers, **options).value


class Script:
    """A judge that answers from a list and notes what it was asked."""

    def __init__(self, *replies: str) -> None:
        self.replies = list(replies)
        self.asked: list[tuple[str, float]] = []

    def __call__(self, prompt: str, temperature: float) -> str:
        self.asked.append((prompt, temperature))
        return self.replies.pop(0)


@pytest.mark.parametrize(
    ("dialect", "digest"),
    [
        ("vlmevalkit-2025.05", "abdc571f9d3c334976438a00c44cba1aef6af56715175e4c7e4373a044e5270e"),
        ("vlmevalkit-2026.08", "abdc571f9d3c334976438a00c44cba1aef6af56715175e4c7e4373a044e5270e"),
        ("lmms-eval", "cb2d1207996b2226eb27424113a1b299e75d83226ef1197a310e4887875c2a2f"),
    ],
)
def test_a_judge_is_asked_word_for_word_as_the_toolkit_asks(dialect: str, digest: str) -> None:
    """The digests are of what the toolkits' own code sent."""
    judge = Script("1")
    found = score(f"mmvet@{dialect}", "x = -1 ", ["-1<AND>-5"], question="What is x?", judge=judge)
    assert found.parts["prompt_sha256"] == prompt_sha256(judge.asked[0][0]) == digest


def test_lmms_eval_asks_in_single_lines() -> None:
    prompt = lmms_eval_prompt("q", "a<AND>b", " c\n")
    assert prompt.endswith("\n\nq | a <AND> b | c |")
    assert "\ngpt_query_prompt | Ground truth | Prediction | Correctness\n--- |" in prompt
    assert prompt.count("\n") == 11


def test_a_judge_is_asked_again() -> None:
    judge = Script("0,5", "1.5", "0.7")
    found = score("mmvet", "x = -1", ["-1<AND>-5"], question="What is x?", judge=judge)
    assert (found.value, found.parts["replies"]) == (0.7, ["0,5", "1.5", "0.7"])
    prompt = vlmevalkit_prompt("What is x?", "-1<AND>-5", "x = -1")
    assert judge.asked == [(prompt, 0.0), (prompt, 0.5), (prompt, 1.0)]
    assert prompt.endswith("| 1.0\n\nWhat is x? | -1 <AND> -5 | x = -1 | ")
    assert vlmevalkit_prompt("q", "a<OR>b", "c").endswith("\nq | a <OR> b | c | ")
    assert found.parts["prompt_sha256"] == prompt_sha256(prompt)
    assert score("mmvet", "", [], judge=Script(*"abcde")).value == 0.0


@pytest.mark.parametrize(
    ("replies", "grade", "temperatures"),
    [
        (["0.5. yes", "thrown", "0.4 because"], 0.4, [0.0, 0.5, 0.5]),
        (["", " ", "1"], 1.0, [0.0] * 3),
        (["", "", ""], 0.0, [0.0] * 3),
        (["2", "0.3"], 0.3, [0.0, 0.0]),
        (["-1", "0"], 0.0, [0.0, 0.0]),
        (["x"] * 8, 0.0, [0.0, 0.5, 0.5, 1.0, 1.0, 1.5, 1.5, 2.0]),
    ],
)
def test_a_judge_in_lmms_eval(replies: list[str], grade: float, temperatures: list[float]) -> None:
    judge = Script(*replies)
    assert value("mmvet@lmms-eval", "p", ["a"], judge=judge) == grade
    assert [temperature for _, temperature in judge.asked] == temperatures


def test_a_recorded_judge(tmp_path: Path) -> None:
    prompt = vlmevalkit_prompt("q", "a", "p")
    record = tmp_path / "replies.jsonl"
    rows = [{"prompt_sha256": prompt_sha256(prompt), "reply": reply} for reply in ("no", "0.9")]
    record.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = score("mmvet", "p", ["a"], question="q", judge=RecordedJudge.read(record))
    assert (found.value, found.parts["replies"]) == (0.9, ["no", "0.9"])
    with pytest.raises(InputError, match="No reply was recorded for the prompt that ends"):
        score("mmvet", "other", ["a"], question="q", judge=RecordedJudge.read(record))
    with pytest.raises(InputError, match="No reply was recorded"):
        RecordedJudge([])("x", 0.0)
    whole = '{"prompt_sha256": "0", "reply": "1"}\n'
    for wrong in ('{"reply": "1"}', '{"prompt_sha256": "0"}', "[]", "{", whole[:-3]):
        record.write_text(f"{whole}{wrong}\n", encoding="utf-8")
        with pytest.raises(InputError, match=r"Line 2 of .*replies.jsonl is no recorded reply"):
            RecordedJudge.read(record)
    record.write_text('{"prompt_sha256": "0", "reply": 1}\n', encoding="utf-8")
    with pytest.raises(InputError, match="Line 1 of "):
        RecordedJudge.read(record)
