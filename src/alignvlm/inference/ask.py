"""`ask`: a file and a question in, an answer out.

What can be refused is refused in the order of what it costs: the question, the file, its first
page, the folder of the model that is named; weights are loaded last. Until then torch is not even
imported. (The default model may have to be assembled first; before that the device is checked.)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from os import PathLike, fspath
from typing import Final, cast

from alignvlm.errors import UsageError
from alignvlm.imaging.decode import Page, load_pages
from alignvlm.limits import DEFAULT_LIMITS, Limits

__all__ = [
    "MAX_NEW_TOKENS",
    "Answer",
    "Answerer",
    "ask",
    "ask_pages",
    "best_answer",
    "check_question",
    "stream",
]

MAX_NEW_TOKENS: Final = 64
"""Most tokens of an answer unless the caller says otherwise; a date takes about 8."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model says about a page.

    Attributes:
        text: the answer.
        page: 1-based number of the page it was read from.
        source: the file's name as it was given.
        seconds: time for reading the page and answering; for the best of several pages, for all
            of them. Loading the model is not part of it.
        num_visual_tokens: N', what the language model read of the page; 0 if nothing was found.
        tokens: (text, probability) of every token of the answer, in order.
        complete: False if the answer was cut off at the largest number of tokens.
    """

    text: str
    page: int
    source: str
    seconds: float
    num_visual_tokens: int
    tokens: tuple[tuple[str, float], ...]
    complete: bool

    @property
    def mean_log_probability(self) -> float:
        """Mean natural logarithm of the tokens' probabilities; minus infinity without tokens."""
        logs = [
            math.log(probability) if probability else -math.inf for _, probability in self.tokens
        ]
        return sum(logs) / len(logs) if logs else -math.inf


class Answerer(ABC):
    """Something that answers questions about pages."""

    @abstractmethod
    def answer(
        self, page: Page, question: str, max_new_tokens: int
    ) -> Generator[str, None, Answer]:
        """Yield the answer's text piece by piece, and return the whole answer.

        Raises:
            UsageError: the question is too long for the model.
            LimitError: the page with the question is.
            WeightsError: the model cannot be loaded.
        """


def ask(
    path: str | PathLike[str],
    question: str,
    *,
    pages: str | None = None,
    model: str | PathLike[str] | Answerer | None = None,
    device: str | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    limits: Limits = DEFAULT_LIMITS,
) -> Answer:
    """Answer a question about a document.

    Of several pages each is asked by itself, and the answer that the model is surest of (highest
    mean log-probability of its tokens) is returned; `ask_pages` gives all.

    Args:
        path: a PNG, JPEG, WEBP, TIFF, BMP, GIF or PDF file.
        question: in plain words; image placeholders in it stay text.
        pages: which pages, such as "1-3,5"; None: all.
        model: a folder, a Hub id, or an `Answerer`; None: the default model. The model last named
            stays loaded.
        device: "cpu", "cuda", "mps"; None: the fastest there is.
        max_new_tokens: most tokens of an answer.
        limits: how large a file is accepted.

    Raises:
        UsageError: the question is empty or too long, or `pages` is no list of pages.
        InputError: the file or a page cannot be used; see `alignvlm.imaging.decode.load_pages`.
        WeightsError: the model cannot be loaded.
    """
    return best_answer(
        ask_pages(
            path,
            question,
            pages=pages,
            model=model,
            device=device,
            max_new_tokens=max_new_tokens,
            limits=limits,
        )
    )


def ask_pages(
    path: str | PathLike[str],
    question: str,
    *,
    pages: str | None = None,
    model: str | PathLike[str] | Answerer | None = None,
    device: str | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[Answer]:
    """Yield one answer for each page, in order; arguments and errors are those of `ask`."""
    check_question(question, max_new_tokens)
    answerer = _answerer(model, device)
    with _opened(path, pages, limits) as loaded:
        for page in loaded:
            yield _whole(answerer.answer(page, question, max_new_tokens))


def stream(
    path: str | PathLike[str],
    question: str,
    *,
    pages: str | None = None,
    model: str | PathLike[str] | Answerer | None = None,
    device: str | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    limits: Limits = DEFAULT_LIMITS,
) -> Generator[str, None, Answer]:
    """Yield the answer's text as it is made, and return the `Answer`.

    Of several pages the best answer is known only after the last one and comes in one piece.
    Arguments and errors are those of `ask`.
    """
    check_question(question, max_new_tokens)
    answerer = _answerer(model, device)
    with _opened(path, pages, limits) as loaded:
        first = next(loaded)
        second = next(loaded, None)
        if second is None:
            return (yield from answerer.answer(first, question, max_new_tokens))
        answers = [
            _whole(answerer.answer(page, question, max_new_tokens)) for page in (first, second)
        ]
        answers += [_whole(answerer.answer(page, question, max_new_tokens)) for page in loaded]
    best = best_answer(answers)
    yield best.text
    return best


def best_answer(answers: Iterable[Answer]) -> Answer:
    """The answer with the highest mean log-probability, with the seconds of all of them.

    A page on which nothing was found never beats one with text, however sure the model is.
    """
    answers = list(answers)
    best = max(answers, key=lambda a: (a.num_visual_tokens > 0, a.mean_log_probability))
    return replace(best, seconds=sum(answer.seconds for answer in answers))


def check_question(question: str, max_new_tokens: int = MAX_NEW_TOKENS) -> None:
    """Refuse what can be refused without a model.

    Raises:
        UsageError: the question is empty or is no text, or an answer would have no token.
    """
    if not isinstance(question, str):  # whoever calls may not check types
        raise UsageError(
            f"The question is a {type(question).__name__} and no text: write one, such as "
            '"What is the total?"'
        )
    if not question.strip():
        raise UsageError('The question is empty: write one, such as "What is the total?"')
    try:
        question.encode()
    except UnicodeEncodeError:
        raise UsageError(
            "The question holds bytes that are no text: write it in UTF-8, the terminal's usual "
            "encoding"
        ) from None
    if max_new_tokens < 1:
        raise UsageError(f"An answer of {max_new_tokens} tokens is none: allow 1 or more")


def _opened(
    path: str | PathLike[str], pages: str | None, limits: Limits
) -> closing[Generator[Page, None, None]]:
    """The file's pages; leaving the block ends the process that decodes them."""
    return closing(cast("Generator[Page, None, None]", load_pages(path, pages, limits)))


def _whole(pieces: Generator[str, None, Answer]) -> Answer:
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            answer: Answer = end.value
            return answer


def _answerer(model: str | PathLike[str] | Answerer | None, device: str | None) -> Answerer:
    if isinstance(model, Answerer):
        if device is not None:
            raise UsageError("An answerer already has its device: leave `device` out")
        return model
    return _named(None if model is None else fspath(model), device or "auto")


@lru_cache(maxsize=1)
def _named(model: str | None, device: str) -> Answerer:
    from alignvlm.inference.answerer import ModelAnswerer

    return ModelAnswerer(model, device)
