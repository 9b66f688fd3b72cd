"""`alignvlm report`: runs beside each other and beside the paper's tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alignvlm.cli.terminal import DebugOption, status

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add `report` to the application."""
    app.command()(report)


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Folders that `alignvlm eval` wrote.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of the report.")
    ] = Path("runs/report"),
    dialect: Annotated[
        str | None,
        typer.Option(help="Score the answers again in this one.", show_default="the runs'"),
    ] = None,
    benchmarks: Annotated[
        str, typer.Option("--benchmarks", "-b", metavar="A,B", help="Only these.")
    ] = "",
    bootstrap: Annotated[
        int, typer.Option(min=100, help="Resamples of the intervals and tests.")
    ] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0,
    cases: Annotated[int, typer.Option(min=0, help="Shown of each kind, for each benchmark.")] = 4,
    images: Annotated[
        bool, typer.Option("--images/--no-images", help="Show the cases' images.")
    ] = True,
    debug: DebugOption = False,
) -> None:
    """Put runs into the paper's tables, test their differences and show cases.

    Writes report.json, report.md and report.html, a page that needs nothing but a browser. Neither
    the models nor, but for the images, the benchmarks are needed.
    """
    from alignvlm.evaluation.reporting import Draws, check_target, read_runs, write_report

    check_target(out)
    wanted = [name.strip() for name in benchmarks.split(",") if name.strip()]
    with status("Reading the runs"):
        read = read_runs(runs, dialect=dialect, benchmarks=wanted or None)
    with status("Comparing"):
        written = write_report(
            read, out, Draws(num=bootstrap, seed=seed), num_cases=cases, with_images=images
        )
    for path in written:
        typer.echo(path)
