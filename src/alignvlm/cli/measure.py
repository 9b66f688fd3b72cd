"""`alignvlm measure`: what a model reads and answers on held-out pages, beside its baselines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alignvlm.cli.terminal import DebugOption, say
from alignvlm.errors import InputError

if TYPE_CHECKING:
    from rich.progress import TaskID

    from alignvlm.evaluation.measure import MeasureConfig

__all__ = ["register"]

_ASK = (sys.executable, "-c", "from alignvlm.cli import main; main()", "ask")


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("measure")(measure)


def measure(
    model: Annotated[
        str | None, typer.Option(metavar="DIR|HUB_ID", help="Without it the default model.")
    ] = None,
    kinds: Annotated[
        str | None,
        typer.Option(metavar="easy,invoice,...", help="The default is all but note."),
    ] = None,
    num_pages: Annotated[int, typer.Option(min=0, help="Pages of each kind but easy.")] = 3,
    num_easy_pages: Annotated[int, typer.Option(min=0, help="Pages of the kind easy.")] = 20,
    pdfs: Annotated[
        Path | None,
        typer.Option(help="Folder that get_pdfs.sh filled; the default is pdfs in the cache."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the first page of each kind.")] = 0,
    strength: Annotated[
        float, typer.Option(min=0, max=1, help="Degradation of the pages, 0 for clean ones.")
    ] = 0.5,
    skip_baselines: Annotated[
        bool, typer.Option("--skip-baselines", help="Measure the model alone.")
    ] = False,
    limit_time: Annotated[
        float | None, typer.Option(min=1, help="Begin no further page after so many seconds.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the JSON and Markdown results.")
    ] = Path("benchmarks/results"),
    predictions: Annotated[Path, typer.Option(help="JSONL file for every prediction.")] = Path(
        "runs/measure/predictions.jsonl"
    ),
    debug: DebugOption = False,
) -> None:
    """Measure a model on held-out fonts and layouts, with 95 % intervals.

    Patch accuracy, character error, ANLS by page kind, seconds and memory, beside OCR text and
    perfect text given to the same language model. Pages of held-out PDFs are read and not asked
    about. All of it runs on the CPU, fresh processes too.
    """
    from alignvlm.evaluation.measure import MeasureConfig
    from alignvlm.inference.loading import find_model
    from alignvlm.synth.generate import KINDS

    config = MeasureConfig(
        kinds=tuple(kind.strip() for kind in kinds.split(",")) if kinds else KINDS,
        num_pages=num_pages,
        num_easy_pages=num_easy_pages,
        seed=seed,
        strength=strength,
        baselines=not skip_baselines,
        limit_s=limit_time,
    )
    folder, found = find_model(model), _with_held_out(pdfs)
    for path in (*_measure(folder, config, found, output, predictions), predictions):
        typer.echo(path)


def _with_held_out(pdfs: Path | None) -> Path | None:
    """The folder of PDFs, or None and a line on stderr if it has none that may be measured on."""
    from alignvlm.synth.pdf_pages import find_pdfs
    from alignvlm.weights.cache import cache_dir

    folder = pdfs or cache_dir() / "pdfs"
    try:
        find_pdfs(folder, "heldout")
    except InputError as reason:
        say(f"Pages of PDFs are left out. {reason}")
        return None
    return folder


def _measure(
    folder: Path, config: MeasureConfig, pdfs: Path | None, output: Path, predictions: Path
) -> list[Path]:
    """Measure, and write the results; returns their paths."""
    import torch

    from alignvlm.environment import environment
    from alignvlm.evaluation.measure import measure as run
    from alignvlm.evaluation.report import summarise, write_results
    from alignvlm.inference.hardware import choose_dtype
    from alignvlm.model.compat import quiet
    from alignvlm.training.labels import cell_labels

    dtype = choose_dtype(torch.device("cpu"))
    with quiet(), _progress() as told:
        rows = run(
            folder,
            config,
            cell_labels,
            predictions,
            dtype=dtype,
            pdfs=pdfs,
            ask_command=[*_ASK, "--model", str(folder), "--device", "cpu"],
            on_progress=told,
        )
    facts = {
        "model": folder.name,
        **environment(),
        "weights": str(dtype).removeprefix("torch."),
        "settings": asdict(config),
    }
    return write_results(output, "default_model", {"run": facts, "results": summarise(rows)})


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each stage on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    columns = ("[progress.description]{task.description}", BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn())  # fmt: skip
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def told(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done)

        yield told
