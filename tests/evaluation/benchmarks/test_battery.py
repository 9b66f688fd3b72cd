"""What holds for every home of every benchmark: it is loaded, asked and scored."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from alignvlm.evaluation import RecordedJudge, aggregate, score
from alignvlm.evaluation.benchmarks import (
    BENCHMARKS,
    PROMPT_DIALECTS,
    QuestionSet,
    find_benchmark,
    fit_answers,
    open_questions,
    put,
)
from alignvlm.evaluation.question import Question
from alignvlm.evaluation.scorers import MEASURES

pytestmark = pytest.mark.usefixtures("bench_cache")

# lmms-eval finds every open question of MMMU wrong; see docs/evaluation.md.
ALWAYS_WRONG = {"mmmu_open@lmms-eval"}


def opened(case: Any, folder: Path) -> QuestionSet:
    return open_questions(find_benchmark(case.benchmark), case.make(folder))


def right(question: Question) -> str:
    """An answer that any dialect must find right."""
    if question.measures[0] == "due_f1":
        return question.answers[0] if question.answers else "None"
    if question.measures[0] == "vcr_exact_match":
        return " and ".join(question.answers)
    if question.group == "vtabfact":
        return "True" if question.answers == ["1"] else "False"
    if question.group in ("vwtq", "vwtq_syn"):
        return question.answers[0].replace("|", "||")
    return str(question.answers[0])


def wrong(question: Question) -> str:
    if question.group == "vtabfact":
        return "False" if question.answers == ["1"] else "True"
    if question.measures[0] == "pope":
        return "No" if question.answers == ["Yes"] else "Yes"
    if question.choices:
        return next(letter for letter in "BA" if letter != question.answers[0])
    return "zqxj 8471"


def scored(question: Question, metric: str, prediction: str, judge: str) -> Any:
    options = dict(question.options)
    if question.measures[0] == "mmvet":
        options["judge"] = RecordedJudge([judge])
    return score(metric, prediction, fit_answers(metric, question.answers), **options)


def metrics(measure: str) -> list[str]:
    return [f"{measure}@{dialect}" for dialect in MEASURES[measure]]


def test_nothing_needs_torch() -> None:
    code = "import sys, alignvlm.evaluation.benchmarks; print({'torch', 'transformers', 'pyarrow'}"
    command = [sys.executable, "-c", f"{code} & set(sys.modules))"]
    assert subprocess.run(command, check=True, capture_output=True).stdout == b"set()\n"


def test_the_digest_is_of_the_files_wherever_they_lie(bench_case: Any, tmp_path: Path) -> None:
    first = opened(bench_case, tmp_path / "a")
    pickle.dumps(first)  # it is sent to other processes
    assert first.digest == opened(bench_case, tmp_path / "b").digest != ""


def test_every_home_has_a_case(bench_cases: Any) -> None:
    made = {(case.benchmark, case.home) for case in bench_cases} | {("synthdoc", "drawn")}
    assert made == {(b.name, home.kind) for b in BENCHMARKS.values() for home in b.homes}


def test_it_is_loaded(bench_case: Any, tmp_path: Path) -> None:
    questions = opened(bench_case, tmp_path)
    assert len(questions) == bench_case.num_questions
    assert questions.home == bench_case.home
    assert Path(questions.where).exists()
    asked = list(questions)
    assert len({question.id for question in asked}) == len(asked)
    for index, question in enumerate(asked):
        assert questions[index] == question  # any order, any time
        assert question.text and question.images and question.measures
        assert set(question.measures) <= set(questions.benchmark.measures)
        for image in question.images:
            assert image.size() == image.load().size
    again = copy.deepcopy(questions)
    assert again[len(asked) - 1] == asked[-1]


def test_images_are_the_rows_own(bench_case: Any, tmp_path: Path) -> None:
    found = [[image.size() for image in q.images] for q in opened(bench_case, tmp_path)]
    sizes = [(40, 30), (20, 50), (33, 21)]
    expected: dict[tuple[str, str], list[list[tuple[int, int]]]] = {
        ("mmmu", "tsv"): [sizes[:1], sizes[1:], sizes[2:]],
        ("mmmu", "hub"): [sizes[:1], sizes[:2], sizes[2:]],
        ("seedbench", "hub"): [sizes[:1], sizes[1:2]],
        ("gqa", "hub"): [sizes[:1], sizes[1:2], sizes[:1]],
        ("tablevqa", "tsv"): [[sizes[i]] for i in (0, 0, 2, 0)],
        # Files of the Hub are read in the order of their names.
        ("tablevqa", "hub"): [[sizes[i]] for i in (0, 2, 0, 1)],
    }
    rows = range(len(found))
    # The second row of a TSV takes the first one's image.
    usual = [[sizes[0 if bench_case.home == "tsv" and i == 1 else i % 3]] for i in rows]
    assert found == expected.get((bench_case.benchmark, bench_case.home), usual)


def test_it_is_put_in_every_dialect(bench_case: Any, tmp_path: Path) -> None:
    questions = opened(bench_case, tmp_path)
    for question, dialect in product(questions, PROMPT_DIALECTS):
        prompt = put(questions.benchmark, question, dialect)
        assert prompt.question_id == question.id
        assert set(prompt.images) <= set(question.images)
        assert len(prompt.images) == sum(part["type"] == "image" for part in prompt.parts)
        assert prompt.max_new_tokens > 0
        assert "{" not in prompt.text
        if "<image" not in question.text and questions.benchmark.name[:3] != "vcr":
            assert question.text.strip().lower() in prompt.text.lower()
            assert len(prompt.images) == len(question.images)


def test_a_right_answer_scores_1_and_a_wrong_one_0(bench_case: Any, tmp_path: Path) -> None:
    by_metric: dict[str, list[Any]] = {}
    for question in opened(bench_case, tmp_path):
        if len(question.answers) > 1 and question.measures == ("wtq_denotation",):
            continue  # one answer is never two values, see docs/evaluation.md
        for measure in question.measures:
            for metric in metrics(measure):
                good = scored(question, metric, right(question), "1.0")
                bad = scored(question, metric, wrong(question), "0.0")
                by_metric.setdefault(metric, []).append(good)
                assert good.metric == metric
                assert bad.value == 0.0, (metric, question)
                absent = measure == "due_f1" and not question.answers
                assert good.value == (0.0 if metric in ALWAYS_WRONG or absent else 1.0), metric
    for metric, scores in by_metric.items():
        assert aggregate(scores).value == (0.0 if metric in ALWAYS_WRONG else 1.0)
