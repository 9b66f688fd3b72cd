"""What evaluation is about: a question, how it is put, the answer, and what the answer is worth.

Everything here is plain data without torch. A `Prediction` holds all that scoring needs, so that
scores can be made again without the model and without the benchmark.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from alignvlm.data.sample import ImageSource

__all__ = ["Prediction", "Prompt", "Question", "Reply"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """One row of a benchmark.

    Attributes:
        id: names it within the benchmark, the same in every session.
        text: the question as the benchmark has it, without instructions.
        images: its images in order, none of them decoded yet.
        answers: the accepted answers as the scorers take them; values of JSON.
        measures: what is measured, e.g. ("anls",); the first is the one that counts.
        options: what the scorers need besides, by name; values of JSON.
        choices: letter to text, of a question with choices.
        hint: what a prompt says before the question.
        group: split or category; several are joined by commas.
    """

    id: str
    text: str
    images: tuple[ImageSource, ...]
    answers: Any
    measures: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, str] = field(default_factory=dict)
    hint: str = ""
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What a model is asked, word for word.

    Attributes:
        question_id: of the `Question`.
        parts: of the user's message in order: `{"type": "image"}`, which stand for `images`, and
            `{"type": "text", "text": ...}`.
        images: as many as there are image parts.
        max_new_tokens: most tokens of the answer.
        stop: texts at the first of which an answer ends.
    """

    question_id: str
    parts: tuple[Mapping[str, str], ...]
    images: tuple[ImageSource, ...]
    max_new_tokens: int
    stop: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The parts as one text, an image as `<image>`."""
        return "".join(
            part["text"] if part["type"] == "text" else "<image>\n" for part in self.parts
        )

    @property
    def sha256(self) -> str:
        """Of everything that the answer depends on but the model and the pixels."""
        asked = [[dict(part) for part in self.parts], self.max_new_tokens, self.stop]
        return hashlib.sha256(json.dumps(asked, ensure_ascii=False).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a model said.

    Attributes:
        text: the answer, stripped.
        num_tokens: tokens of it, None where the model does not say.
        num_input_tokens: tokens read before, visual ones included; None as above.
        complete: False where it was cut at the largest number of tokens.
    """

    text: str
    num_tokens: int | None = None
    num_input_tokens: int | None = None
    complete: bool = True


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One line of `predictions.jsonl`.

    Attributes:
        id: of the question.
        group: of the question.
        question: its text, for reports.
        prompt: the whole prompt, `Prompt.text`.
        prompt_sha256: `Prompt.sha256`.
        answers: of the question.
        options: of the question, for the scorers.
        measures: of the question.
        raw: the model's answer; None if there is none because the sample failed.
        scores: metric's full name to `{"value": ..., "parts": {...}}`; empty if it failed.
        tokens: of the answer, None if not known.
        complete: False where the answer was cut at the largest number of tokens.
        error: one sentence if the sample failed, else None.
        seconds: for this answer; of a batch its share. The one field that a repetition changes.
    """

    id: str
    group: str
    question: str
    prompt: str
    prompt_sha256: str
    answers: Any
    options: Mapping[str, Any]
    measures: tuple[str, ...]
    raw: str | None
    scores: Mapping[str, Mapping[str, Any]]
    tokens: int | None
    complete: bool
    error: str | None
    seconds: float

    def to_record(self) -> dict[str, Any]:
        """As a JSON object, in the order of the attributes."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Prediction:
        """Inverse of `to_record`.

        Raises:
            TypeError: fields are missing or unknown, or hold something else.
        """
        if wrong := [name for name, fits in _FITS.items() if not fits(record.get(name))]:
            raise TypeError(f"no prediction has such {', '.join(wrong)}")
        found = cls(**{**record, "measures": tuple(record["measures"])})
        if found.raw is None and found.error is None:
            raise TypeError("neither an answer nor an error")
        return found


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_text_or_none(value: Any) -> bool:
    return value is None or _is_text(value)


def _are_measures(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(map(_is_text, value))


def _is_count(value: Any) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


def _are_scores(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(found, Mapping)
        and (found.get("value") is None or isinstance(found["value"], (int, float)))
        and isinstance(found.get("parts", {}), Mapping)
        for found in value.values()
    )


_FITS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("id", "group", "question", "prompt", "prompt_sha256"), _is_text),
    **dict.fromkeys(("raw", "error"), _is_text_or_none),
    "measures": _are_measures,
    "options": lambda value: isinstance(value, Mapping),
    "scores": _are_scores,
    "tokens": _is_count,
    "complete": lambda value: isinstance(value, bool),
    "seconds": lambda value: isinstance(value, (int, float)),
}
"""Of each field of a `Prediction`, what may stand there; answers may be anything."""
