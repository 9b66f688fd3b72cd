"""Which questions are shown: spread over kinds, the same whatever the order of the runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignvlm.evaluation.reporting import read_runs
from alignvlm.evaluation.reporting.cases import (
    Case,
    all_cases,
    disagreeing_cases,
    verdict,
    worst_cases,
)

WriteRun = Callable[..., Path]


@pytest.fixture
def cases(reporting_write: WriteRun) -> Callable[..., list[Case]]:
    """From each run's answers to q0, q1, ...; the accepted one is always "word"."""

    def make(groups: str = "", **answers: list[str | None]) -> list[Case]:
        folders = []
        for name, texts in answers.items():
            rows: list[dict[str, Any]] = [
                {"id": f"q{place}", "answers": ["word"], "raw": text,
                 "error": "it broke: mend it" if text is None else None,
                 "group": groups[place] if groups else ""}
                for place, text in enumerate(texts)
            ]  # fmt: skip
            folders.append(reporting_write(name, {"docvqa": rows}))
        return all_cases(read_runs(folders), "docvqa")

    return make


def ids(cases: list[Case]) -> list[str]:
    return [case.question.id for case in cases]


def test_verdicts() -> None:
    values = (1.0, 1 - 1e-12, 0.99, 0.01, 0.0)
    assert [verdict(value) for value in values] == ["right", "right", "partly", "partly", "wrong"]


def test_a_case_has_the_answers_of_every_run(cases: Callable[..., list[Case]]) -> None:
    found = cases(a=["word", "wor", "no"], b=["no", "word"])
    assert ids(found) == ["q0", "q1", "q2"]
    assert [[one.run for one in case.said] for case in found] == [["a", "b"], ["a", "b"], ["a"]]
    assert found[1].verdicts == ("partly", "right")
    assert (found[1].mean, found[1].spread) == (0.875, 0.25)


def test_the_worst_are_those_with_the_lowest_mean(cases: Callable[..., list[Case]]) -> None:
    found = cases(a=["word", "wor", "no", None, "no"], b=["word", "no", "no", None, "wor"])
    assert set(ids(worst_cases(found, 3))) == {"q1", "q2", "q4"}
    assert ids(worst_cases(found, 1)) == ["q2"]
    assert "q0" not in ids(worst_cases(found, 9)), "nothing is wrong with it"
    assert "q3" not in ids(worst_cases(found, 9)), "it is listed as a failure"


def test_groups_take_turns(cases: Callable[..., list[Case]]) -> None:
    found = worst_cases(cases(groups="aaaaaab", x=["no"] * 6 + ["wor"]), 2)
    assert {case.question.group for case in found} == {"a", "b"}


def test_disagreements_show_every_pattern(cases: Callable[..., list[Case]]) -> None:
    found = cases(a=["word"] * 5 + ["no", "word", None], b=["no"] * 5 + ["word", "word", "word"])
    shown = disagreeing_cases(found, 2)
    assert {case.verdicts for case in shown} == {("right", "wrong"), ("wrong", "right")}
    assert set(ids(disagreeing_cases(found, 99))) == {f"q{i}" for i in range(6)}
    assert disagreeing_cases(cases(only=["word", "no"]), 5) == []


def test_the_choice_does_not_depend_on_the_order(reporting_write: WriteRun) -> None:
    rows = [{"id": f"q{i}", "answers": ["word"], "raw": "no"} for i in range(50)]
    other = [{**row, "raw": "word"} for row in rows]
    a = reporting_write("a", {"docvqa": rows})
    b = reporting_write("b", {"docvqa": other})
    turned = reporting_write("c", {"docvqa": other[::-1]})
    chosen = {
        tuple(ids(disagreeing_cases(all_cases(read_runs(folders), "docvqa"), 3)))
        for folders in ([a, b], [b, a], [turned, a])
    }
    assert len(chosen) == 1 and chosen != {("q0", "q1", "q2")}
