"""How far a process is, and whether too much has failed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from alignvlm.errors import InputError
from alignvlm.evaluation.question import Prediction

__all__ = ["Count", "Progress", "check_failed"]

_HOPELESS = 20
_NUM_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far this process is with its part of a benchmark.

    Attributes:
        benchmark: its name.
        num_done: questions with a prediction, earlier starts included.
        num_questions: of this process.
        num_failed: of those done.
        score: mean of the scores so far, in [0, 1]; measures that pool give another at the end.
    """

    benchmark: str
    num_done: int
    num_questions: int
    num_failed: int
    score: float


class Count:
    """What was answered and what failed so far, by one process.

    Args:
        name: of the benchmark.
        num_own: questions of this process.
        answered: those that earlier starts have answered.
        num_questions: of the benchmark.
        max_failed: share of them that may fail.
    """

    def __init__(
        self,
        name: str,
        num_own: int,
        answered: Sequence[Prediction],
        num_questions: int,
        max_failed: float,
    ) -> None:
        self._name, self._num_own = name, num_own
        self._num_questions, self._max_failed = num_questions, max_failed
        self._failed: list[Prediction] = []
        self._num_done, self._total = len(answered), sum(_value(one) for one in answered)

    def add(self, prediction: Prediction) -> None:
        """One more prediction."""
        self._num_done += 1
        self._total += _value(prediction)
        if prediction.error is not None:
            self._failed.append(prediction)

    def progress(self) -> Progress:
        """How far it is now."""
        return Progress(
            benchmark=self._name,
            num_done=self._num_done,
            num_questions=self._num_own,
            num_failed=len(self._failed),
            score=self._total / max(1, self._num_done),
        )

    def check(self) -> None:
        """Ask whether the run may go on.

        Raises:
            InputError: too many have failed.
        """
        check_failed(self._name, self._failed, self._num_questions, self._max_failed)
        is_hopeless = len(self._failed) == self._num_done >= _HOPELESS
        if is_hopeless and self._max_failed < 1:
            raise InputError(
                f"All of the first {_HOPELESS} questions of {self._name} failed, "
                f"{_first(self._failed)}: the same command goes on"
            )


def check_failed(
    name: str, failed: Sequence[Prediction], num_questions: int, max_failed: float
) -> None:
    """Ask whether a benchmark may have so many failures.

    Raises:
        InputError: it may not; the first of them are named.
    """
    if len(failed) <= math.floor(max_failed * num_questions + 1e-9):
        return
    raise InputError(
        f"{len(failed)} of {num_questions} questions of {name} failed, more than the share of "
        f"{max_failed:g} that may, {_first(failed)}: what was predicted is kept, the same command "
        "asks the failed ones again, and --max-failed lets more pass"
    )


def _first(failed: Sequence[Prediction]) -> str:
    named = "; ".join(f"{one.id!r} ({one.error})" for one in failed[:_NUM_NAMED])
    return f"{'first' if len(failed) > 1 else 'namely'} {named}"


def _value(prediction: Prediction) -> float:
    """Of its first measure."""
    found = next(iter(prediction.scores.values()), {})
    value = found.get("value")
    is_number = isinstance(value, (int, float)) and math.isfinite(value)
    return float(value or 0) if prediction.error is None and is_number else 0.0
