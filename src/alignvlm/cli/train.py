"""`alignvlm train`: the default model's stages, one command each, and their export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from alignvlm.cli.terminal import DebugOption

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add `train` to the application."""
    group = typer.Typer(
        help="Train the default model, stage by stage.", no_args_is_help=True, rich_markup_mode=None
    )
    for command in (read, answer, export):
        group.command()(command)
    app.add_typer(group, name="train")


_Run = Annotated[Path, typer.Option("--run", help="Run folder; an unfinished run goes on.")]
_Budget = Annotated[str, typer.Option("--budget", help="cpu or gpu.")]
_Threads = Annotated[int, typer.Option("--threads", min=1, help="CPU threads of the model.")]
_Steps = Annotated[
    int | None, typer.Option("--steps", min=1, help="Another number of steps than the budget's.")
]
_Rate = Annotated[
    float | None, typer.Option("--learning-rate", help="Another peak than the budget's.")
]


def read(
    run: _Run = Path("runs/read"),
    budget: _Budget = "cpu",
    threads: _Threads = 2,
    steps: _Steps = None,
    learning_rate: _Rate = None,
    pdfs: Annotated[
        Path | None,
        typer.Option("--pdfs", help="PDFs for a fifth of the tiles, see scripts/get_pdfs.sh."),
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Stage 1: encoder and connector learn to read."""
    _train("read", run, budget, threads, steps, learning_rate, pdfs)


def answer(
    run: _Run = Path("runs/answer"),
    budget: _Budget = "cpu",
    threads: _Threads = 2,
    steps: _Steps = None,
    learning_rate: _Rate = None,
    debug: DebugOption = False,
) -> None:
    """Stage 2: the language model learns to answer."""
    _train("answer", run, budget, threads, steps, learning_rate)


def export(
    target: Annotated[Path, typer.Argument(help="Folder to write, e.g. build/default.")],
    read_run: Annotated[Path, typer.Option("--read", help="Run of stage 1.")] = Path("runs/read"),
    answer_run: Annotated[Path, typer.Option("--answer", help="Run of stage 2.")] = Path(
        "runs/answer"
    ),
    debug: DebugOption = False,
) -> None:
    """Write the trained weights as the files that the package ships."""
    from alignvlm.training.stages import export as write

    typer.echo(write(read_run, answer_run, target))


def _train(
    name: str,
    run: Path,
    budget: str,
    threads: int,
    steps: int | None,
    rate: float | None,
    pdfs: Path | None = None,
) -> None:
    import torch

    from alignvlm.inference.hardware import choose_device
    from alignvlm.training.loop import train
    from alignvlm.training.stages import num_trained, stage

    torch.set_num_threads(threads)
    task, config = stage(name, budget, pdfs)
    choose_device(config.device)
    if steps is not None:
        config = replace(config, num_steps=steps)
    if rate is not None:
        config = replace(config, learning_rate=rate)
    typer.echo(
        f"{name}: {num_trained(task.module) / 1e6:.1f} M parameters, steps: {config.num_steps}, "
        f"samples a step: {config.batch_size}, device: {config.device}, log: {run / 'log.jsonl'}",
        err=True,
    )
    done = train(task, config, run)
    typer.echo(f"{done} of {config.num_steps} steps done, checkpoint in {run}", err=True)
