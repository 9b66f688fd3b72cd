"""`alignvlm lens`: what each patch of a page says."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from alignvlm.cli.ask import Device
from alignvlm.cli.outputs import check_output
from alignvlm.cli.terminal import DebugOption, say, status
from alignvlm.errors import AlignVLMError, UsageError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("lens")(lens)


def lens(
    file: Annotated[str, typer.Argument(help="The page's file.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="HTML file to write; the PNG lies beside it.")
    ] = Path("lens.html"),
    page: Annotated[int, typer.Option(min=1, help="Which page of the file.")] = 1,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|HUB_ID", help="Another model than the default.", show_default=False
        ),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to run.")] = Device.AUTO,
    debug: DebugOption = False,
) -> None:
    """Show which words the patches of a page stand for.

    Writes a web page, in which pointing at a patch shows its most probable words, and the same as
    a picture; prints the paths of both.
    """
    picture = output.with_suffix(".png")
    check_output(output, file, ".html")
    check_output(picture, file, ".png")
    if picture.exists() and not output.exists():  # the user has not named it: it is not a lens's
        raise UsageError(
            f"The picture beside the web page would replace {str(picture)!r}: choose another name "
            "by -o, or delete it"
        )
    from alignvlm.imaging.decode import load_pages

    pages: Any = load_pages(file, str(page))
    with closing(pages), status(f"Reading {file}"):
        image = next(pages).image
        # Only now: a file that cannot be used is refused without loading a model.
        from alignvlm.inference.answerer import ModelAnswerer

        answerer = ModelAnswerer(model, device.value, announce=say)
        answerer.check()
        from alignvlm.analysis.lens import look
        from alignvlm.analysis.overlay import write_png
        from alignvlm.analysis.web import write_html

        seen = look(
            answerer.model, answerer.processor, image, source=f"{Path(file).name}, page {page}"
        )
        try:
            write_html(seen, output)
            write_png(seen, picture)
        except OSError as error:
            raise AlignVLMError(
                f"The lens cannot be written to {str(output)!r} ({error.strerror}): free some "
                "space or choose another place"
            ) from error
    typer.echo(output)
    typer.echo(picture)
