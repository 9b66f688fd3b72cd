from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from alignvlm.errors import InputError, UsageError
from alignvlm.evaluation.question import Prediction
from alignvlm.evaluation.running.folder import (
    BenchmarkFolder,
    RunFolder,
    check_folder,
    read_predictions,
)

ONE = Prediction(
    id="1", group="", question="What?", prompt="What?", prompt_sha256="0", answers=["a"],
    options={}, measures=("anls",), raw="a", scores={"anls@strict": {"value": 1.0, "parts": {}}},
    tokens=1, complete=True, error=None, seconds=0.5,
)  # fmt: skip
FACTS: dict[str, Any] = {
    "model": "m", "description": {"kind": "stub", "dtype": "float32", "device": "cpu"},
    "benchmarks": ["a"], "score_dialect": "strict", "prompt_dialect": "strict", "limit": None,
    "versions": {"alignvlm": "1"}, "scorers": "1", "command": "alignvlm eval",
    "num_processes": 1, "batch_size": 1,
}  # fmt: skip
RECORD = {"name": "a", "split": "test", "measures": ["anls"], "headline": "mean",
          "num_questions": 2, "prompt_dialect": "strict", "where": "here"}  # fmt: skip


def append(folder: BenchmarkFolder, rank: int, *rows: tuple[int, Prediction]) -> None:
    with folder.writer(rank) as write:
        for index, prediction in rows:
            write(index, prediction)


def test_a_prediction_is_in_the_file_when_it_is_written(tmp_path: Path) -> None:
    folder = BenchmarkFolder(tmp_path)
    with folder.writer(0) as write:
        write(3, ONE)
        assert folder.done() == {3: ONE}
        write(1, replace(ONE, id="2"))
        assert sorted(folder.done()) == [1, 3]


@given(
    text=st.text(), answers=st.recursive(st.text() | st.none() | st.integers(), st.lists),
    error=st.none() | st.text(),
)  # fmt: skip
def test_any_text_comes_back(
    tmp_path_factory: pytest.TempPathFactory, text: str, answers: Any, error: str | None
) -> None:
    folder = BenchmarkFolder(tmp_path_factory.mktemp("run"))
    one = replace(ONE, id=text, raw=text, answers=answers, error=error, options={"key": text})
    append(folder, 0, (0, one))
    assert folder.done() == {0: one}
    folder.finish([one], {})
    assert read_predictions(folder.predictions) == [one]


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "\ud800", "a\u2028b\x85c\r"])
def test_answers_that_files_like_to_change(tmp_path: Path, text: str) -> None:
    folder = BenchmarkFolder(tmp_path)
    append(folder, 0, (0, replace(ONE, raw=text, id=text)), (1, ONE))
    found = folder.done()
    assert (found[0].raw, found[0].id, found[1]) == (text, text, ONE)


def test_a_grade_that_is_no_number_is_still_json(tmp_path: Path) -> None:
    folder = BenchmarkFolder(tmp_path)
    append(folder, 0, (0, replace(ONE, scores={"m": {"value": math.nan, "parts": {}}})))
    line = (tmp_path / "parts" / "0.jsonl").read_text()
    assert json.loads(line, parse_constant=pytest.fail)["scores"]["m"]["value"] is None
    assert folder.done()[0].scores["m"]["value"] is None
    path = folder.write_scores("scores.json", {"value": math.inf, "text": "NaN", "in": [math.nan]})
    written = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert written == {"value": None, "text": "NaN", "in": [None]}


@pytest.mark.parametrize("cut", [2, 50, 10_000])
def test_a_torn_line_is_dropped_and_not_added_to(tmp_path: Path, cut: int) -> None:
    folder = BenchmarkFolder(tmp_path)
    append(folder, 0, (0, ONE), (1, replace(ONE, raw="b" * 20_000)))
    part = tmp_path / "parts" / "0.jsonl"
    part.write_bytes(part.read_bytes()[:-cut])
    assert folder.done() == {0: ONE}
    append(folder, 0, (2, ONE))
    assert folder.done() == {0: ONE, 2: ONE}
    assert part.read_bytes().count(b"\n") == 2


def test_a_line_that_lacks_only_its_end_is_kept(tmp_path: Path) -> None:
    folder = BenchmarkFolder(tmp_path)
    append(folder, 0, (0, ONE))
    part = tmp_path / "parts" / "0.jsonl"
    part.write_bytes(part.read_bytes()[:-1])
    assert folder.done() == {0: ONE}
    append(folder, 0, (1, ONE))
    assert folder.done() == {0: ONE, 1: ONE}


def test_damaged_lines_are_as_if_they_were_not_there(tmp_path: Path) -> None:
    folder = BenchmarkFolder(tmp_path)
    append(folder, 0, (0, ONE))
    part = tmp_path / "parts" / "0.jsonl"
    lost = [b"\x00" * 40, b'{"index": 1}', b'{"index": "2", "id": 3}', b"[]", b"[" * 100_000]
    part.write_bytes(b"\n".join([*lost, part.read_bytes()]))
    assert folder.done() == {0: ONE}


def test_an_answer_counts_before_a_failure_and_the_later_before_the_earlier(tmp_path: Path) -> None:
    folder = BenchmarkFolder(tmp_path)
    failed = replace(ONE, raw=None, error="first: again")
    append(folder, 0, (0, failed), (1, ONE), (2, failed))
    append(folder, 1, (0, ONE), (1, failed), (2, replace(failed, error="second: again")))
    found = folder.done()
    assert (found[0], found[1]) == (ONE, ONE)
    assert found[2].error == "second: again"
    folder.finish([found[0], failed, found[2]], {})
    append(folder, 0, (1, ONE))
    assert [folder.done()[index].error for index in range(3)] == [None, None, "second: again"]


def test_finish_leaves_whole_files_and_no_parts(tmp_path: Path) -> None:
    folder = BenchmarkFolder(tmp_path)
    append(folder, 0, (0, ONE))
    folder.finish([ONE, replace(ONE, id="2")], {"benchmark": "a"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions.jsonl", "scores.json"]
    records = [json.loads(line) for line in folder.predictions.read_text().splitlines()]
    assert list(records[0]) == list(ONE.to_record())
    assert [record["id"] for record in records] == ["1", "2"]
    assert folder.done() == {0: ONE, 1: replace(ONE, id="2")}


def test_predictions_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    with pytest.raises(InputError, match="is not there: run `alignvlm eval`"):
        read_predictions(path)
    path.write_text(json.dumps(ONE.to_record()) + "\n{}\n")
    with pytest.raises(InputError, match=r"Line 2 of .* is no prediction"):
        read_predictions(path)


@pytest.mark.parametrize(
    "change",
    [{"options": []}, {"options": None}, {"scores": 3}, {"scores": {"m": 1}}, {"measures": "anls"},
     {"measures": []}, {"measures": [1]}, {"scores": {"m": {"value": "x"}}}, {"raw": 5},
     {"scores": {"m": {"value": 1, "parts": 2}}}, {"group": None}, {"raw": None}, {"id": 3},
     {"seconds": "1"}, {"tokens": 1.5}, {"complete": None}, {"error": 4}, {"prompt": 1}],
)  # fmt: skip
def test_fields_of_another_type(tmp_path: Path, change: dict[str, Any]) -> None:
    """For `rescore` and `report` a damaged line; `eval` asks that question again."""
    folder = BenchmarkFolder(tmp_path)
    record = {**ONE.to_record(), **change}
    folder.predictions.write_text(f"{json.dumps(ONE.to_record())}\n{json.dumps(record)}\n")
    with pytest.raises(InputError, match=r"Line 2 of .* is no prediction: restore"):
        read_predictions(folder.predictions)
    assert folder.done() == {0: ONE}


def test_predictions_that_are_not_all_there(tmp_path: Path) -> None:
    folder = BenchmarkFolder(tmp_path / "a")
    folder.begin(RECORD)
    two = [ONE, replace(ONE, id="2")]
    folder.finish(two, {})
    assert folder.whole() == two
    folder.finish(two[:1], {})
    with pytest.raises(InputError, match=r"holds 1 predictions and .* says 2 questions: restore"):
        folder.whole()
    folder.finish([ONE, ONE], {})
    with pytest.raises(InputError, match=r"Line 2 of .* '1' of line 1 a second time"):
        folder.whole()
    folder.finish([ONE, replace(two[1], measures=("a",))], {})
    with pytest.raises(InputError, match=r"Line 2 of .* names the measure 'a', which there is not"):
        folder.whole()


def test_other_data_of_the_same_number(tmp_path: Path) -> None:
    folder = BenchmarkFolder(tmp_path / "a")
    folder.begin({**RECORD, "digest": "1"})
    folder.begin({**RECORD, "digest": "1"})
    with pytest.raises(UsageError, match=r"The data of a has changed since .*: put it back as it"):
        folder.begin({**RECORD, "digest": "2"})
    before_digests = BenchmarkFolder(tmp_path / "b")
    before_digests.begin(RECORD)
    before_digests.begin({**RECORD, "digest": "2"})


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below" / "it"):
        with (
            pytest.raises(UsageError, match="file' is a file and no folder: choose another"),
            RunFolder(path).locked(),
        ):
            pass
    check_folder(tmp_path, "no")
    check_folder(tmp_path / "new" / "folder", "no")
    assert (tmp_path / "file").read_text() == "mine" and not (tmp_path / "new").exists()


def test_the_record_of_a_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "new" / "run")
    assert folder.read() is None
    with folder.locked():
        folder.begin(FACTS)
        begun = folder.read()
        assert begun is not None and begun["ended"] is None and begun["started"]
        assert {name: begun[name] for name in FACTS} == FACTS
        folder.end()
    ended = folder.read()
    assert ended is not None and ended["ended"] >= begun["started"]
    folder.begin({**FACTS, "benchmarks": ["b", "a"], "num_processes": 2, "batch_size": 8})
    again = folder.read()
    assert again is not None and again["benchmarks"] == ["a", "b"]
    assert again["started"] == begun["started"] and again["num_processes"] == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"score_dialect": "due"}, "score_dialect 'strict' and not 'due'"),
        ({"prompt_dialect": "due"}, "prompt_dialect 'strict' and not 'due'"),
        ({"limit": 5}, "limit none and not 5"),
        ({"description": {"kind": "stub", "dtype": "bfloat16"}},
         "model's dtype 'float32' and not 'bfloat16'"),
        ({"description": {"kind": "stub", "dtype": "float32", "sha256": "f"}},
         "model's sha256 none and not 'f'"),
    ],
)  # fmt: skip
def test_a_run_of_other_settings_is_refused(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    folder = RunFolder(tmp_path)
    folder.begin(FACTS)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(UsageError) as raised:
        folder.begin({**FACTS, **change})
    assert said in str(raised.value) and "--run" in str(raised.value)
    assert (tmp_path / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [{"command": "other"}, {"model": "./m"}, {"versions": {}}, {"scorers": "2"},
     {"description": {**FACTS["description"], "device": "cuda:1"}}],
)  # fmt: skip
def test_what_may_change_between_starts(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = RunFolder(tmp_path)
    folder.begin(FACTS)
    folder.begin({**FACTS, **change})


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"model": "m"}', '{"started": "now", "benchmarks": "anls"}',
     '{"started": "now", "benchmarks": [1]}', '{"started": 1, "benchmarks": []}',
     '{"started": "now", "benchmarks": [], "description": [1]}'],
)  # fmt: skip
def test_a_folder_of_something_else(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match="choose another folder"):
        RunFolder(tmp_path).begin(FACTS)


def test_two_commands_at_once(tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / ".lock"),
        pytest.raises(UsageError, match="Another evaluation is writing"),
        RunFolder(tmp_path).locked(),
    ):
        pass
    with RunFolder(tmp_path).locked():
        pass


@pytest.mark.parametrize(
    ("change", "said"),
    [({"num_questions": 3}, "num_questions"), ({"split": "val"}, '"test", now "val"'),
     ({"headline": "mean_of_groups"}, "headline"), ({"measures": ["due_f1"]}, "measures"),
     ({"prompt_dialect": "due"}, "prompt_dialect")],
)  # fmt: skip
def test_another_benchmark_of_the_same_name(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    folder = BenchmarkFolder(tmp_path / "a")
    with pytest.raises(InputError, match="is not there"):
        folder.record()
    folder.begin(RECORD)
    folder.begin({**RECORD, "where": "there"})
    assert folder.record() == RECORD
    with pytest.raises(UsageError, match="was started with another") as raised:
        folder.begin({**RECORD, **change})
    assert said in str(raised.value)
