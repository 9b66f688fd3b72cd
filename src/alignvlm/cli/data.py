"""`alignvlm data`: pages to train on."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from alignvlm.cli.terminal import DebugOption, status
from alignvlm.errors import AlignVLMError

__all__ = ["register"]


class Split(StrEnum):
    """Which fonts and layouts the pages are drawn with."""

    TRAIN = "train"
    HELDOUT = "heldout"


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(help="Make pages to train on.", no_args_is_help=True, rich_markup_mode=None)
    group.command("synth")(synth)
    # A group with one command needs a callback, or it would become that command.
    group.callback()(lambda: None)
    app.add_typer(group, name="data")


def synth(
    folder: Annotated[Path, typer.Argument(help="Where to write; made if it is missing.")],
    num_pages: Annotated[int, typer.Option("--num-pages", "-n", min=1, help="How many.")] = 100,
    kinds: Annotated[
        str | None,
        typer.Option(
            metavar="easy,invoice,...", help="Document kinds, taken in turn; the default is all."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the first page; the next has the next.")] = 0,
    split: Annotated[Split, typer.Option(help="Which fonts and layouts.")] = Split.TRAIN,
    strength: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Of blur, noise and the like; 0 is clean.")
    ] = 0.5,
    debug: DebugOption = False,
) -> None:
    """Draw pages with their text, boxes, questions and answers; the same for the same seed.

    Writes one PNG a page and pages.jsonl, whose path is printed.
    """
    from alignvlm.synth import KINDS, write_dataset

    chosen = [kind.strip() for kind in kinds.split(",")] if kinds else KINDS
    try:
        with status(f"Drawing {num_pages} pages"):
            index = write_dataset(folder, chosen, num_pages, seed, split.value, strength)
    except OSError as error:
        raise AlignVLMError(
            f"The pages cannot be written to {str(folder)!r} ({error.strerror}): free some space "
            "or choose another folder"
        ) from error
    typer.echo(index)
