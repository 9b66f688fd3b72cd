"""The command line: `alignvlm ask`, `lens`, `data`, `plan`, `train`, `compare` and the others.

What a command needs is imported when it runs, so that `--help` is there at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from alignvlm import __version__
from alignvlm.cli import (
    ask,
    bench,
    compare,
    data,
    doctor,
    evaluate,
    lens,
    measure,
    plan,
    report,
    terminal,
    train,
)

__all__ = ["app", "main", "run"]

# Plain help and plain errors: rich's take another 0.1 s and frame what scripts and logs keep.
app = typer.Typer(
    name="alignvlm",
    help="Ask questions about document pages.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for _module in (ask, lens, doctor, data, plan, train, compare, evaluate, measure, bench, report):
    _module.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"alignvlm {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None: ...


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status: 0, 1 a failed item, 2 misuse, 130 Ctrl-C."""
    with terminal.session() as session:
        try:
            # Not standalone, typer leaves what is wrong with the options to the session.
            status = app(args=list(arguments), prog_name="alignvlm", standalone_mode=False)
            session.status = status or 0
        except SystemExit as end:
            session.status = end.code if isinstance(end.code, int) else 1
    return session.status


def main() -> NoReturn:
    """Run the command in `sys.argv` and exit with its status."""
    sys.exit(run(sys.argv[1:]))
