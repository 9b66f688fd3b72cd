"""`alignvlm compare`: connectors under one recipe, as in Tables 2, 3 and 5 of the paper."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alignvlm.cli.terminal import DebugOption
from alignvlm.errors import UsageError

if TYPE_CHECKING:
    from alignvlm.analysis.compare import Comparison

__all__ = ["register"]

_CONNECTORS = "align,mlp,mlp_norm,perceiver,ovis,h_reducer,c_abstractor"


def register(app: typer.Typer) -> None:
    """Add `compare` to the application."""
    app.command()(compare)


def compare(
    connectors: Annotated[
        str, typer.Option(metavar="A,B", help="Which; also align+grounded.")
    ] = _CONNECTORS,
    recipe: Annotated[str, typer.Option(help="What all are trained by.")] = "smol",
    budgets: Annotated[
        str, typer.Option(metavar="N,N", help="Samples to train on, e.g. 500,1k,4k.")
    ] = "1k,4k,16k",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each connector and budget.")] = 3,
    rates: Annotated[
        str, typer.Option(metavar="R,R", help="Learning rates tried for each connector.")
    ] = "3e-4,1e-3,3e-3",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the recipe; repeat."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder; an unfinished comparison goes on.")
    ] = Path("runs/compare"),
    pages: Annotated[int, typer.Option(min=1, help="Held-out pages to score.")] = 128,
    validation: Annotated[
        int, typer.Option(min=1, help="Others, to choose learning rates by.")
    ] = 64,
    noise: Annotated[
        str, typer.Option(metavar="S,Sx", help="Noise on F; x: times the RMS of F.")
    ] = "3,1x",
    grounded_steps: Annotated[
        int | None,
        typer.Option(min=1, help="Of align+grounded, before its own.", show_default="as many"),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, or a number.")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of a run.")] = 2,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    keep_models: Annotated[
        bool, typer.Option("--keep-models", help="Leave the trained models on disk.")
    ] = False,
    only_list: Annotated[
        bool, typer.Option("--list", help="Print what would be run, and run nothing.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Train each connector alike and compare them on held-out pages.

    Data, order, steps, start and the search for a learning rate are the same for all. Stopped at
    any moment, the same command goes on. Tables, curves and a page with examples are written to
    the folder.
    """
    from alignvlm.analysis.compare import Comparison, parse_budgets, parse_sigmas
    from alignvlm.training.overrides import apply
    from alignvlm.training.recipes import find

    comparison = Comparison(
        recipe=apply(find(recipe)(), settings or []),
        variants=tuple(name.strip() for name in connectors.split(",") if name.strip()),
        budgets=parse_budgets(budgets),
        num_seeds=seeds,
        rates=_numbers(rates),
        sigmas=parse_sigmas(noise),
        num_pages=pages,
        num_validation=validation,
        grounded_steps=grounded_steps,
    )
    if only_list:
        _list(comparison, out)
        return
    _run(comparison, out, device, threads, jobs, keep_models)


def _run(
    comparison: Comparison, out: Path, device: str, threads: int, jobs: int, keep_models: bool
) -> None:
    """Work until the end or a signal, then write the report of what is done."""
    from alignvlm.analysis.compare import compare as run_all
    from alignvlm.analysis.compare import estimate
    from alignvlm.analysis.compare.report import write_report
    from alignvlm.analysis.plotting import check_installed
    from alignvlm.inference.hardware import choose_device

    check_installed()  # now, not after all the work
    chosen = str(choose_device(device))
    with _progress(comparison, out) as told:
        is_done = run_all(
            comparison, out, chosen, jobs=jobs, threads=threads, keep_models=keep_models, told=told
        )
    written = write_report(comparison, out)
    left = estimate(comparison, out)
    if not is_done:
        typer.echo(
            f"Stopped after {left.num_done} of {left.num_cells} runs: the same command goes on",
            err=True,
        )
    for path in written:
        typer.echo(path)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise UsageError(
            f"The learning rates {text!r} are no numbers: write them as 3e-4,1e-3"
        ) from error


def _list(comparison: Comparison, out: Path) -> None:
    """The plan on stdout: what is done, what is not, and how long that takes."""
    from alignvlm.analysis.compare import estimate

    left = estimate(comparison, out)
    for variant in comparison.variants:
        steps = [comparison.num_steps(budget) for budget in comparison.budgets]
        typer.echo(f"{variant}: {', '.join(map(str, steps))} steps")
    rates = ", ".join(f"{rate:g}" for rate in comparison.rates)
    typer.echo(f"learning rates tried at the smallest budget: {rates}")
    typer.echo(f"runs: {left.num_done} of {left.num_cells} done")
    typer.echo(f"samples: {left.samples_done:,} of {left.num_samples:,} done")
    typer.echo(f"training time left: {_duration(left.seconds_left)}")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "known after the first run"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"


@contextmanager
def _progress(comparison: Comparison, out: Path) -> Iterator[Callable[[str, int], None]]:
    """A bar over the samples of all runs on stderr; off a terminal a line when a run begins."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from alignvlm.analysis.compare import estimate

    console = Console(stderr=True, highlight=False, markup=False)
    if not console.is_terminal:
        said: list[str] = []

        def say(what: str, samples: int) -> None:
            if samples == 0 and what not in said:
                said.append(what)
                console.print(what)

        yield say
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, speed_estimate_period=600) as bar:
        found = estimate(comparison, out)
        task = bar.add_task("starting", total=found.num_samples, completed=found.samples_done)

        def show(what: str, samples: int) -> None:
            bar.update(task, advance=samples, description=what)
            if samples == 0:  # between runs the folder knows better
                bar.update(task, completed=estimate(comparison, out).samples_done)

        yield show
