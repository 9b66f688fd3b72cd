"""`alignvlm bench`: what parts of a model cost, beside each other on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alignvlm.cli.terminal import DebugOption

if TYPE_CHECKING:
    from alignvlm.analysis.runtime import Runner, Workload

__all__ = ["register"]

_SCALED = ("align", "mlp")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(
        help="Measure what parts of a model cost.", no_args_is_help=True, rich_markup_mode=None
    )
    group.command("connectors")(connectors)
    # A group with one command needs a callback, or it would become that command.
    group.callback()(lambda: None)
    app.add_typer(group, name="bench")


def connectors(
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="smol|llama-3.2-1b|llama-3.2-3b|llama-3.1-8b",
            help="The model; without it llama-3.2-3b on a GPU and smol on a CPU.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to run.")] = "auto",
    names: Annotated[
        str | None,
        typer.Option(
            "--connectors",
            metavar="align,mlp,...",
            help="Which; the default is all, and align_pruned.",
        ),
    ] = None,
    num_samples: Annotated[
        int | None, typer.Option(min=1, help="Pages to time; the preset knows how many.")
    ] = None,
    num_tiles: Annotated[
        int | None, typer.Option(min=1, help="Tiles of a page; the preset knows how many.")
    ] = None,
    scaling: Annotated[
        bool, typer.Option("--scaling", help="Also vary tiles and vocabulary.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results as CSV, JSON, Markdown and PNG.")
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Time whole models with each connector: Table 7 of the paper.

    Weights and pages are random, and the same for all connectors; answers have a fixed length.
    Scaling takes align and mlp, or the connectors that are named.
    """
    from alignvlm.analysis.plotting import check_installed
    from alignvlm.analysis.runtime import choose_runner, find_workload

    if out is not None:
        check_installed()  # now, not after all the work
    runner = choose_runner(device)
    name = preset or ("smol" if runner.device.type == "cpu" else "llama-3.2-3b")
    workload = find_workload(name, num_samples=num_samples, num_tiles=num_tiles)
    chosen = [part.strip() for part in names.split(",")] if names else None
    _measure(workload, chosen, runner, scaling, out)


def _measure(
    workload: Workload, names: list[str] | None, runner: Runner, scaling: bool, out: Path | None
) -> None:
    """Measure, show the tables on stdout, write the results and print their paths."""
    from alignvlm.analysis.runtime import (
        choose_variants,
        measure_connectors,
        measure_scaling,
        summarise,
        write_results,
    )
    from alignvlm.inference.hardware import choose_dtype
    from alignvlm.model.compat import quiet

    variants = choose_variants(names, workload.vocab_size)
    scalable = [name for name in names or () if name != "align_pruned"] or list(_SCALED)
    dtype = choose_dtype(runner.device)
    with quiet(), _progress() as told:
        costs = measure_connectors(workload, variants, runner, dtype, told)
        points = []
        if scaling:
            points = measure_scaling(workload, scalable, runner, dtype, on_progress=told)
    record = {"run": _facts(workload, runner, dtype), "results": summarise(costs, points)}
    _show(record["results"])
    if out is not None:
        for path in write_results(out, record, costs, points):
            typer.echo(path)


def _facts(workload: Workload, runner: Runner, dtype: Any) -> dict[str, Any]:
    """Where and how the measurement was made."""
    import torch

    from alignvlm.environment import environment
    from alignvlm.inference.hardware import describe

    return {
        "preset": workload.name,
        "device": describe(runner.device, dtype),
        "weights": f"random, {str(dtype).removeprefix('torch.')}",
        **environment(),
        "cuda": torch.version.cuda or "none",
        "settings": {
            "tiles": workload.num_tiles,
            "prompt tokens": workload.num_prompt_tokens,
            "new tokens": workload.num_new_tokens,
            "samples": workload.num_samples,
        },
        "peak memory": runner.memory_is,
    }


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A line on stderr that says what is being done, where that is a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: None
        return
    with console.status("Starting") as line:
        yield lambda text: line.update(f"Measuring: {text}")


def _show(results: dict[str, Any]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from alignvlm.analysis.runtime.report import tables

    console = Console(highlight=False, markup=False)
    for title, head, lines in tables(results):
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, collapse_padding=True)
        table.add_column(head[0], no_wrap=True)
        for name in head[1:]:
            table.add_column(name, justify="right", no_wrap=True)
        for line in lines:
            table.add_row(*line)
        console.print(table)
