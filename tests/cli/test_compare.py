from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from alignvlm.analysis.compare import Comparison, Estimate
from alignvlm.analysis.compare import report as report_module
from alignvlm.cli import compare as command
from alignvlm.cli import terminal

Run = Callable[..., int]


@pytest.fixture
def run() -> Run:
    """The command in an application of its own."""
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    command.register(app)
    app.callback()(lambda: None)

    def start(*arguments: str) -> int:
        with terminal.session() as session:
            try:
                app(args=["compare", *arguments], prog_name="alignvlm")
            except SystemExit as end:
                session.status = end.code if isinstance(end.code, int) else 1
        return session.status

    return start


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """What would be run: nothing is trained."""
    seen: list[dict[str, Any]] = []

    def record(comparison: Comparison, out: Path, device: str, **options: Any) -> bool:
        seen.append({"comparison": comparison, "out": out, "device": device, **options})
        options["told"]("mlp", 0)
        options["told"]("mlp", 4)
        return len(seen) < 2

    monkeypatch.setattr("alignvlm.analysis.compare.compare", record)
    monkeypatch.setattr(
        report_module, "write_report", lambda comparison, out: [out / "table.md", out / "x.png"]
    )
    return seen


def test_options_reach_the_comparison(
    run: Run, calls: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "o"
    arguments = [
        "--connectors", "align, mlp,align+grounded", "--recipe", "smol", "--budgets", "64,1k",
        "--seeds", "2", "--rates", "1e-3,2e-3", "--set", "lora=none", "--set", "rates.llm=none",
        "--pages", "9", "--validation", "8", "--noise", "3", "--grounded-steps", "5",
        "--device", "cpu", "--threads", "1", "--jobs", "2", "--out", str(out),
    ]  # fmt: skip
    assert run(*arguments) == 0
    (call,) = calls
    made = call["comparison"]
    assert made.variants == ("align", "mlp", "align+grounded")
    assert (made.budgets, made.num_seeds, made.rates) == ((64, 1000), 2, (1e-3, 2e-3))
    assert (made.num_pages, made.num_validation, made.grounded_steps) == (9, 8, 5)
    assert [str(sigma) for sigma in made.sigmas] == ["3"]
    assert made.recipe.lora is None and made.recipe.recipe == "smol"
    assert (call["device"], call["jobs"], call["threads"]) == ("cpu", 2, 1)
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [str(out / "table.md"), str(out / "x.png")]
    assert shown.err.splitlines() == ["mlp"], "a line when a run begins, none for each step"
    assert run(*arguments) == 0
    assert "Stopped after 0 of 15 runs: the same command goes on" in capsys.readouterr().err


def test_the_defaults_are_those_of_the_paper_s_tables(run: Run, calls: list[Any]) -> None:
    assert run("--device", "cpu") == 0
    made = calls[0]["comparison"]
    assert made.variants == (
        "align", "mlp", "mlp_norm", "perceiver", "ovis", "h_reducer", "c_abstractor",
    )  # fmt: skip
    assert (made.budgets, made.num_seeds) == ((1000, 4000, 16_000), 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--connectors", "align,percever"], "did you mean 'perceiver'?"),
        (["--connectors", ","], "No connector is named"),
        (["--budgets", "2"], "2 samples is less than one step of 4"),
        (["--budgets", "some"], "no number of samples"),
        (["--rates", "fast"], "learning rates 'fast' are no numbers"),
        (["--rates", "2"], "learning rate 2 is not between"),
        (["--noise", "loud"], "no positive number"),
        (["--recipe", "smoll"], "did you mean 'smol'?"),
        (["--set", "rates.conector=1"], "did you mean 'rates.connector'?"),
        (["--recipe", "llama-3.2-1b-stage1"], "data.0.source=synth"),
    ],
)
def test_misuse_is_one_sentence(
    run: Run,
    calls: list[Any],
    arguments: list[str],
    said: str,
    one_sentence: Callable[[str], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(*arguments) == 2
    assert said in one_sentence(capsys.readouterr().err)
    assert calls == []


def test_another_folder_s_comparison(
    run: Run,
    tmp_path: Path,
    one_sentence: Callable[[str], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert run("--out", str(tmp_path), "--device", "cpu") == 2
    assert "holds files and no comparison" in one_sentence(capsys.readouterr().err)


def test_list_runs_nothing(
    run: Run,
    calls: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--list", "--connectors", "align,mlp", "--budgets", "64,128", "--out",
                 str(tmp_path / "none")]  # fmt: skip
    assert run(*arguments) == 0
    assert capsys.readouterr().out.splitlines() == [
        "align: 16, 32 steps",
        "mlp: 16, 32 steps",
        "learning rates tried at the smallest budget: 0.0003, 0.001, 0.003",
        "runs: 0 of 16 done",
        "samples: 0 of 1,408 done",
        "training time left: known after the first run",
    ]
    assert not (tmp_path / "none").exists() and calls == []
    left = Estimate(num_cells=16, num_done=3, num_samples=9, samples_done=4, seconds_left=7320.0)
    monkeypatch.setattr("alignvlm.analysis.compare.estimate", lambda *_: left)
    run(*arguments)
    assert "training time left: 2 h 2 min" in capsys.readouterr().out
