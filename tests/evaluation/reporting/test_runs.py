"""Run folders as they are read: scores saved or made again, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from alignvlm.errors import AlignVLMError, InputError, UsageError
from alignvlm.evaluation.reporting import read_runs, write_report
from alignvlm.evaluation.reporting.units import as_units
from alignvlm.evaluation.running.folder import read_predictions
from alignvlm.evaluation.running.scoring import score_predictions

WriteRun = Callable[..., Path]

ROWS = [
    {"id": "a", "answers": ["Stortford"], "raw": "Stortford"},
    {"id": "b", "answers": ["Bishop's Stortford"], "raw": "Stortford"},
    {"id": "c", "answers": ["x"], "raw": None, "error": "'c.png' is damaged: save it again"},
]


def test_saved_scores_are_taken_as_they_are(reporting_write: WriteRun) -> None:
    rows = [{**ROWS[0], "scores": {"anls@vlmevalkit-2025.05": {"value": 0.25, "parts": {"k": 1}}}}]
    (run,) = read_runs([reporting_write("r", {"docvqa": rows})])
    (found,) = run.results["docvqa"].scores[0]
    assert (found.metric, found.value, found.parts) == ("anls@vlmevalkit-2025.05", 0.25, {"k": 1})


def test_a_dialect_scores_the_answers_again(reporting_write: WriteRun) -> None:
    """An ANLS of exactly 0.5 counts in VLMEvalKit and not in DUE."""
    folder = reporting_write("r", {"docvqa": ROWS})
    kept, gone = read_runs([folder])[0], read_runs([folder], dialect="due")[0]
    assert [found[0].value for found in kept.results["docvqa"].scores] == [1.0, 0.5, 0.0]
    assert [found[0].value for found in gone.results["docvqa"].scores] == [1.0, 0.0, 0.0]
    assert gone.dialect == "due" and gone.results["docvqa"].scores[2][0].metric == "anls@due"


@pytest.mark.parametrize("dialect", [None, "vlmevalkit-2025.05", "lmms-eval", "due"])
def test_failed_samples_count_as_they_do_in_scores_json(
    reporting_write: WriteRun, dialect: str | None
) -> None:
    fields = {"measures": ("due_f1",), "options": {"key": "name", "document": "d"}}
    blanks = {"measures": ("vcr_exact_match", "vcr_jaccard"), "answers": ["a b", "c"]}
    pope = {"measures": ("pope",), "answers": "Yes"}
    broken = {"raw": None, "error": "it broke: mend it"}
    unread = {"id": "row 3", "answers": None, **broken}
    benchmarks = {
        "docvqa": [*ROWS, unread],
        "klc": [{"id": "1", "answers": ["x"], "raw": "X", **fields},
                {"id": "2", "answers": ["y"], **broken, **fields,
                 "options": {"key": "date", "document": "d"}},
                {**unread, "measures": ("due_f1",)}],
        "pope": [{"id": "1", "raw": "yes", "group": "random,popular", **pope},
                 {"id": "2", "group": "random", **pope, **broken}],
        "tablevqa": [{"id": "1", "answers": ["x"], "raw": "x", "group": "vwtq"},
                     {"id": "2", "answers": ["x"], "raw": "y", "group": "vtabfact"}, unread],
        "vcr_easy": [{"id": "1", "raw": "a b and c", **blanks}, {"id": "2", **blanks, **broken}],
    }  # fmt: skip
    records = {"tablevqa": {"headline": "mean_of_groups"}}
    folder = reporting_write("r", benchmarks, records=records)
    (run,) = read_runs([folder], dialect=dialect)
    for name, result in run.results.items():
        told = score_predictions(
            read_predictions(folder / name / "predictions.jsonl"), benchmark=name,
            headline=result.headline, dialect=run.dialect,
        )  # fmt: skip
        units = as_units(result.scored(), result.headline)
        assert units.value == pytest.approx(told["headline"]["value"]), name
        assert 0 < units.value < 1


def test_labels_tell_runs_apart(reporting_write: WriteRun, tmp_path: Path) -> None:
    row = {"docvqa": ROWS[:1]}
    folders = [
        reporting_write("one", row, model="org/model"),
        reporting_write("two", row, model="/data/runs/align/"),
        reporting_write("three", row, model="org/model"),
        reporting_write("four", row, model="http://localhost:1/v1#tiny"),
    ]
    labels = [run.label for run in read_runs(folders)]
    assert labels == [
        "org/model (one)", "align", "org/model (three)", "http://localhost:1/v1#tiny",
    ]  # fmt: skip
    (tmp_path / "deep").mkdir()
    same = (tmp_path / "one").rename(tmp_path / "deep" / "three")
    labels = [run.label for run in read_runs([same, folders[2]])]
    assert labels == ["org/model (three) #1", "org/model (three) #2"]


def test_the_paper_s_order_comes_first_then_the_run_s(reporting_write: WriteRun) -> None:
    names = ["zebra", "synthdoc", "vcr_hard", "chartqa", "docvqa", "pope"]
    (run,) = read_runs([reporting_write("r", {name: ROWS[:1] for name in names})])
    assert list(run.results) == ["docvqa", "chartqa", "pope", "vcr_hard", "zebra", "synthdoc"]


def test_unfinished_benchmarks_are_named_and_left_out(reporting_write: WriteRun) -> None:
    folder = reporting_write("r", {"docvqa": ROWS, "chartqa": ROWS})
    (folder / "chartqa" / "predictions.jsonl").unlink()
    (run,) = read_runs([folder])
    assert list(run.results) == ["docvqa"] and run.unfinished == ("chartqa",)
    with pytest.raises(UsageError, match="it goes on"):
        read_runs([folder], benchmarks=["chartqa"])


def refused(folders: list[Path], **options: object) -> str:
    with pytest.raises(AlignVLMError) as caught:
        read_runs(folders, **options)  # type: ignore[arg-type]
    text = str(caught.value)
    assert ": " in text and "\n" not in text
    return text


def test_what_cannot_be_compared_is_refused(reporting_write: WriteRun) -> None:
    one = reporting_write("one", {"docvqa": ROWS})
    two = reporting_write("two", {"docvqa": ROWS}, dialect="lmms-eval")
    assert "different dialects (lmms-eval, vlmevalkit-2025.05)" in refused([one, two])
    assert len(read_runs([one, two], dialect="lmms-eval")) == 2
    assert "twice" in refused([one, one / ".." / "one"])
    assert "no run" in refused([])
    assert "did you mean 'due'" in refused([one], dialect="duee")
    assert "the benchmark 'klc': use docvqa" in refused([one], benchmarks=["klc"])


def test_damaged_folders_are_said_with_file_and_line(
    reporting_write: WriteRun, tmp_path: Path
) -> None:
    assert "holds no run.json" in refused([tmp_path])
    folder = reporting_write("r", {"docvqa": ROWS})
    path = folder / "docvqa" / "predictions.jsonl"
    lines = path.read_text("utf-8").splitlines()
    path.write_text("\n".join([*lines, lines[0]]) + "\n", "utf-8")
    assert "Line 4 of" in (said := refused([folder])) and "'a' of line 1 a second" in said
    path.write_text(lines[0] + "\n" + lines[1][:30] + "\n", "utf-8")
    assert "Line 2 of" in refused([folder])
    path.write_text("\n".join(lines[:2]) + "\n", "utf-8")
    assert "holds 2 predictions and benchmark.json beside it says 3 questions" in refused([folder])
    path.write_text("", "utf-8")
    assert "holds 0 predictions" in refused([folder])
    (folder / "docvqa" / "benchmark.json").write_text("{}", "utf-8")
    assert "holds no prediction" in refused([folder])
    (folder / "docvqa" / "benchmark.json").write_text("[1]", "utf-8")
    path.write_text(lines[0] + "\n", "utf-8")
    assert "no JSON object" in refused([folder])
    (folder / "run.json").write_text("{", "utf-8")
    assert "cannot be read" in refused([folder])


def test_a_score_that_is_no_number_is_kept_as_such(reporting_write: WriteRun) -> None:
    """MM-Vet's judge in VLMEvalKit may say "nan"."""
    found = {"mmvet@vlmevalkit-2025.05": {"value": None, "parts": {"replies": ["nan"]}}}
    rows = [{"id": "a", "answers": ["x"], "raw": "y", "measures": ("mmvet",), "scores": found}]
    (run,) = read_runs([reporting_write("r", {"mmvet": rows})])
    value = run.results["mmvet"].scores[0][0].value
    assert value != value


def test_saved_scores_that_cannot_be_put_together_are_made_again(
    reporting_write: WriteRun,
) -> None:
    """A file that someone has edited."""
    rows = [{"id": "a", "answers": ["x"], "raw": "x", "measures": ("due_f1",),
             "scores": {"due_f1@due": {"value": 0.0, "parts": {}}}}]  # fmt: skip
    (run,) = read_runs([reporting_write("r", {"klc": rows})])
    assert as_units(run.results["klc"].scored()).value == 1.0


def test_a_file_where_the_report_should_be(reporting_write: WriteRun, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="file' is a file and no folder: name another place"):
        write_report(read_runs([reporting_write("r", {"docvqa": ROWS})]), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_report_of_another_kind_is_kept(reporting_write: WriteRun, tmp_path: Path) -> None:
    """As `alignvlm train` leaves one in its folder."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report.html").write_text("curves")
    runs = read_runs([reporting_write("r", {"docvqa": ROWS})])
    with pytest.raises(UsageError, match=r"holds a report.html that `alignvlm report` did not wri"):
        write_report(runs, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["report.html"]
    for _ in range(2):  # its own it replaces
        assert len(write_report(runs, tmp_path / "own", with_images=False)) == 3


def test_texts_that_look_like_no_number_stay_texts(reporting_write: WriteRun) -> None:
    folder = reporting_write("r", {"docvqa": [{"id": "NaN", "answers": ["NaN"], "raw": "NaN"}]})
    (one,) = read_runs([folder])[0].results["docvqa"].predictions
    assert (one.id, one.raw, one.answers) == ("NaN", "NaN", ["NaN"])
    assert json.loads((folder / "run.json").read_text())["model"] == "r"


def test_an_unknown_field_is_an_input_error(reporting_write: WriteRun) -> None:
    folder = reporting_write("r", {"docvqa": ROWS[:1]})
    path = folder / "docvqa" / "predictions.jsonl"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "new": 1}) + "\n", "utf-8")
    with pytest.raises(InputError, match="Line 1 of"):
        read_runs([folder])
