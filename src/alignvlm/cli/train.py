"""`alignvlm train`: a recipe, changed where the user says so, until its last step."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from alignvlm.cli.terminal import DebugOption
from alignvlm.errors import AlignVLMError, ConfigurationError, TrainingError
from alignvlm.memory import total_bytes

if TYPE_CHECKING:
    from alignvlm.training.configuration import RunConfig
    from alignvlm.training.loop import Evaluate
    from alignvlm.training.schedule import TrainConfig
    from alignvlm.training.task import Task
    from alignvlm.training.vlm import VLMTask

__all__ = ["register"]

_ESTIMATE_ERROR = 0.15
_NEEDS = "A step needs {needed:.1f} GB by estimate and "
_TOO_LITTLE = {
    "cuda": _NEEDS + "the GPU has {limit:.1f} GB: try {changes}",
    "cpu": _NEEDS + "this machine has {limit:.1f} GB a process: try {changes}",
}
_LARGER = {"cuda": "more or larger GPUs", "cpu": "a smaller model, or more memory"}


def register(app: typer.Typer) -> None:
    """Add `train` and `export` to the application."""
    app.command()(train)
    app.command()(export)


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE]",
            help="A recipe, or read or answer, the default model's stages; none: list them.",
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            "-o",
            help="Run folder; an unfinished run goes on.",
            show_default="runs/RECIPE",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting, e.g. rates.llm=1e-5; repeat."),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="auto, cpu, cuda, or a number, e.g. cuda:1.")
    ] = "auto",
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads of the model.")] = 2,
    benchmarks: Annotated[
        str | None,
        typer.Option("--eval", metavar="A,B", help="Ask these benchmarks' questions meanwhile."),
    ] = None,
    eval_every: Annotated[
        int, typer.Option("--eval-every", min=1, metavar="STEPS", help="How often, and at the end.")
    ] = 1000,
    eval_limit: Annotated[
        int, typer.Option("--eval-limit", min=1, help="Only the first so many of each benchmark.")
    ] = 100,
    debug: DebugOption = False,
) -> None:
    """Train by a recipe, changed where you say so.

    Without one the recipes are listed; `alignvlm plan RECIPE` says what one costs.
    """
    from alignvlm.training.recipes import names
    from alignvlm.training.stages import STAGES

    if recipe is None:
        typer.echo("\n".join((*STAGES, *names())))
        return
    import torch

    from alignvlm.inference.hardware import choose_device

    torch.set_num_threads(threads)
    chosen = str(choose_device(device))
    meanwhile = (
        _Meanwhile(tuple(benchmarks.split(",")), eval_every, eval_limit) if benchmarks else None
    )
    _train(recipe, run or Path("runs") / recipe, settings or [], chosen, meanwhile)


def export(
    target: Annotated[Path, typer.Argument(help="Folder to write, e.g. build/default.")],
    read_run: Annotated[Path, typer.Option("--read", help="Run of stage 1.")] = Path("runs/read"),
    answer_run: Annotated[Path, typer.Option("--answer", help="Run of stage 2.")] = Path(
        "runs/answer"
    ),
    debug: DebugOption = False,
) -> None:
    """Write the default model's stages as files to ship."""
    from alignvlm.training.stages import export as write

    typer.echo(write(read_run, answer_run, target))


@dataclass(frozen=True)
class _Meanwhile:
    """What is evaluated while a model trains."""

    benchmarks: tuple[str, ...]
    every: int
    limit: int


def _train(
    recipe: str, run: Path, settings: list[str], device: str, meanwhile: _Meanwhile | None
) -> None:
    from alignvlm.training.loop import train as run_loop
    from alignvlm.training.processes import leave
    from alignvlm.training.report import write_report

    says = int(os.environ.get("RANK", "0")) == 0  # one of several processes
    task, config, max_bad_share = _open(recipe, settings, device)
    evaluate = None
    if meanwhile is not None:
        evaluate = _evaluator(task, config, run, meanwhile)
        config = replace(config, evaluate_every=meanwhile.every)
    if says:
        _announce(recipe, task, config, run)
    try:
        done = run_loop(task, config, run, evaluate=evaluate, max_bad_share=max_bad_share)
    except TrainingError:
        if says:
            with suppress(OSError):  # a full disk is what the error is about
                write_report(run)
        raise
    leave()
    if says:
        report = write_report(run)
        rest = "" if done >= config.num_steps else ", the same command goes on from here"
        of = f"{done} of {config.num_steps} steps done"
        typer.echo(f"{of} in {run}{rest}: see {report}", err=True)


def _evaluator(task: Task, config: TrainConfig, run: Path, meanwhile: _Meanwhile) -> Evaluate:
    """Asks benchmarks' questions of the model as it stands."""
    import torch

    from alignvlm.evaluation.benchmarks import find_benchmark, open_questions
    from alignvlm.evaluation.running import Processes, Settings
    from alignvlm.evaluation.running.in_training import evaluator
    from alignvlm.model import AlignVLMForConditionalGeneration
    from alignvlm.training.vlm import VLMTask

    if not (
        isinstance(task, VLMTask) and isinstance(task.module, AlignVLMForConditionalGeneration)
    ):
        raise ConfigurationError(
            "--eval asks AlignVLM models that answer questions: leave it out here, and use "
            "`alignvlm eval` on the trained model"
        )
    if config.sharding != "none":
        raise ConfigurationError(
            f"--eval needs the whole model on each GPU, not sharding={config.sharding}: leave it "
            "out, and use `alignvlm eval` on the trained model"
        )
    for name in meanwhile.benchmarks:
        open_questions(find_benchmark(name))  # what is missing is said before anything trains
    rank, number = (int(os.environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE"))
    return evaluator(
        task.processor, meanwhile.benchmarks, run, Settings(limit=meanwhile.limit),
        precision=getattr(torch, config.precision),
        processes=Processes(rank, max(1, number)),
    )  # fmt: skip


def _open(recipe: str, settings: list[str], device: str) -> tuple[Task, TrainConfig, float]:
    from alignvlm.training.overrides import apply
    from alignvlm.training.recipes import find
    from alignvlm.training.runs import open_run
    from alignvlm.training.stages import STAGES, stage_task

    if recipe in STAGES:
        config = apply(STAGES[recipe], [f"device={device}", *settings])
        return stage_task(recipe, config), config, 0.0
    resolved = apply(find(recipe, others=STAGES)(), settings)
    _check_memory(resolved, device)
    task, config = open_run(resolved, device)
    _check_row(task, resolved)
    return task, config, resolved.max_bad_share


def _check_memory(resolved: RunConfig, device: str) -> None:
    """Says before the model is loaded what a step would run out of memory for.

    The estimate may be off by what `alignvlm plan` documents: only what is beyond that is refused.
    Of a run that cannot be estimated `open_run` says what is wrong.
    """
    from alignvlm.training.cost.plan import make_plan, needed_memory, reserve_bytes

    kind: Literal["cuda", "cpu"] = "cuda" if device.startswith("cuda") else "cpu"
    limit, num_processes = _memory_bytes(device), int(os.environ.get("WORLD_SIZE", "1"))
    if limit is None:
        return
    try:
        needed = needed_memory(resolved, num_processes).total
        if needed + reserve_bytes(kind) <= limit:
            return
        run = replace(resolved, num_steps=resolved.num_steps or 1)  # or files would be counted
        made = make_plan(run, num_processes, limit, device=kind)
    except AlignVLMError:
        return
    settings = [part for change in made.changes for part in change.setting.split()]
    if settings and made.run.sharding != resolved.sharding:  # one GPU shares nothing
        settings.insert(0, f"sharding={made.run.sharding}")
    changes = " ".join(f"--set {setting}" for setting in settings)
    sentence = _TOO_LITTLE[kind].format(
        needed=made.needed_bytes / 1e9, limit=limit / 1e9, changes=changes or _LARGER[kind]
    )
    if (1 - _ESTIMATE_ERROR) * needed > limit:
        raise ConfigurationError(sentence)
    typer.echo(f"Warning: {sentence}", err=True)


def _memory_bytes(device: str) -> int | None:
    """Of a GPU, or a process's share of the machine's; None where the system does not say."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(device).total_memory
    whole = total_bytes()
    return whole and whole // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _check_row(task: VLMTask, resolved: RunConfig) -> None:
    """Refuses rows that hold no image at all."""
    from alignvlm.model import AlignVLMConfig
    from alignvlm.training.cost.plan import check_row

    config = task.module.config
    if isinstance(config, AlignVLMConfig) and not config.condenses:
        check_row(config, resolved)


def _announce(recipe: str, task: Task, config: TrainConfig, run: Path) -> None:
    """What trains, on stderr, as a table."""
    from alignvlm.training.optimizer import trained_parts

    lines: list[tuple[Any, ...]] = [("part", "parameters", "trained", "learning rate")]
    for part in trained_parts(task, config):
        rate = "frozen" if part.learning_rate is None else f"{part.learning_rate:.2g}"
        lines.append((part.part, f"{part.num_parameters:,}", f"{part.num_trained:,}", rate))
    for name, total, trained, rate in lines:
        typer.echo(f"{name:<16}{total:>16}{trained:>16}{rate:>16}", err=True)
    typer.echo(
        f"{recipe}: {config.num_steps} steps of {config.batch_size} samples on {config.device}, "
        f"log: {run / 'log.jsonl'}",
        err=True,
    )
