"""A user's own JSON Lines."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from alignvlm.errors import InputError, UnsupportedImageError, UsageError
from alignvlm.evaluation import RecordedJudge, score
from alignvlm.evaluation.benchmarks import open_questions, own_benchmark, put


@pytest.fixture
def bench_own(tmp_path: Path, bench_write: Any) -> Any:
    (tmp_path / "pages").mkdir()
    for number in range(2):
        (tmp_path / "pages" / f"{number}.png").write_bytes(bench_write.png(number))
    return lambda *rows: bench_write.lines(tmp_path / "mine.jsonl", rows)


ROW = {"image": "pages/0.png", "question": "Who?", "answers": ["Doe", "J. Doe"]}


def test_rows(bench_own: Any, bench_write: Any) -> None:
    path = bench_own(
        ROW,
        {"images": ["pages/0.png", f"data:image/png;base64,{bench_write.coded(1)}"],
         "question": "Which?", "answer": "B", "id": "x", "metric": "seed_choice",
         "choices": ["the first", "the second"], "group": ["a", "b"], "hint": "Look."},
        {"image": "pages/1.png", "question": "How much?", "answers": 12, "metric": "due_f1",
         "options": {"key": "total", "document": "d"}, "group": "totals"},
        {"image": "pages/1.png", "question": "Explain.", "answer": "It is.", "metric": "mmvet"},
    )  # fmt: skip
    benchmark = own_benchmark(path, "anls")
    assert benchmark.name == "mine"
    assert benchmark.measures == ("anls", "seed_choice", "due_f1", "mmvet")
    questions = open_questions(benchmark)
    assert questions.home == "jsonl"
    assert questions.where == str(path)
    first, second, third, fourth = questions
    assert [question.id for question in questions] == ["1", "x", "3", "4"]
    assert [len(question.images) for question in questions] == [1, 2, 1, 1]
    assert second.images[1].size() == (20, 50)
    assert (second.group, third.group) == ("a,b", "totals")
    assert score("anls@strict", "doe", first.answers).value == 1.0
    for answer, value in (("B", 1.0), ("A", 0.0)):
        found = score("seed_choice", answer, second.answers, **second.options)
        assert found.value == value
    assert score("due_f1", "12", third.answers, **third.options).value == 1.0
    judge = RecordedJudge(["0.7"])
    assert score("mmvet", "Yes", fourth.answers, judge=judge, **fourth.options).value == 0.7


def test_prompts(bench_own: Any) -> None:
    path = bench_own(ROW, ROW | {"choices": {"A": "one", "B": "two"}, "hint": "Look."})
    benchmark = own_benchmark(path, "anls")
    plain, choice = open_questions(benchmark)
    for dialect in ("vlmevalkit-2025.05", "lmms-eval"):
        assert put(benchmark, plain, dialect).text == (
            "<image>\nWho?\nAnswer the question using a single word or phrase."
        )
        assert put(benchmark, choice, dialect).text == (
            "<image>\nHint: Look.\nWho?\nA. one\nB. two\n"
            "Answer with the option's letter from the given choices directly."
        )
    mine = own_benchmark(path, "anls", 'As JSON, {"a": 1}: {question}')
    assert put(mine, plain, "strict").text == '<image>\nAs JSON, {"a": 1}: Who?'


def test_a_name_of_a_benchmark_is_not_taken_twice(tmp_path: Path, bench_write: Any) -> None:
    path = bench_write.lines(tmp_path / "docvqa.jsonl", [ROW])
    assert own_benchmark(path, "anls").name == "own_docvqa"
    path = path.rename(tmp_path / "my pages, 2.jsonl")
    assert own_benchmark(path, "anls").name == "my_pages_2"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW | {"image": "pages/9.png"}, "names the image 'pages/9.png', which is not in '"),
        (
            ROW | {"image": "../x.png"},
            "which is outside the images folder .*: put it there and give its path from there",
        ),
        (ROW | {"image": None}, "has no image: "),
        (ROW | {"image": []}, "has no image: "),
        (ROW | {"image": "http://x/y.png"}, "is no file: download"),
        (ROW | {"image": "data:image/png;base64,???"}, "not valid base64"),
        (ROW | {"question": ""}, "has no question: give it one"),
        (ROW | {"answers": []}, "has no answers: "),
        (ROW | {"answers": None}, "has no answers: "),
        ("a text", "is a string and no JSON object"),
    ],
)
def test_a_broken_row(row: Any, message: str, bench_own: Any) -> None:
    path = bench_own(ROW, row)
    questions = open_questions(own_benchmark(path, "anls"))
    assert questions[0].text == "Who?"
    with pytest.raises(InputError) as caught:
        questions[1]
    text = str(caught.value)
    assert text.startswith(f"Row 2 of '{path}' ")
    assert re.search(message, text)
    assert ": " in text[len(str(path)) + 10 :]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no question: get a complete copy"),
        ([{"question": "?", "answers": ["a"]}], "has no column 'image' but 'question', 'answers'"),
        ([{"image": "x", "answers": ["a"]}], "has no column 'question'"),
        ([{"image": "x", "question": "?"}], "has no column 'answers'"),
        ([ROW | {"id": "3"}, ROW, ROW], "Rows 1 and 3 of .*mine.jsonl' have the same id '3'"),
        ([ROW | {"id": 1}, ROW | {"id": 1}], "Rows 1 and 2 of .*mine.jsonl' have the same id '1'"),
    ],
)
def test_a_broken_file(rows: list[Any], message: str, bench_own: Any) -> None:
    path = bench_own(*rows)
    with pytest.raises(InputError, match=rf"mine.jsonl' {message}|{message}"):
        open_questions(own_benchmark(path, "anls"))


def test_a_first_row_that_is_no_object(bench_own: Any) -> None:
    with pytest.raises(InputError, match=r"^Row 1 of '.*mine.jsonl' is a list and no JSON object"):
        open_questions(own_benchmark(bench_own([]), "anls"))


def test_misuse(bench_own: Any, tmp_path: Path) -> None:
    path = bench_own(ROW)
    with pytest.raises(UsageError, match=r"metric 'anl' \(did you mean 'anls'\?\): use one of"):
        own_benchmark(path, "anl")
    with pytest.raises(UsageError, match=r"no place for the question"):
        own_benchmark(path, "anls", "Read.")
    with pytest.raises(InputError, match=r"There is no file '.*none.jsonl': check the path"):
        own_benchmark(tmp_path / "none.jsonl", "anls")
    with pytest.raises(UsageError, match=r"metric 'pope_corpus', .* whole set: use 'pope'"):
        own_benchmark(path, "pope_corpus")


def test_a_metric_is_given_or_named(bench_own: Any) -> None:
    for row in (ROW, ROW | {"metric": "anl"}, ROW | {"metric": ["anls"]}):
        message = r"^No metric is given for '.*mine.jsonl': give --metric, or .*, one of anls, rel"
        with pytest.raises(UsageError, match=message):
            own_benchmark(bench_own(row))
    benchmark = own_benchmark(bench_own(ROW | {"metric": "anls"}, ROW))
    assert benchmark.measures == ("anls",)
    with pytest.raises(InputError, match=r"^Row 2 of .* has no metric: give it one, or .*--metric"):
        open_questions(benchmark)[1]


def test_an_image_file_that_is_none_is_told_with_its_row(bench_own: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("Not a page.")
    questions = open_questions(own_benchmark(bench_own(ROW, ROW | {"image": "notes.txt"}), "anls"))
    for read in (questions[1].images[0].size, questions[1].images[0].load):
        with pytest.raises(UnsupportedImageError) as caught:
            read()
        start = f"Row 2 of '{tmp_path / 'mine.jsonl'}' names an unusable image: '"
        assert str(caught.value).startswith(start)
        assert "notes.txt' is a text file" in str(caught.value)


def test_the_digest_is_of_the_bytes(bench_own: Any) -> None:
    path = bench_own(ROW, ROW)
    before = open_questions(own_benchmark(path, "anls"))
    assert before.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    bench_own(ROW, ROW | {"answers": ["Roe"]})
    assert open_questions(own_benchmark(path, "anls")).digest != before.digest


def test_lines_are_json(bench_own: Any, tmp_path: Path) -> None:
    path = bench_own(ROW)
    path.write_text(json.dumps(ROW) + "\n{torn", encoding="utf-8")
    questions = open_questions(own_benchmark(path, "anls"))
    with pytest.raises(InputError, match=r"Row 2 of .* is not valid JSON"):
        questions[1]
