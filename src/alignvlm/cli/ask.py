"""`alignvlm ask`: answers on stdout."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from alignvlm.cli.terminal import DebugOption, explain, printable, say, status
from alignvlm.errors import AlignVLMError, InputError, UsageError

if TYPE_CHECKING:
    from alignvlm.inference.ask import Answer, Answerer

__all__ = ["register"]

_EXAMPLE = 'alignvlm ask invoice.pdf "What is the total?"'


class Device(StrEnum):
    """Where to run."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("ask")(ask)


def ask(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE... QUESTION",
            help="PNG, JPEG, WEBP, TIFF, BMP, GIF or PDF files, then the question.",
            show_default=False,
        ),
    ],
    pages: Annotated[
        str | None,
        typer.Option(
            "--page", "--pages", metavar="1-3,5", help="Only these pages; the default is all."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|HUB_ID", help="Another model than the default.", show_default=False
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="A JSON object a line for each file: answer, page, token probabilities, seconds.",
        ),
    ] = False,
    streamed: Annotated[
        bool, typer.Option("--stream", help="Print the answer while it is made.")
    ] = False,
    device: Annotated[Device, typer.Option(help="Where to run.")] = Device.AUTO,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, max=4096, help="Most tokens of an answer.")
    ] = 64,
    debug: DebugOption = False,
) -> None:
    """Answer a question about each of the files.

    Of several pages each is asked by itself, and the surest answer is printed. With several files
    every answer has its file's name before it, and a file that fails does not stop the others.
    """
    files, question = _split(arguments)
    if streamed and as_json:
        raise UsageError("--stream and --json exclude each other: leave one of them out")
    from alignvlm.inference import answerer
    from alignvlm.inference.ask import check_question

    check_question(question, max_new_tokens)
    if not debug:
        # transformers and its libraries read these when they are imported.
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    asked = _Asked(
        question=question,
        pages=pages,
        answerer=answerer.ModelAnswerer(model, device.value, announce=say),
        max_new_tokens=max_new_tokens,
    )
    num_failed = 0
    for file in files:
        prefix = f"{printable(file)}: " if len(files) > 1 else ""
        try:
            if as_json:
                typer.echo(json.dumps(_record(file, asked.answer(file))))
            elif streamed:
                _print_pieces(prefix, asked.pieces(file))
            else:
                typer.echo(prefix + printable(asked.answer(file).text))
        except Exception as error:
            if not _is_about_the_file(error):
                raise
            num_failed += 1
            explain(error)
            if as_json:
                sentence = str(error) if isinstance(error, InputError) else "internal error"
                typer.echo(json.dumps({"file": file, "error": sentence}))
    if num_failed:
        raise typer.Exit(1)


class _Asked:
    """One question for any number of files."""

    def __init__(
        self, *, question: str, pages: str | None, answerer: Answerer, max_new_tokens: int
    ) -> None:
        self._question, self._pages = question, pages
        self._answerer, self._max_new_tokens = answerer, max_new_tokens

    def answer(self, file: str) -> Answer:
        """The surest answer of the file's pages."""
        from alignvlm.inference.ask import ask_pages, best_answer

        answers = []
        with status(f"Reading {file}"):
            for answer in ask_pages(
                file,
                self._question,
                pages=self._pages,
                model=self._answerer,
                max_new_tokens=self._max_new_tokens,
            ):
                answers.append(answer)
        return self._checked(best_answer(answers))

    def pieces(self, file: str) -> Generator[str, None, None]:
        """The text of that answer as it comes."""
        from alignvlm.inference.ask import stream

        answer = yield from stream(
            file,
            self._question,
            pages=self._pages,
            model=self._answerer,
            max_new_tokens=self._max_new_tokens,
        )
        self._checked(answer)

    def _checked(self, answer: Answer) -> Answer:
        """Warn of an answer that is worth less than it looks."""
        where = f"page {answer.page} of {answer.source!r}"
        if not answer.num_visual_tokens:
            say(f"Warning: no text was found on {where}: the answer is a guess")
        if not answer.complete:
            length = len(answer.tokens)
            allowed = length >= self._max_new_tokens
            why = "allow more with --max-new-tokens" if allowed else "the model's context is full"
            say(f"Warning: the answer about {where} was cut off after {length} tokens: {why}")
        return answer


def _split(arguments: list[str]) -> tuple[list[str], str]:
    *files, question = arguments
    if os.path.isfile(question) or not files:
        missing = "question" if os.path.isfile(question) else "file"
        raise UsageError(
            f"The {missing} is missing: name the files first and the question last, as in "
            f"{_EXAMPLE}"
        )
    return files, question


def _is_about_the_file(error: Exception) -> bool:
    """Whether other files may fare better: not after misuse, or when the model cannot be loaded."""
    return isinstance(error, InputError) or not isinstance(error, AlignVLMError | OSError)


def _print_pieces(prefix: str, pieces: Generator[str, None, None]) -> None:
    """Print text as it comes; nothing, not even the prefix, if the file turns out unusable."""
    started = False
    for piece in pieces:
        typer.echo(printable(piece) if started else prefix + printable(piece), nl=False)
        started = True
    typer.echo("" if started else prefix)


def _record(file: str, answer: Answer) -> dict[str, object]:
    return {
        "file": file,
        "answer": answer.text,
        "page": answer.page,
        "tokens": [
            {"text": text, "probability": round(probability, 6)}
            for text, probability in answer.tokens
        ],
        "complete": answer.complete,
        "num_visual_tokens": answer.num_visual_tokens,
        "seconds": round(answer.seconds, 3),
    }
