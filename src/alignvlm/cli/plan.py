"""`alignvlm plan`: steps, operations and memory of a run, and whether it fits, without training."""

from __future__ import annotations

import json
import re
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alignvlm.cli.terminal import DebugOption, status
from alignvlm.errors import UsageError

if TYPE_CHECKING:
    from alignvlm.training.cost.plan import Plan

__all__ = ["register"]

_UNITS = {"": 10**9, "GB": 10**9, "GIB": 2**30, "MB": 10**6, "MIB": 2**20, "TB": 10**12}


def register(app: typer.Typer) -> None:
    """Add `plan` to the application."""
    app.command()(plan)


def plan(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe, see docs/training.md.")],
    gpus: Annotated[int, typer.Option(min=1, help="GPUs that share the run.")] = 8,
    memory: Annotated[str, typer.Option(metavar="80GB", help="Memory of one GPU.")] = "80GB",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another value; may be repeated."),
    ] = None,
    num_samples: Annotated[
        int | None, typer.Option("--samples", min=1, help="Samples of an epoch.")
    ] = None,
    tiles: Annotated[
        float | None, typer.Option(min=0, help="Tiles of a sample, on average.")
    ] = None,
    text_tokens: Annotated[
        float | None, typer.Option(min=1, help="Text tokens of a sample, on average.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as one JSON object.")] = False,
    debug: DebugOption = False,
) -> None:
    """Say what a run would do and need.

    Nothing is trained and no weights are read. The exit status is 1 if it does not fit.
    """
    limit = _bytes(memory)
    from alignvlm.training import overrides, recipes
    from alignvlm.training.cost.plan import make_plan

    run = overrides.apply(recipes.find(recipe)(), settings or [])
    with status(f"Planning {recipe}"):
        made = make_plan(
            run, gpus, limit, tiles=tiles, text_tokens=text_tokens, num_samples=num_samples
        )
    if as_json:
        typer.echo(json.dumps(made.to_dict(), indent=1))
    else:
        _show(made)
        if made.run.sharding != run.sharding:
            typer.echo(
                f"Nothing is shared by one GPU, and sharding={run.sharding} is refused there:"
            )
            typer.echo("  --set sharding=none")
    if not made.fits:
        raise typer.Exit(1)


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)\s*([A-Za-z]*)", text.strip())
    if found is None or found[2].upper() not in _UNITS or float(found[1]) == 0:
        raise UsageError(f"The memory {text!r} is no size: write it as 80GB or 24GiB")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def _show(made: Plan) -> None:
    """Tables on stdout, none wider than 80 columns."""
    cards = "GPU" if made.num_gpus == 1 else "GPUs"
    limit = f"{made.limit_bytes / 1e9:.1f} GB"
    typer.echo(f"{made.run.recipe} on {made.num_gpus} {cards} of {limit}\n")
    _parameters(made)
    _samples(made)
    _operations(made)
    _memory(made)
    for warning in made.warnings:
        typer.echo(textwrap.fill(f"Warning: {warning}", 80, break_on_hyphens=False) + "\n")
    _verdict(made)


def _parameters(made: Plan) -> None:
    rows = [
        [part, f"{p.trained / 1e6:,.1f} M", f"{p.frozen / 1e6:,.1f} M"]
        for part, p in made.parameters.items()
    ]
    trained = sum(p.trained for p in made.parameters.values())
    frozen = sum(p.frozen for p in made.parameters.values())
    rows.append(["all", f"{trained / 1e6:,.1f} M", f"{frozen / 1e6:,.1f} M"])
    _table(["parameters", "trained", "frozen"], rows)


def _samples(made: Plan) -> None:
    found, step = made.samples, made.step
    epoch = "no end" if found.epoch_size is None else f"{found.epoch_size:,}"
    facts = [
        ("samples of an epoch", epoch),
        ("steps", f"{found.num_steps:,} of {step.samples:,} samples"),
        (
            "a sample, assumed",
            f"{found.tiles:.1f} {made.unit}, {found.text_tokens:.0f} text tokens",
        ),
        (f"{made.unit} of a step", f"{step.tiles:,}"),
        ("text tokens of a step", f"{step.text_tokens:,}"),
        ("visual tokens of a step", f"{step.visual_tokens:,}"),
        ("rows of a step on one GPU", f"{step.rows_per_gpu:,}"),
    ]
    for name, value in facts:
        typer.echo(f" {name:<28}{value}")
    typer.echo()


def _operations(made: Plan) -> None:
    found = made.step.flops
    steps = made.samples.num_steps
    rows = [
        [
            part,
            *(_tera(n) for n in (p.forward, p.backward, p.recomputed, p.total)),
            f"{p.total * steps:.2e}",
        ]
        for part, p in found.parts()
    ]
    all_parts = [part for _, part in found.parts()]
    again = sum(p.recomputed for p in all_parts)
    sums = (found.forward, found.model - found.forward, again, found.total)
    rows.append(["all", *map(_tera, sums), f"{found.total * steps:.2e}"])
    _table(["TFLOPs of a step", "forward", "backward", "again", "all", "run, FLOPs"], rows)


def _memory(made: Plan) -> None:
    held = made.memory
    groups = (held.weights, held.gradients, held.optimizer, held.activations)
    rows = [[part, *(_giga(group.get(part, 0)) for group in groups)] for part in made.parameters]
    rows.append(["all", *(_giga(sum(group.values())) for group in groups)])
    _table(["GB of one GPU", "weights", "gradients", "optimizer", "activations"], rows)
    for name, size in held.workspace.items():
        if size:
            typer.echo(f" {'workspace, ' + name:<32}{_giga(size):>8} GB")
    typer.echo(f" {'reserve':<32}{_giga(made.reserve_bytes):>8} GB")
    typer.echo(f" {'needed':<32}{_giga(made.needed_bytes):>8} GB\n")


def _verdict(made: Plan) -> None:
    needed, limit = _giga(made.needed_bytes), _giga(made.limit_bytes)
    if made.fits:
        typer.echo(f"It fits: {needed} GB of {limit} GB.")
        return
    typer.echo(f"It does not fit: {needed} GB of {limit} GB.")
    if made.changes:
        typer.echo("What to change, each on top of those before it:")
    for change in made.changes:
        options = " ".join(f"--set {setting}" for setting in change.setting.split())
        typer.echo(f"  {options:<58}{_giga(change.bytes):>8} GB")
    if not made.changes or made.changes[-1].bytes > made.limit_bytes:
        typer.echo("No setting is enough: take more GPUs, larger ones, or a smaller model.")


def _table(head: list[str], rows: list[list[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=True)
    table.add_column(head[0], no_wrap=True)
    for name in head[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, markup=False).print(table)


def _giga(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:,.1f}"


def _tera(operations: float) -> Any:
    return f"{operations / 1e12:,.1f}"
