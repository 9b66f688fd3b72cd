"""Images of questions that are shown, from the benchmark's own data, small and encoded again."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignvlm.errors import AlignVLMError, InputError
from alignvlm.evaluation.question import Question
from alignvlm.evaluation.reporting.cases import Case
from alignvlm.evaluation.reporting.runs import Result
from alignvlm.imaging.data_url import data_url

__all__ = ["Gallery", "Pictures", "open_benchmark"]

# How the page generator's benchmark says what it was drawn from.
_DRAWN = re.compile(r"seed (-?\d+), strength ([\d.]+)")

MAX_SIDE_PX = 900
MAX_IMAGES = 4  # of one question
MAX_IMAGE_BYTES = 120_000
MAX_TOTAL_BYTES = 16_000_000

# JPEG quality and longer side to try in turn.
_SMALLER = ((80, MAX_SIDE_PX), (60, MAX_SIDE_PX), (60, 640), (40, 480))


@dataclass(frozen=True)
class Pictures:
    """A case's images as data URIs, and what is said instead of, or beside, them."""

    uris: tuple[str, ...] = ()
    remark: str = ""


@dataclass
class Gallery:
    """Opens each benchmark's questions once, and counts the bytes of what is shown.

    Attributes:
        open_again: the questions of a result's benchmark, in a list or something like it.
        left_bytes: of data URIs that may still be made.
    """

    open_again: Callable[[Result], Any]
    left_bytes: int = MAX_TOTAL_BYTES
    _opened: dict[str, Any] = field(default_factory=dict)
    _places: dict[str, Mapping[str, int]] = field(default_factory=dict)

    def show(self, case: Case, result: Result) -> Pictures:
        """The images of a case; never an error, a remark says what is missing."""
        try:
            question = self._question(case, result)
            if question is None:
                return Pictures(remark="No image: the data no longer has this question.")
            return self._encode(question)
        except (AlignVLMError, OSError) as error:
            return Pictures(remark=f"No image: {error}.")

    def _question(self, case: Case, result: Result) -> Question | None:
        name = case.benchmark
        if name not in self._opened:
            try:
                self._opened[name] = self.open_again(result)
            except (AlignVLMError, OSError) as error:
                self._opened[name] = error
        questions = self._opened[name]
        if isinstance(questions, Exception):
            raise questions
        return self._find(questions, case)

    def _find(self, questions: Any, case: Case) -> Question | None:
        """The question of that id: where the run had it, else wherever it is now."""
        wanted = case.question.id
        if case.place < len(questions):
            with suppress(AlignVLMError):  # another row's fault
                found: Question = questions[case.place]
                if found.id == wanted:
                    return found
        if case.benchmark not in self._places:
            self._places[case.benchmark] = _ids(questions)
        place = self._places[case.benchmark].get(wanted)
        return None if place is None else questions[place]

    def _encode(self, question: Question) -> Pictures:
        uris: list[str] = []
        for image in question.images[:MAX_IMAGES]:
            if self.left_bytes < MAX_IMAGE_BYTES:
                return Pictures(tuple(uris), "Images are left out here: the page is large enough.")
            uri = data_url(
                image.load().convert("RGB"),
                max_side_px=MAX_SIDE_PX,
                max_bytes=MAX_IMAGE_BYTES * 3 // 4,
                smaller=_SMALLER,
            )
            self.left_bytes -= len(uri)
            uris.append(uri)
        left = len(question.images) - MAX_IMAGES
        remark = f"{left} more images are not shown." if left > 0 else ""
        return Pictures(tuple(uris), remark or ("" if uris else "The question has no image."))


def _ids(questions: Any) -> dict[str, int]:
    """Where each question is that can be read."""
    found: dict[str, int] = {}
    for place in range(len(questions)):
        with suppress(AlignVLMError):  # another row's fault
            found.setdefault(questions[place].id, place)
    return found


def open_benchmark(result: Result) -> Any:
    """The questions of a run's benchmark, from where its data was then; nothing is downloaded.

    Raises:
        InputError: the run does not say where, or there is nothing any more, or other data.
        UsageError: there is no such benchmark.
        MissingDependencyError: reading the data needs a package that is not installed.
    """
    from alignvlm.evaluation import benchmarks

    record = result.record
    home, where = record.get("home"), str(record.get("where") or "")
    drawn = _DRAWN.search(str(record.get("source", "")))
    if home == "drawn" and drawn and result.num_expected:
        seed, strength = int(drawn[1]), float(drawn[2])
        pages = benchmarks.synthdoc(result.num_expected, seed, strength)
        return benchmarks.open_questions(pages)
    if not where or not Path(where).exists():
        raise InputError(f"the data of {result.title} is no longer where it was")
    if home == "jsonl" and result.name not in benchmarks.BENCHMARKS:
        measures = record.get("measures") or [""]
        return benchmarks.open_questions(benchmarks.own_benchmark(where, str(measures[0])))
    return benchmarks.open_questions(benchmarks.find_benchmark(result.name), where)
