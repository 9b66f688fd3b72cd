"""`alignvlm eval` and `rescore`: what a model is worth on benchmarks, and in whose words."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alignvlm.cli.terminal import DebugOption, say
from alignvlm.errors import UsageError

if TYPE_CHECKING:
    from alignvlm.evaluation.benchmarks import Benchmark
    from alignvlm.evaluation.models import EvaluatedModel
    from alignvlm.evaluation.running import Processes, Progress, Settings

__all__ = ["register"]

_PAPER_DIALECT = "vlmevalkit-2025.05"
_LINE_EVERY_S = 60.0
_GRACE_S = 0.5

JudgeOption = Annotated[
    str | None, typer.Option(metavar="FILE|URL", help="Grades MM-Vet: replies or an endpoint.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")]


def register(app: typer.Typer) -> None:
    """Add `eval` and `rescore` to the application."""
    app.command("eval")(evaluate)
    app.command()(rescore)


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Folder, Hub id, or http://host:port/v1#model.")
    ] = "default",
    benchmarks: Annotated[
        str, typer.Option("--benchmarks", "-b", metavar="A,B", help="E.g. docvqa,chartqa.")
    ] = "",
    data: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Your own questions, or one benchmark's.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="Of your own questions, e.g. anls.", show_default=False)
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Put your own questions so: {question} ...")
    ] = None,
    data_home: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Holds the benchmarks' files.", show_default="cache"),
    ] = None,
    pages: Annotated[
        int | None, typer.Option(min=1, help="Drawn for synthdoc.", show_default="100")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of synthdoc's pages.", show_default="0")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many of each benchmark.")
    ] = None,
    dialect: Annotated[
        str, typer.Option(help="Whose scores: see docs/evaluation.md.")
    ] = _PAPER_DIALECT,
    prompt_dialect: Annotated[
        str | None, typer.Option(help="Whose prompts.", show_default="the scores'")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Questions at a time; answers do not depend on it."),
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, or a number, e.g. cuda:1.")
    ] = "auto",
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16.", show_default="the device's")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run", "-o", help="Folder; an unfinished run goes on.", show_default="runs/eval/MODEL"
        ),
    ] = None,
    max_failed: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the questions that may fail.")
    ] = 0.05,
    judge: JudgeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Ask a model a benchmark's questions and score the answers.

    Every answer is kept as it comes: stopped at any moment, the same command goes on. Several
    processes, e.g. of `accelerate launch`, share the questions.
    """
    from alignvlm.evaluation.models.endpoint import is_address
    from alignvlm.evaluation.running import Settings, open_processes
    from alignvlm.evaluation.running.judging import open_judge
    from alignvlm.training.run_folder import clean_command

    processes = open_processes("cpu" if is_address(model) else device)
    folder = run or Path("runs") / "eval" / _slug(model)
    with _said_once():
        with processes.together():
            chosen = _chosen(benchmarks, data, metric, prompt)
            if pages is not None or seed is not None:
                chosen = _redrawn(chosen, pages, seed)
            opened = _open(model, processes, device, dtype, batch_size)
            settings = Settings(
                dialect=dialect,
                prompt_dialect=prompt_dialect,
                limit=limit,
                data=_places(chosen, data, data_home),
                max_failed=max_failed,
                judge=open_judge(judge) if judge else None,
                command=clean_command(sys.argv),
            )
        found = _run(opened, chosen, folder, settings, processes)
    if processes.is_main:
        _print(found, folder, as_json)


def rescore(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run of eval.")],
    dialect: Annotated[str, typer.Option(help="Whose scores: see docs/evaluation.md.")],
    judge: JudgeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Score a run's answers in another dialect.

    Neither the model nor the benchmark is needed.
    """
    from alignvlm.evaluation.running import rescore as score_again
    from alignvlm.evaluation.running.judging import open_judge

    found = score_again(run, dialect, open_judge(judge) if judge else None)
    _print(found, run, as_json)


def _chosen(
    names: str, data: Path | None, metric: str | None, prompt: str | None
) -> list[Benchmark]:
    """The benchmarks that the options name."""
    from alignvlm.evaluation.benchmarks import BENCHMARKS, find_benchmark, own_benchmark

    listed = dict.fromkeys(name.strip() for name in names.split(",") if name.strip())
    found = [find_benchmark(name) for name in listed]
    if found and (metric is not None or prompt is not None):
        raise UsageError(
            "--metric and --prompt are for your own questions: give their file by --data and no "
            "--benchmarks"
        )
    if not found and data is not None:
        return [own_benchmark(data, metric or "", prompt)]
    if not found:
        raise UsageError(
            f"No benchmark is named: give --benchmarks some of {', '.join(BENCHMARKS)}, or your "
            "own questions by --data and --metric"
        )
    if data is not None and len(found) > 1:
        raise UsageError(
            f"{data} can hold the questions of one benchmark and {len(found)} are named: put each "
            "into a folder of its name and give the folder above as --data-home"
        )
    return found


def _redrawn(chosen: Sequence[Benchmark], pages: int | None, seed: int | None) -> list[Benchmark]:
    """The benchmarks with other pages in synthdoc."""
    from alignvlm.evaluation.benchmarks import synthdoc

    if all(one.name != "synthdoc" for one in chosen):
        raise UsageError("--pages and --seed are synthdoc's: add it to --benchmarks")
    options = {"num_pages": pages, "seed": seed}
    drawn = synthdoc(**{name: value for name, value in options.items() if value is not None})
    return [drawn if one.name == "synthdoc" else one for one in chosen]


def _places(chosen: Sequence[Benchmark], data: Path | None, home: Path | None) -> dict[str, Path]:
    """Where the questions are, of benchmarks for which the user says so."""
    if data is not None:
        return {chosen[0].name: data}
    if home is None:
        return {}
    named = [one.name for one in chosen if one.name != "synthdoc"]
    return {name: home / name if (home / name).is_dir() else home for name in named}


@contextmanager
def _said_once() -> Iterator[None]:
    """Ends a process quietly where another one says what is wrong."""
    from alignvlm.evaluation.running.processes import RepeatedError

    try:
        yield
    except RepeatedError as error:
        time.sleep(_GRACE_S)  # a launcher ends all as soon as one has ended
        raise typer.Exit(error.exit_code) from None


def _open(
    model: str, processes: Processes, device: str, dtype: str | None, batch_size: int | None
) -> EvaluatedModel:
    """The model, on this process's own GPU where there are several."""
    from alignvlm.evaluation.models import open_model
    from alignvlm.evaluation.models.endpoint import is_address

    asked = None if device == "auto" else device
    own = None if is_address(model) else processes.device
    return open_model(model, device=own or asked, dtype=dtype, batch_size=batch_size)


def _slug(model: str) -> str:
    return re.sub(r"[^\w.-]+", "-", model).strip("-.")[-80:] or "model"


def _run(
    model: EvaluatedModel,
    chosen: Sequence[Benchmark],
    folder: Path,
    settings: Settings,
    processes: Processes,
) -> dict[str, dict[str, Any]]:
    from alignvlm.evaluation.running import evaluate_model

    last: list[Progress] = []
    try:
        with _progress(processes) as shown:

            def told(progress: Progress) -> None:
                last[:] = [progress]
                shown(progress)

            return evaluate_model(model, chosen, folder, settings, processes=processes, told=told)
    except KeyboardInterrupt:
        if processes.is_main:
            where = "".join(
                f" at question {one.num_done} of {one.num_questions} of {one.benchmark}"
                for one in last
            )
            say(f"Stopped{where}: {folder} keeps the answers, the same command goes on")
        raise


def _print(found: Mapping[str, Mapping[str, Any]], folder: Path, as_json: bool) -> None:
    """The scores on stdout, in per cent; as JSON they are what `scores.json` holds."""
    if as_json:
        from alignvlm.evaluation.running import folder as folders

        typer.echo(folders.as_json({"run": str(folder), "benchmarks": found}), nl=False)
        return
    rows = [("benchmark", "metric", "score", "questions", "failed", "unparsed")]
    for name, scores in found.items():
        headline = scores["headline"]
        counts = (str(scores[f"num_{what}"]) for what in ("questions", "failed", "unparsed"))
        rows.append((name, headline["metric"], f"{100 * headline['value']:.2f}", *counts))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        typer.echo("  ".join(cells).rstrip())
    typer.echo(f"in {folder}")


@contextmanager
def _progress(processes: Processes) -> Iterator[Callable[[Progress], None]]:
    """A bar for each benchmark on stderr; off a terminal a line a minute."""
    if not processes.is_main:
        yield lambda progress: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    of = f" (process 1 of {processes.num_processes})" if processes.num_processes > 1 else ""
    console = Console(stderr=True, highlight=False, markup=False)
    if not console.is_terminal:
        yield _lines(of)
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[score]}"), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Bars(*columns, console=console, speed_estimate_period=600) as bars:
        tasks: dict[str, TaskID] = {}

        def show(progress: Progress) -> None:
            name, score = progress.benchmark, _score_so_far(progress)
            if name not in tasks:
                tasks[name] = bars.add_task(
                    f"{name}{of}", total=progress.num_questions, completed=progress.num_done,
                    score=score,
                )  # fmt: skip
            bars.update(tasks[name], completed=progress.num_done, score=score)

        yield show


def _lines(of: str) -> Callable[[Progress], None]:
    """Says from time to time how far it is, where no one looks at a bar."""
    start = said = time.monotonic()
    first: dict[str, int] = {}

    def tell(progress: Progress) -> None:
        nonlocal start, said
        now, name = time.monotonic(), progress.benchmark
        if name not in first:
            first[name], start, said = progress.num_done, now, now
        new = progress.num_done - first[name]
        if now - said < _LINE_EVERY_S or not new:
            return
        said = now
        left = (progress.num_questions - progress.num_done) * (now - start) / new
        say(
            f"{name}{of}: {progress.num_done} of {progress.num_questions}, "
            f"{_score_so_far(progress)}, {left / 60:.0f} min left"
        )

    return tell


def _score_so_far(progress: Progress) -> str:
    failed = f", {progress.num_failed} failed" if progress.num_failed else ""
    return f"score {100 * progress.score:.1f}{failed}"
