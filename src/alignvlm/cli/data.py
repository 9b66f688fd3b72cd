"""`alignvlm data`: pages to train on, and what is in files to train on."""

from __future__ import annotations

import errno
import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alignvlm.cli.outputs import check_output
from alignvlm.cli.terminal import DebugOption, printable, status
from alignvlm.errors import AlignVLMError

if TYPE_CHECKING:
    from alignvlm.data.check import Histogram, Report

__all__ = ["register"]

_MAX_PRINTED = 20


class Split(StrEnum):
    """Which fonts and layouts the pages are drawn with."""

    TRAIN = "train"
    HELDOUT = "heldout"


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(
        help="Make pages to train on, and check files.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("synth")(synth)
    group.command("check")(check)
    app.add_typer(group, name="data")


def synth(
    folder: Annotated[Path, typer.Argument(help="Where to write; made if it is missing.")],
    num_pages: Annotated[int, typer.Option("--num-pages", "-n", min=1, help="How many.")] = 100,
    kinds: Annotated[
        str | None,
        typer.Option(
            metavar="easy,invoice,...",
            help="Document kinds, taken in turn; the default is all but note.",
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
            f"The pages cannot be written to {str(folder)!r} ({error.strerror}): "
            f"{_remedy(error)} folder"
        ) from error
    typer.echo(index)


def check(
    file: Annotated[
        str, typer.Argument(help="A data file, a folder of them, or a pattern with *.")
    ],
    source: Annotated[
        str | None,
        typer.Option(help="What the rows are, such as messages; the default is to guess."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="What paths of images are relative to, if not the file."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Look at the first N rows alone.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="HTML", help="Write a page with examples."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|HUB_ID",
            help="Whose tokens and tiles to count, if not the default model's.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    debug: DebugOption = False,
) -> None:
    """Report the rows of a data file: which are broken and why, how long they are.

    The exit status is 1 if any row is broken.
    """
    from alignvlm.data.sources import guess_source, open_source

    if output is not None:
        check_output(output, file, ".html")
    with status(f"Reading {file}"):
        name = source or guess_source(file)
        options = {} if images is None else {"images": str(images)}
        opened = open_source(name, file, options)
        # Only now: a file that cannot be used is refused without loading a model's parts.
        from alignvlm.data.check import check as look

        report = look(opened, file, _processor(model), limit=limit, num_examples=8 if output else 0)
    if as_json:
        typer.echo(json.dumps(report.record()))
    else:
        _print(report)
    if output is not None:
        _write_page(report, output)
        if not as_json:
            typer.echo(output)
    if report.num_broken:
        raise typer.Exit(1)


def _remedy(error: OSError) -> str:
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "free some space or choose another" if is_full else "choose another"


def _processor(model: str | None) -> Any:
    from alignvlm.inference.loading import find_model, load_processor

    return load_processor(find_model(model))


def _print(report: Report) -> None:
    some = "" if report.num_checked == report.num_rows else f" of {report.num_rows:,}"
    typer.echo(f"{report.source}: {report.num_checked:,}{some} rows, {report.num_broken:,} broken")
    for reason, count in report.reasons.items():
        typer.echo(printable(f"  {count:,} x {reason}"))
    for row in report.broken[:_MAX_PRINTED]:
        number = "" if row.reason.startswith("Row ") else f"Row {row.row}: "
        typer.echo(printable(f"  {number}{row.reason}"))
    if report.num_broken > _MAX_PRINTED:
        typer.echo(f"  and {report.num_broken - _MAX_PRINTED:,} more; --json and -o list 100")
    for title, histogram in (("text tokens", report.tokens), ("tiles", report.tiles)):
        if histogram is not None:
            _print_histogram(title, histogram)
    typer.echo(f"images: {report.num_images:,}")
    typer.echo(f"supervised tokens: {report.num_supervised:,}")


def _print_histogram(title: str, histogram: Histogram) -> None:
    typer.echo(
        f"{title} of a row: median {histogram.median:g}, 95 % below {histogram.p95:g}, "
        f"largest {histogram.largest:,}"
    )
    most = max(histogram.counts)
    for number, count in enumerate(histogram.counts):
        low, high = histogram.edges[number], histogram.edges[number + 1] - 1
        span = f"{low:g}" if low >= high else f"{low:g}-{high:g}"
        typer.echo(f"  {span:>13} {count:>9,} {'#' * round(40 * count / most)}".rstrip())


def _write_page(report: Report, path: Path) -> None:
    from alignvlm.data.check_page import render_html
    from alignvlm.files import write_atomically

    try:
        write_atomically(path, render_html(report).encode("utf-8", "replace"))
    except OSError as error:
        raise AlignVLMError(
            f"The report cannot be written to {str(path)!r} ({error.strerror}): "
            f"{_remedy(error)} place"
        ) from error
