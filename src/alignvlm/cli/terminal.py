"""What reaches the terminal: answers on stdout, all else on stderr, one sentence for an error."""

from __future__ import annotations

import io
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from alignvlm.errors import AlignVLMError

__all__ = [
    "CONTROL_C",
    "DebugOption",
    "Session",
    "explain",
    "printable",
    "say",
    "session",
    "status",
]

CONTROL_C: Final = 130
"""Exit status after Ctrl-C, as shells have it: 128 + SIGINT."""

# click's UsageError, of which typer exports, from click or from its own copy, children alone.
_MISUSE: Final[type[Exception]] = typer.BadParameter.__mro__[1]

_CLEAR_LINE = "\r\x1b[2K"


@dataclass
class Session:
    """One run of a command: its exit status, and whether tracebacks are shown."""

    status: int = 0
    debug: bool = False


_current = Session()


@contextmanager
def session() -> Iterator[Session]:
    """Turn every way in which a command can end into an exit status and at most one sentence."""
    global _current  # noqa: PLW0603, an option's callback has no other way to reach it
    this = _current = Session()
    _tolerate_any_text()
    try:
        with warnings.catch_warnings():
            # Libraries warn their callers; the user of a command can do nothing about it.
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            yield this
        sys.stdout.flush()
    except KeyboardInterrupt:
        this.status = CONTROL_C
    except BrokenPipeError:
        # The reader, e.g. `head`, has what it wanted. Later writes go nowhere.
        _discard_stdout()
        this.status = 1
    except _MISUSE as error:
        this.status = _explain_misuse(error)
    except Exception as error:
        this.status = explain(error)
        if isinstance(error, OSError):
            _discard_stdout()  # it may be what could not be written to


def explain(error: Exception) -> int:
    """Say on stderr what went wrong, in one sentence, and return the exit status for it."""
    if _current.debug:
        traceback.print_exception(error)
    if isinstance(error, AlignVLMError):
        say(f"Error: {error}")
        return error.exit_code
    if isinstance(error, OSError) and error.strerror:
        where = f" at {error.filename!r}" if error.filename else ""
        say(
            f"Error: the system refused to read or write{where} ({error.strerror}): check the disk "
            "and its permissions"
        )
        return 1
    say(
        f"Error: internal error ({type(error).__name__}): run the command again with --debug and "
        "report what it prints"
    )
    return 1


def _explain_misuse(error: Any) -> int:
    """What typer prints with a usage line, a hint and a frame, as one sentence."""
    if type(error).__name__ == "NoArgsIsHelpError":  # typer exports no name for it either
        error.show()
        return int(error.exit_code)
    said = " ".join(error.format_message().split()).replace(": Value error, ", ": ")
    said = re.sub(r"(?<=')\. ([A-Z].*)$", r" (\1)", said.rstrip(".?"))  # what it lists or proposes
    command = "alignvlm" if error.ctx is None else error.ctx.command_path
    say(f"Error: {said}: see `{command} --help`")
    return int(error.exit_code)


def say(text: str) -> None:
    """One line on stderr."""
    start = _CLEAR_LINE if _is_watched() else ""
    print(start + printable(text), file=sys.stderr, flush=True)


@contextmanager
def status(text: str) -> Iterator[None]:
    """Show on stderr, while the block runs, what is being done; nothing where no one looks."""
    shown = _is_watched()
    if shown:
        print(f"{_CLEAR_LINE}{printable(text)} ...", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if shown:
            print(_CLEAR_LINE, end="", file=sys.stderr, flush=True)


def _is_watched() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def printable(text: str) -> str:
    """The text without characters that steer a terminal: pages and file names are strangers'."""
    return "".join(char if char.isprintable() or char in "\n\t" else "?" for char in text)


def _set_debug(wanted: bool) -> None:
    _current.debug = wanted
    if wanted and not sys.warnoptions:
        warnings.simplefilter("default")


DebugOption = Annotated[
    bool,
    typer.Option("--debug", help="Show tracebacks and warnings.", callback=_set_debug),
]


def _tolerate_any_text() -> None:
    """A terminal that cannot show a character gets its code instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard_stdout() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    except (OSError, ValueError):  # stdout is no file: nothing will be flushed to a pipe
        pass
    finally:
        os.close(nowhere)
