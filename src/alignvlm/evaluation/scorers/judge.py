"""MM-Vet: a language model grades each answer from 0 to 1.

Yu et al., "MM-Vet" (2024). Which model judges is the caller's choice: a judge is any callable. The
toolkits differ in what they accept as a grade and in how often they ask again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from alignvlm.errors import InputError, UsageError
from alignvlm.evaluation.scorers.base import Parts, Scorer, as_text, as_texts
from alignvlm.evaluation.scorers.judge_prompt import lmms_eval_prompt, vlmevalkit_prompt
from alignvlm.files import each_line

_MAX_TRIES = 5
_HOTTEST = 2.0
_MAX_REQUESTS = 32
"""lmms-eval asks for ever while a judge gives grades above 1; here it is asked no more."""
_PATIENCE = 3


class Judge(Protocol):
    """What grades: a prompt and a temperature in, the model's reply out."""

    def __call__(self, prompt: str, temperature: float) -> str:
        """The reply to one request."""
        ...


class RecordedJudge:
    """Replies that were recorded, in the order of the requests for each prompt.

    The last reply of a prompt answers all further requests for it.

    Args:
        replies: replies by the prompt's SHA-256, or one list for whatever is asked.
    """

    def __init__(self, replies: Mapping[str, Sequence[str]] | Sequence[str]) -> None:
        self._replies = replies
        self._asked: dict[str, int] = {}

    @classmethod
    def read(cls, path: Path) -> RecordedJudge:
        """From JSONL rows {"prompt_sha256": ..., "reply": ...}.

        Raises:
            InputError: a row lacks one of the two.
        """
        replies: dict[str, list[str]] = {}
        for number, row in enumerate(each_line(path), start=1):
            prompt, reply = (row or {}).get("prompt_sha256"), (row or {}).get("reply")
            if not isinstance(prompt, str) or not isinstance(reply, str):
                raise InputError(
                    f"Line {number} of {path} is no recorded reply: give it `prompt_sha256` and "
                    "`reply`"
                )
            replies.setdefault(prompt, []).append(reply)
        return cls(replies)

    def __call__(self, prompt: str, temperature: float) -> str:
        """The next recorded reply.

        Raises:
            InputError: none was recorded for the prompt.
        """
        key = ""
        replies: Sequence[str] | None
        if isinstance(self._replies, Mapping):
            key = prompt_sha256(prompt)
            replies = self._replies.get(key)
        else:
            replies = self._replies
        if not replies:
            raise InputError(
                f"No reply was recorded for the prompt that ends {prompt[-60:]!r}: record it with "
                "a judge that runs"
            )
        number = self._asked.get(key, 0)
        self._asked[key] = number + 1
        return replies[min(number, len(replies) - 1)]


def prompt_sha256(prompt: str) -> str:
    """What a recorded reply is found by."""
    return hashlib.sha256(prompt.encode(errors="surrogatepass")).hexdigest()


def grade_vlmevalkit(judge: Judge, prompt: str) -> tuple[float, list[str]]:
    """The first of five replies that is a number in [0, 1]; else 0.

    Hotter each time. "nan" is a number that is neither below 0 nor above 1, so it is taken.
    """
    replies = []
    for attempt in range(_MAX_TRIES):
        replies.append(judge(prompt, attempt * 0.5))
        grade = _number(replies[-1])
        if grade is not None and not (grade < 0 or grade > 1):
            return grade, replies
    return 0.0, replies


def grade_lmms_eval(judge: Judge, prompt: str) -> tuple[float, list[str]]:
    """The first word of a reply, when it is a number in [0, 1]; 0 after four that are none.

    After such a reply one more is asked for and thrown away. Three empty replies in a row end it.
    """
    replies: list[str] = []
    temperature = 0.0
    while len(replies) < _MAX_REQUESTS:
        reply = _insist(judge, prompt, temperature, replies)
        if not reply:
            return 0.0, replies
        grade = _number(reply.split(" ")[0])
        if grade is None:
            temperature += 0.5
            _insist(judge, prompt, temperature, replies)
            if temperature >= _HOTTEST:
                return 0.0, replies
        elif 0.0 <= grade <= 1.0:
            return grade, replies
    return 0.0, replies


def _insist(judge: Judge, prompt: str, temperature: float, replies: list[str]) -> str:
    for _ in range(_PATIENCE):
        replies.append(judge(prompt, temperature))
        if replies[-1].strip():
            return replies[-1].strip()
    return ""


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


class _Toolkit(NamedTuple):
    """How a toolkit asks, and what it makes of the replies."""

    prompt: Callable[[str, str, str], str]
    grade: Callable[[Judge, str], tuple[float, list[str]]]


_VLMEVALKIT = _Toolkit(vlmevalkit_prompt, grade_vlmevalkit)
_TOOLKITS = {
    "vlmevalkit-2025.05": _VLMEVALKIT,
    "vlmevalkit-2026.08": _VLMEVALKIT,
    "lmms-eval": _Toolkit(lmms_eval_prompt, grade_lmms_eval),
}


def _judged(toolkit: _Toolkit) -> Scorer:
    def scorer(
        prediction: Any, answers: Any, question: str = "", judge: Judge | None = None
    ) -> tuple[float, Parts]:
        if judge is None:
            raise UsageError(
                "MM-Vet is graded by a language model: pass judge=, a callable that takes a "
                "prompt and a temperature and returns the reply, or a RecordedJudge"
            )
        answer = (as_texts(answers) or [""])[0]
        prompt = toolkit.prompt(question, answer, as_text(prediction))
        grade, replies = toolkit.grade(judge, prompt)
        return grade, {"replies": replies, "prompt_sha256": prompt_sha256(prompt)}

    return scorer


def _parsed(toolkit: _Toolkit) -> Scorer:
    """What a judge's replies are worth, given as the prediction."""

    def scorer(prediction: Any, answers: Any = None) -> tuple[float, Parts]:
        grade, replies = toolkit.grade(RecordedJudge(as_texts(prediction)), "")
        return grade, {"replies": replies, "judge_calls": len(replies)}

    return scorer


MMVET: dict[str, Scorer] = {name: _judged(toolkit) for name, toolkit in _TOOLKITS.items()}
MMVET_JUDGE_PARSE: dict[str, Scorer] = {
    name: _parsed(toolkit) for name, toolkit in _TOOLKITS.items()
}
