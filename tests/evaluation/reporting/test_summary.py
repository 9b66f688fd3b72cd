"""What report.json says: tables, remarks, differences, groups and failures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignvlm.evaluation.reporting import Draws, read_runs
from alignvlm.evaluation.reporting.paper import paper_tables
from alignvlm.evaluation.reporting.summary import summarise
from alignvlm.evaluation.statistics import mcnemar

WriteRun = Callable[..., Path]
DRAWS = Draws(num=400)


def content(*folders: Path, cases: int = 2, **options: Any) -> dict[str, Any]:
    return summarise(read_runs(list(folders), **options), DRAWS, cases).content


def rows(right: Sequence[int], measure: str = "anls", **more: Any) -> list[dict[str, Any]]:
    return [
        {"id": f"q{i}", "answers": ["word"], "raw": "word" if hit else "no", "measures": (measure,),
         **more}
        for i, hit in enumerate(right)
    ]  # fmt: skip


def table(found: dict[str, Any], name: str) -> dict[str, Any]:
    (one,) = [one for one in found["tables"] if one["name"] == name]
    return dict(one)


def cells(found: dict[str, Any], name: str, model: str) -> dict[str, Any]:
    one = table(found, name)
    (row,) = [row for row in one["rows"] if row["model"] == model]
    headings = [f"{c['group'][:3]}{c['heading']}" for c in one["columns"]]
    return dict(zip(headings, row["cells"], strict=True))


HALF = [1, 0] * 10


def test_runs_stand_beside_the_paper_s_rows(reporting_write: WriteRun) -> None:
    run = reporting_write("mine", {"docvqa": rows(HALF), "pope": rows(HALF), "x": rows(HALF)})
    found = content(run)
    assert [one["name"] for one in found["tables"]] == [
        "Table 1", "Table 2", "Table 3", "Other benchmarks",
    ]  # fmt: skip
    one = table(found, "Table 1")
    assert len(one["rows"]) == 27 and [row["ours"] for row in one["rows"]][-2:] == [False, True]
    mine = cells(found, "Table 1", "mine")
    assert mine["DocVQA"]["value"] == 0.5 and mine["KLC"] is None and mine["Avg"] is None
    assert 0.2 < mine["DocVQA"]["low"] < 0.5 < mine["DocVQA"]["high"] < 0.8
    paper = cells(found, "Table 1", "Claude-3.5 Sonnet")
    assert paper["DocVQA"] == {"value": 0.8848} and paper["Avg"] == {"value": 0.5654}
    assert cells(found, "Table 3", "mine")["GenPOPE"]["value"] == 0.5
    assert len(table(found, "Other benchmarks")["rows"]) == 1


def test_averages_over_all_columns_and_over_those_that_all_runs_have(
    reporting_write: WriteRun,
) -> None:
    names = paper_tables()[0].benchmarks
    full = reporting_write("full", {name: rows(HALF) for name in names})
    found = content(full)
    average = cells(found, "Table 1", "full")["Avg"]
    assert average["value"] == 0.5
    # Nine benchmarks drawn by themselves: their mean varies a third as much.
    one = cells(found, "Table 1", "full")["DocVQA"]
    assert (average["high"] - average["low"]) == pytest.approx(
        (one["high"] - one["low"]) / 3, rel=0.3
    )
    assert not any(c["heading"].startswith("Avg of") for c in table(found, "Table 1")["columns"])

    two = reporting_write("two", {"docvqa": rows([1] * 20), "chartqa": rows(HALF)})
    found = content(full, two)
    assert cells(found, "Table 1", "two")["Avg"] is None
    assert cells(found, "Table 1", "two")["Avg of 2"]["value"] == 0.75
    paper = cells(found, "Table 2", "Llama-3.2-3B-MLP")
    assert paper["Avg of 2"]["value"] == pytest.approx((0.7146 + 0.6648) / 2)
    headings = [c["heading"] for c in table(found, "Table 3")["columns"]]
    assert headings[4:6] == ["Avg", "Avg of 2"] and len(headings) == 12


def test_vcr_has_a_column_for_each_measure(reporting_write: WriteRun) -> None:
    row = {"id": "1", "answers": ["the old house", "a b"], "raw": "the old a b",
           "measures": ("vcr_exact_match", "vcr_jaccard")}  # fmt: skip
    found = content(reporting_write("r", {"vcr_easy": [row]}))
    one = table(found, "VCR (Figure 5)")
    assert [c["heading"] for c in one["columns"]] == ["vcr exact match", "vcr jaccard"]
    values = [cell["value"] for cell in one["rows"][0]["cells"]]
    assert values[0] == 0.5 and values[1] == pytest.approx((0.5 + 1) / 2)
    assert "14.41 on the easy setting and 10.18 on the hard setting" in one["note"]


def test_rows_with_fewer_questions_failures_or_other_prompts_are_marked(
    reporting_write: WriteRun,
) -> None:
    short = reporting_write(
        "short", {"docvqa": rows(HALF), "gqa": rows(HALF)}, limit=20, prompt_dialect="lmms-eval",
        records={"docvqa": {"num_expected": 5349}, "gqa": {"num_expected": None}},
    )  # fmt: skip
    broken = rows(HALF)
    broken[0] |= {"raw": None, "error": "it broke: mend it"}
    whole = reporting_write("whole", {"docvqa": broken})
    found = content(short, whole)
    assert cells(found, "Table 1", "short")["DocVQA"]["remarks"] == [
        "20 of 5,349 questions", "prompts of lmms-eval",
    ]  # fmt: skip
    assert cells(found, "Table 1", "whole")["DocVQA"]["remarks"] == [
        "1 question failed and counts as 0", "prompts of vlmevalkit-2025.05",
    ]  # fmt: skip
    assert cells(found, "Table 3", "short")["GenGQA"]["remarks"] == ["the first 20 questions only"]
    assert cells(found, "Table 1", "whole")["DocVQA"]["value"] == 0.45


def test_a_scores_json_that_does_not_fit_its_predictions_is_marked(
    reporting_write: WriteRun,
) -> None:
    told = {"docvqa": {"dialect": "vlmevalkit-2025.05", "headline": {"value": 0.7}}}
    run = reporting_write("r", {"docvqa": rows(HALF)}, scores=told)
    (said,) = cells(content(run), "Table 1", "r")["DocVQA"]["remarks"]
    assert "rescore" in said
    assert cells(content(run, dialect="due"), "Table 1", "r")["DocVQA"]["remarks"] == []


def test_differences_are_paired_tested_and_corrected(reporting_write: WriteRun) -> None:
    a = [1] * 12 + [0] * 3 + [1] * 30
    b = [0] * 12 + [1] * 3 + [1] * 30
    accuracy, anls = rows(a, "relaxed_accuracy"), rows(a)
    anls[0]["raw"] = "wor"
    one = reporting_write("one", {"chartqa": accuracy, "docvqa": anls})
    two = reporting_write("two", {"chartqa": rows(b, "relaxed_accuracy"), "docvqa": rows(b)})
    found = content(one, two)
    by_name = {d["benchmark"]: d for d in found["differences"]}
    chart, doc = by_name["chartqa"], by_name["docvqa"]
    assert (chart["first"], chart["second"], chart["num_questions"]) == ("one", "two", 45)
    assert chart["difference"] == pytest.approx(9 / 45) and chart["test"] == "McNemar, exact"
    assert chart["p"] == pytest.approx(mcnemar(12, 3))
    assert (chart["first_better"], chart["second_better"]) == (12, 3)
    assert chart["low"] < 9 / 45 < chart["high"] < 0.4
    # Drawn together: the interval is narrower than that of two independent scores.
    spread = np.sqrt((15 - 81 / 45) / 45) / np.sqrt(45)
    assert chart["high"] - chart["low"] == pytest.approx(2 * 1.96 * spread, rel=0.25)
    assert doc["test"] == "permutation of questions"
    smaller, larger = sorted([chart["p"], doc["p"]])
    corrected = sorted([chart["p_holm"], doc["p_holm"]])
    assert corrected == pytest.approx([2 * smaller, max(larger, 2 * smaller)])
    (mean,) = found["mean_differences"]
    assert mean["benchmarks"] == ["docvqa", "chartqa"]
    assert mean["difference"] == pytest.approx((chart["difference"] + doc["difference"]) / 2)


def test_only_questions_that_both_were_asked_are_compared(reporting_write: WriteRun) -> None:
    long, short = rows([1] * 20), rows([0] * 15)
    short[3]["answers"] = ["another"]
    short[4]["prompt_sha256"] = "1" * 64
    found = content(
        reporting_write("long", {"docvqa": long}), reporting_write("short", {"docvqa": short})
    )
    (one,) = found["differences"]
    assert one["num_questions"] == 14 and one["difference"] == 1.0
    assert one["remark"] == (
        "15 of 20 questions are in both; left out with other accepted answers: 1; "
        "put in other words: 1"
    )
    apart = [{**row, "id": f"other {row['id']}"} for row in short]
    other = content(reporting_write("l", {"docvqa": long}), reporting_write("s", {"docvqa": apart}))
    assert other["differences"] == []


def test_documents_are_what_is_drawn_for_pooled_scores(reporting_write: WriteRun) -> None:
    def fields(right: int) -> list[dict[str, Any]]:
        return [
            {"id": f"{d}/{key}", "answers": ["x"], "raw": "x" if d < right else "y",
             "measures": ("due_f1",), "options": {"key": key, "document": f"d{d}"}}
            for d in range(12) for key in ("name", "date", "sum")
        ]  # fmt: skip

    found = content(
        reporting_write("a", {"klc": fields(9)}), reporting_write("b", {"klc": fields(3)})
    )
    first = found["results"][0]["metrics"][0]
    assert (first["value"], first["units"], first["num_units"]) == (0.75, "documents", 12)
    (one,) = found["differences"]
    assert (one["kind"], one["num_units"], one["num_questions"]) == ("documents", 12, 36)
    assert one["test"] == "permutation of documents"
    assert one["p"] == 2 / 2**6, "six documents differ, all in one direction"


def test_groups_have_their_own_scores(reporting_write: WriteRun) -> None:
    found = rows([1] * 10 + [0] * 15)
    for place, row in enumerate(found):
        row["group"] = "human" if place < 10 else "augmented,human" if place < 15 else "augmented"
    record = {"chartqa": {"headline": "mean_of_groups"}}
    (result,) = content(reporting_write("r", {"chartqa": found}, records=record))["results"]
    human, augmented = result["groups"]
    assert (human["group"], human["num_questions"]) == ("human", 15)
    assert human["value"] == pytest.approx(10 / 15) and augmented["value"] == 0
    assert result["metrics"][0]["value"] == pytest.approx((10 / 15 + 0) / 2)


def test_few_questions_have_no_interval(reporting_write: WriteRun) -> None:
    found = content(
        reporting_write("a", {"docvqa": rows([1] * 9)}),
        reporting_write("b", {"docvqa": rows([0] * 9)}),
    )
    assert found["results"][0]["metrics"][0]["low"] is None
    (one,) = found["differences"]
    assert (one["difference"], one["low"], one["high"]) == (1.0, None, None)
    assert one["p"] == 2 / 2**9


def test_a_score_that_is_no_number_is_none(reporting_write: WriteRun) -> None:
    nan = {"mmvet@vlmevalkit-2025.05": {"value": None, "parts": {}}}
    found = rows(HALF, "mmvet", scores=nan)
    result = content(reporting_write("r", {"mmvet": found}), reporting_write("s", {"mmvet": found}))
    assert result["results"][0]["metrics"][0]["value"] is None
    assert result["results"][0]["remarks"] == ["a score is no number"]
    assert result["differences"] == []


def test_failures_are_counted_by_reason(reporting_write: WriteRun) -> None:
    found = rows([1] * 4)
    for place in (0, 1, 3):
        found[place] |= {"raw": None, "error": f"'p{place}.png' has {place} pages: cut it"}
    found[2] |= {"raw": None, "error": "the endpoint is gone: start it"}
    failures = content(reporting_write("r", {"docvqa": found}))["failures"]
    assert [(one["reason"], one["num_failed"]) for one in failures] == [
        ("… has … pages: cut it", 3), ("the endpoint is gone: start it", 1),
    ]  # fmt: skip
    assert failures[0]["ids"] == ["q0", "q1", "q3"]
    assert failures[0]["example"] == {"id": "q0", "error": "'p0.png' has 0 pages: cut it"}


def test_only_what_differs_between_failures_is_masked(reporting_write: WriteRun) -> None:
    found = rows([1] * 6)
    told = "http://127.0.0.1:8945/v1 gave no answer to the question 'q{}' in 5 tries (status {})"
    for place, status in enumerate((500, 500, 404, 500, 404)):
        found[place] |= {"raw": None, "error": told.format(place, status)}
    found[5] |= {"raw": None, "error": "KeyError: 'value'"}
    failures = content(reporting_write("r", {"docvqa": found}))["failures"]
    assert [(one["reason"], one["num_failed"]) for one in failures] == [
        (told.replace("'q{}'", "…").format(500), 3), (told.replace("'q{}'", "…").format(404), 2),
        ("KeyError: 'value'", 1),
    ]  # fmt: skip


def test_numbers_of_a_run_do_not_depend_on_its_company(reporting_write: WriteRun) -> None:
    a = reporting_write("a", {"docvqa": rows(HALF), "x": rows(HALF)})
    b = reporting_write("b", {"docvqa": rows([1] * 20)})
    alone, together = content(a), content(b, a)
    assert alone["results"][0] == together["results"][1]
    turned = rows(HALF)[::-1]
    other = content(reporting_write("c", {"docvqa": turned}))
    for key in ("value", "low", "high"):
        metrics = [one["results"][0]["metrics"][0][key] for one in (alone, other)]
        assert metrics[0] == metrics[1], "nor on the order of its questions"
