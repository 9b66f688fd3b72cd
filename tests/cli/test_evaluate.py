"""`alignvlm eval` and `alignvlm rescore`."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from alignvlm.cli import evaluate as module
from alignvlm.cli import run
from alignvlm.errors import InputError
from alignvlm.evaluation.models.base import EvaluatedModel
from alignvlm.evaluation.question import Prompt, Reply
from alignvlm.evaluation.running.processes import Processes, RepeatedError

PAPER = "vlmevalkit-2025.05"

Refused = Callable[[Sequence[str]], tuple[int, str]]


class Speller(EvaluatedModel):
    """Answers with the last word of the question."""

    opened: list[dict[str, Any]]
    fails: dict[int, BaseException]
    num_asked = 0

    def __init__(self, name: str, **options: Any) -> None:
        self.name = name
        self.opened.append({"name": name, **options})

    @property
    def batch_size(self) -> int:
        return 2

    def describe(self) -> dict[str, str]:
        return {"kind": "speller"}

    def length(self, prompt: Prompt) -> int:
        return len(prompt.text)

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        for _ in prompts:
            type(self).num_asked += 1
            if self.num_asked in self.fails:
                raise self.fails[self.num_asked]
        words = [prompt.text.splitlines()[-2].split()[-1].strip("?") for prompt in prompts]
        return [Reply(text=word, num_tokens=1) for word in words]


@pytest.fixture
def speller(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Speller]:
    """Every model is a speller; the working directory is empty."""
    monkeypatch.setattr(Speller, "opened", [], raising=False)
    monkeypatch.setattr(Speller, "fails", {}, raising=False)
    monkeypatch.setattr(Speller, "num_asked", 0)
    monkeypatch.setattr("alignvlm.evaluation.models.open_model", Speller)
    monkeypatch.setenv("ALIGNVLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ALIGNVLM_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return Speller


@pytest.fixture
def questions(tmp_path: Path, page_png: Path) -> Path:
    """Four questions, of which the second is answered wrong and the fourth half right."""
    asked = [("say Paris?", "Paris"), ("say Rome?", "Oslo"), ("say Bern", "bern"),
             ("say abxx", "abcd")]  # fmt: skip
    rows = [
        {"id": str(number), "image": page_png.name, "question": text, "answers": [gold]}
        for number, (text, gold) in enumerate(asked)
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def own(questions: Path) -> list[str]:
    return ["eval", "default", "--data", str(questions), "--metric", "anls"]


@pytest.fixture
def refused(
    speller: type[Speller],
    questions: Path,
    capsys: pytest.CaptureFixture[str],
    one_sentence: Callable[[str], str],
) -> Refused:
    """Status and message of a command that prints nothing."""

    def ask(arguments: Sequence[str]) -> tuple[int, str]:
        status = run(["eval", "default", *arguments])
        out, err = capsys.readouterr()
        assert out == ""
        return status, one_sentence(err)

    return ask


def test_scores_as_a_table_and_nothing_else(
    speller: type[Speller], own: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(own) == 0
    out, err = capsys.readouterr()
    assert out == (
        "benchmark  metric                   score  questions  failed  unparsed\n"
        "mine       anls@vlmevalkit-2025.05  62.50          4       0         0\n"
        "in runs/eval/default\n"
    )
    assert err == ""
    assert speller.opened == [
        {"name": "default", "device": None, "dtype": None, "batch_size": None}
    ]
    facts = json.loads(Path("runs/eval/default/run.json").read_text())
    assert facts["model"] == "default" and facts["benchmarks"] == ["mine"]
    assert Path("runs/eval/default/mine/predictions.jsonl").is_file()


def test_scores_for_machines(
    speller: type[Speller], own: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*own, "--json", "--run", "here", "--dialect", "strict", "--limit", "3"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["run"] == "here"
    scores = found["benchmarks"]["mine"]
    assert scores["headline"] == {"metric": "anls@strict", "value": pytest.approx(2 / 3)}
    assert json.loads(Path("here/mine/scores.json").read_text()) == scores


def test_options_reach_the_model(speller: type[Speller], own: list[str]) -> None:
    options = ["--device", "cpu", "--dtype", "float32", "--batch-size", "3"]
    assert run([*own, *options]) == 0
    assert speller.opened == [
        {"name": "default", "device": "cpu", "dtype": "float32", "batch_size": 3}
    ]


def test_rescoring_prints_what_a_run_in_the_dialect_does(
    speller: type[Speller], own: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*own, "--run", "one", "--json"]) == 0
    capsys.readouterr()
    assert run(["rescore", "one", "--dialect", "strict", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)["benchmarks"]
    assert run([*own, "--run", "two", "--dialect", "strict", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["benchmarks"] == again
    assert run(["rescore", "one", "--dialect", "strict"]) == 0
    out, err = capsys.readouterr()
    assert "anls@strict  50.00" in out and err == ""
    assert json.loads(Path("one/mine/scores-strict.json").read_text()) == again["mine"]


def test_a_benchmark_named_twice_is_one(speller: type[Speller]) -> None:
    assert [one.name for one in module._chosen("gqa, gqa,", None, None, None)] == ["gqa"]


@pytest.mark.parametrize("arguments", ["eval --help", "rescore one --dialect strict"])
def test_what_needs_no_torch(speller: type[Speller], own: list[str], arguments: str) -> None:
    assert run([*own, "--run", "one"]) == 0
    code = (
        f"import sys; sys.argv = ['alignvlm', *{arguments.split()}]\n"
        "from alignvlm.cli import main\n"
        "try:\n main()\nexcept SystemExit as stop:\n assert not stop.code, stop.code\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_rows_may_name_their_metrics(
    speller: type[Speller], questions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in questions.read_text().splitlines()]
    rows = [{**row, "metric": "exact_match"} for row in rows]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(["eval", "--data", str(questions), "--prompt", "{question}\nNow."]) == 0
    assert "exact_match@vlmevalkit-2025.05  50.00" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "No benchmark is named: give --benchmarks some of docvqa"),
        (["-b", "docvq"], "did you mean 'docvqa'?"),
        (["-b", "docvqa", "--metric", "anls"], "are for your own questions"),
        (["-b", "docvqa", "--prompt", "{question}"], "are for your own questions"),
        (["-b", "docvqa,chartqa", "--data", "mine.jsonl"], "--data-home"),
        (["-b", "docvqa", "--pages", "3"], "are synthdoc's"),
        (["--data", "mine.jsonl", "--metric", "anl"], "did you mean 'anls'?"),
        (["--data", "mine.jsonl", "--metric", "anls", "--dialect", "mine"], "no dialect 'mine'"),
        (["--data", "mine.jsonl", "--metric", "anls", "--prompt", "Hm"], "{question}"),
        (["--data", "mine.jsonl", "--metric", "anls", "-o", "mine.jsonl"], "a file and no folder"),
        (["--data", "mine.jsonl", "--metric", "mmvet"], "give --judge a file of replies or an end"),
    ],
)
def test_misuse(refused: Refused, speller: type[Speller], arguments: list[str], said: str) -> None:
    status, err = refused(arguments)
    assert status == 2 and said in err and speller.num_asked == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-b", "docvqa"], "There is no data of "),
        (["-b", "docvqa", "--data", "away.tsv"], "away.tsv"),
        (["-b", "docvqa", "--data-home", "away"], "away"),
        (["--data", "away.jsonl", "--metric", "anls"], "There is no file"),
        (["--data", "mine.jsonl", "--metric", "anls", "--judge", "j.jsonl"], "no judge at j.jsonl"),
    ],
)
def test_what_is_not_there(refused: Refused, arguments: list[str], said: str) -> None:
    status, err = refused(arguments)
    assert status == 1 and said in err


@pytest.mark.parametrize("arguments", [["--limit", "0"], ["--max-failed", "1.5"]])
def test_options_out_of_range(speller: type[Speller], arguments: list[str]) -> None:
    assert run(["eval", "default", *arguments]) == 2


def test_a_run_of_other_settings_is_refused(
    speller: type[Speller],
    own: list[str],
    capsys: pytest.CaptureFixture[str],
    one_sentence: Callable[[str], str],
) -> None:
    assert run([*own, "--limit", "2"]) == 0
    capsys.readouterr()
    assert run(own) == 2
    assert "started with limit 2 and not none" in one_sentence(capsys.readouterr().err)


def test_ctrl_c_says_how_to_go_on(
    speller: type[Speller], own: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    speller.fails[3] = KeyboardInterrupt()
    assert run(own) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "Stopped at question 2 of 4 of mine: runs/eval/default keeps the answers, the same command "
        "goes on\n"
    )
    assert run(own) == 0
    assert speller.num_asked == 3 + 2
    assert " 62.50          4" in capsys.readouterr().out


def test_too_many_failures(
    speller: type[Speller],
    own: list[str],
    capsys: pytest.CaptureFixture[str],
    one_sentence: Callable[[str], str],
) -> None:
    broken = InputError("The page is torn: glue it")
    speller.fails = {1: broken, 2: broken}
    assert run(own) == 1
    said = one_sentence(capsys.readouterr().err)
    assert "1 of 4 questions of mine failed" in said and "(The page is torn: glue it)" in said
    speller.fails = {speller.num_asked + 1: broken, speller.num_asked + 2: broken}
    assert run([*own, "--max-failed", "0.25"]) == 0
    assert "1         0\n" in capsys.readouterr().out


def test_a_judge_of_recorded_replies(
    speller: type[Speller], questions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from alignvlm.evaluation.scorers.judge import prompt_sha256
    from alignvlm.evaluation.scorers.judge_prompt import vlmevalkit_prompt

    rows = [json.loads(line) for line in questions.read_text().splitlines()]
    said = ["Paris", "Rome", "Bern", "abxx"]
    prompts = [
        vlmevalkit_prompt(row["question"], row["answers"][0], word)
        for row, word in zip(rows, said, strict=True)
    ]
    replies = Path("replies.jsonl")
    replies.write_text("".join(
        json.dumps({"prompt_sha256": prompt_sha256(prompt), "reply": reply}) + "\n"
        for prompt, reply in zip(prompts, ["1.0", "0.0", "0.9", "0.3"], strict=True)
    ))  # fmt: skip
    arguments = ["eval", "--data", str(questions), "--metric", "mmvet"]
    assert run([*arguments, "--judge", str(replies)]) == 0
    assert f"mmvet@{PAPER}  55.00" in capsys.readouterr().out
    replies.unlink()
    assert run(["rescore", "runs/eval/default", "--dialect", "vlmevalkit-2026.08"]) == 0
    assert "mmvet@vlmevalkit-2026.08  55.00" in capsys.readouterr().out


def test_a_score_that_is_no_number_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    module._print({"mine": {"headline": {"value": math.nan}}}, Path("one"), as_json=True)
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found == {"run": "one", "benchmarks": {"mine": {"headline": {"value": None}}}}


def test_a_folder_of_tsv_files_is_a_data_home(speller: type[Speller], tmp_path: Path) -> None:
    from alignvlm.evaluation.benchmarks import find_benchmark

    chosen = [find_benchmark(name) for name in ("docvqa", "chartqa", "synthdoc")]
    (tmp_path / "home" / "chartqa").mkdir(parents=True)
    home = tmp_path / "home"
    assert module._places(chosen, None, home) == {"docvqa": home, "chartqa": home / "chartqa"}
    assert module._places(chosen, None, None) == {}


def test_synthdoc_is_drawn_as_wished() -> None:
    (drawn,) = module._redrawn(module._chosen("synthdoc", None, None, None), 7, 3)
    assert vars(drawn.homes[0]) == {"num_pages": 7, "seed": 3, "strength": 0.5}
    (drawn,) = module._redrawn([drawn], None, 4)
    assert (drawn.num_expected, drawn.homes[0].seed) == (100, 4)


@pytest.mark.parametrize(
    ("model", "slug"),
    [("default", "default"), ("runs/align/model", "runs-align-model"), ("../up/", "up"),
     ("Qwen/Qwen2-VL-2B", "Qwen-Qwen2-VL-2B"), ("///", "model"),
     ("http://localhost:8000/v1#m", "http-localhost-8000-v1-m")],
)  # fmt: skip
def test_the_folder_is_named_after_the_model(model: str, slug: str) -> None:
    assert module._slug(model) == slug


def test_where_several_processes_run(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        "alignvlm.evaluation.models.open_model",
        lambda model, **options: asked.append(options["device"]),
    )
    second = Processes(1, 2, "cuda:1")
    module._open("default", second, "auto", None, None)
    module._open("http://localhost/v1#m", second, "auto", None, None)
    module._open("default", Processes(1, 2, None), "cuda:0", None, None)
    module._open("default", Processes(), "auto", None, None)
    assert asked == ["cuda:1", None, "cuda:0", None]


def test_what_another_process_says_is_not_repeated(
    speller: type[Speller],
    own: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        error = RepeatedError("said")
        error.exit_code = 2
        raise error

    monkeypatch.setattr("alignvlm.evaluation.running.evaluate_model", refuse)
    assert run(own) == 2
    assert capsys.readouterr() == ("", "")


def test_only_the_first_process_prints(
    speller: type[Speller],
    own: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        "alignvlm.evaluation.running.open_processes", lambda device: Processes(1, 2, "cpu")
    )
    monkeypatch.setattr(Processes, "gather", lambda self, value: [None, value])
    monkeypatch.setattr("alignvlm.evaluation.running.evaluate_model", lambda *_, **__: {})
    assert run(own) == 0
    assert capsys.readouterr() == ("", "")


def test_off_a_terminal_a_line_now_and_then(
    speller: type[Speller],
    own: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "_LINE_EVERY_S", 0.0)
    assert run(own) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert lines[-1] == "mine: 4 of 4, score 62.5, 0 min left"


def test_on_a_terminal_a_bar_with_the_score(
    speller: type[Speller],
    own: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert run(own) == 0
    out, err = capsys.readouterr()
    assert "4/4" in err and "score 62.5" in err and "left" in err and "mine" in err
    assert "score" not in out.replace("score  questions", "")
