"""`alignvlm report`: files written, options that reach it, and one sentence for every mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from alignvlm.cli import run
from alignvlm.evaluation.question import Prediction
from alignvlm.evaluation.scorers import score

HELP = Path(__file__).parent / "help" / "alignvlm-report.txt"
DIALECT = "vlmevalkit-2025.05"


@pytest.fixture
def eval_run(tmp_path: Path) -> Callable[..., Path]:
    """A run's folder with DocVQA and ChartQA, twelve questions each, every `wrong`th one wrong."""

    def write(name: str, wrong: int, dialect: str = DIALECT) -> Path:
        for benchmark, measure in (("docvqa", "anls"), ("chartqa", "relaxed_accuracy")):
            folder = tmp_path / name / benchmark
            folder.mkdir(parents=True)
            lines = []
            for place in range(12):
                raw = "no" if place % wrong == 0 else "Stortford"
                found = score(f"{measure}@{dialect}", raw, ["Stortford"])
                one = Prediction(
                    id=f"q{place}", group="", question="Where?", prompt="Where?",
                    prompt_sha256="0" * 64, answers=["Stortford"], options={}, measures=(measure,),
                    raw=raw, scores={found.metric: {"value": found.value, "parts": {}}}, tokens=1,
                    complete=True, error=None, seconds=0.5,
                )  # fmt: skip
                lines.append(json.dumps(one.to_record()) + "\n")
            (folder / "predictions.jsonl").write_text("".join(lines), "utf-8")
            about = {"name": benchmark, "title": benchmark, "num_expected": 5000}
            (folder / "benchmark.json").write_text(json.dumps(about), "utf-8")
        facts = {"model": name, "benchmarks": ["docvqa", "chartqa"], "score_dialect": dialect,
                 "prompt_dialect": dialect, "limit": 12}  # fmt: skip
        (tmp_path / name / "run.json").write_text(json.dumps(facts), "utf-8")
        return tmp_path / name

    return write


def content(out: Path) -> dict[str, object]:
    return dict(json.loads((out / "report.json").read_text("utf-8")))


def test_three_files_are_written_and_named(
    eval_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "out"
    assert run(["report", str(eval_run("a", 3)), str(eval_run("b", 2)), "-o", str(out)]) == 0
    shown = capsys.readouterr()
    names = ["report.json", "report.md", "report.html"]
    assert shown.out.splitlines() == [str(out / name) for name in names] and shown.err == ""
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    found = content(out)
    assert [one["label"] for one in found["runs"]] == ["a", "b"]  # type: ignore[attr-defined]
    assert len(found["differences"]) == 2  # type: ignore[arg-type]
    page = (out / "report.html").read_text("utf-8")
    assert "12 of 5,000 questions" in page and "no longer where it was" in page


def test_options_reach_the_report(eval_run: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = [
        "report", str(eval_run("a", 3)), "-o", str(out), "--dialect", "lmms-eval",
        "--benchmarks", " docvqa ,", "--bootstrap", "150", "--seed", "7", "--cases", "1",
        "--no-images",
    ]  # fmt: skip
    assert run(arguments) == 0
    found = content(out)
    settings = found["settings"]
    assert (settings["dialect"], settings["bootstrap"], settings["seed"]) == (  # type: ignore[index]
        "lmms-eval", 150, 7,
    )  # fmt: skip
    (result,) = found["results"]  # type: ignore[misc]
    assert result["metrics"][0]["metric"] == "anls@lmms-eval"
    assert len(found["cases"]) == 1  # type: ignore[arg-type]
    assert "No image" not in (out / "report.html").read_text("utf-8")


def test_mistakes_are_one_sentence(
    eval_run: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    one_sentence: Callable[[str], str],
) -> None:
    a, b = eval_run("a", 3), eval_run("b", 2, "lmms-eval")

    def refused(status: int, *arguments: str) -> str:
        assert run(["report", *arguments, "-o", str(tmp_path / "out")]) == status
        shown = capsys.readouterr()
        assert shown.out == "" and not (tmp_path / "out").exists()
        return one_sentence(shown.err)

    assert "different dialects" in refused(2, str(a), str(b))
    assert "run.json" in refused(1, str(tmp_path))
    assert "run.json" in refused(1, str(tmp_path / "none"))
    assert "'klc': use chartqa, docvqa" in refused(2, str(a), "-b", "klc")
    assert "dialect 'due2'" in refused(2, str(a), "--dialect", "due2")
    assert "twice" in refused(2, str(a), str(a))


def test_help_is_as_it_was_read_last(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", "--help"]) == 0
    assert capsys.readouterr().out == HELP.read_text("utf-8")


def test_neither_torch_nor_transformers_is_loaded(
    eval_run: Callable[..., Path], tmp_path: Path
) -> None:
    code = (
        "import sys; from alignvlm.cli import run; "
        f"status = run(['report', {str(eval_run('a', 3))!r}, '-o', {str(tmp_path / 'out')!r}]); "
        "sys.exit(status or bool({'torch', 'transformers', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
