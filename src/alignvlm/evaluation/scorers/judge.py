"""MM-Vet: a language model grades each answer from 0 to 1.

Yu et al., "MM-Vet" (2024). Which model judges is the caller's choice: a judge is any callable. The
toolkits differ in what they accept as a grade and in how often they ask again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from alignvlm.errors import InputError, UsageError
from alignvlm.evaluation.scorers.base import Parts, Scorer, as_text, as_texts

_TASK = (
    "Compare the ground truth and prediction from AI models, to give a correctness score for the "
    "prediction. <AND> in the ground truth means it is totally right only when all elements in "
    "the ground truth are present in the prediction, and <OR> means it is totally right when any "
    "one element in the ground truth is present in the prediction. The correctness score is 0.0 "
    "(totally wrong), 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, or 1.0 (totally right). Just "
    "complete the last space of the correctness score."
)
_MEME = (
    "This meme is poking fun at the fact that the names of the countries Iceland and Greenland "
    "are misleading. Despite its name, Iceland is known for its beautiful green landscapes, while "
    "Greenland is mostly covered in ice and snow. The meme is saying that the person has trust "
    "issues because the names of these countries do not accurately represent their landscapes."
)
_MEME_IN_PART = (
    "The meme talks about Iceland and Greenland. It's pointing out that despite their names, "
    "Iceland is not very icy and Greenland isn't very green."
)
_MEME_IN_FULL = (
    "The meme is using humor to point out the misleading nature of Iceland's and Greenland's "
    "names. Iceland, despite its name, has lush green landscapes while Greenland is mostly "
    "covered in ice and snow. The text 'This is why I have trust issues' is a playful way to "
    "suggest that these contradictions can lead to distrust or confusion. The humor in this meme "
    "is derived from the unexpected contrast between the names of the countries and their actual "
    "physical characteristics."
)
_EQUATION = ("What is x in the equation?", "-1 <AND> -5")
_EXAMPLES = (
    ("Question", "Ground truth", "Prediction", "Correctness"),
    ("---", "---", "---", "---"),
    (*_EQUATION, "x = 3", "0.0"),
    (*_EQUATION, "x = -1", "0.5"),
    (*_EQUATION, "x = -5", "0.5"),
    (*_EQUATION, "x = -5 or 5", "0.5"),
    (*_EQUATION, "x = -1 or x = -5", "1.0"),
    ("Can you explain this meme?", _MEME, _MEME_IN_PART, "0.4"),
    ("Can you explain this meme?", _MEME, _MEME_IN_FULL, "1.0"),
)

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
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    row = json.loads(line)
                    replies.setdefault(row["prompt_sha256"], []).append(row["reply"])
                except (ValueError, KeyError, TypeError) as error:
                    raise InputError(
                        f"Line {number} of {path} is no recorded reply: give it `prompt_sha256` "
                        "and `reply`"
                    ) from error
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


def grading_prompt(question: str, answer: str, prediction: str) -> str:
    """The paper's prompt, its few examples included; VLMEvalKit breaks long lines elsewhere."""
    answer = answer.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
    rows = "\n".join(" | ".join(row) for row in _EXAMPLES)
    return f"{_TASK}\n\n{rows}\n\n" + " | ".join((question, answer, prediction, ""))


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


_GRADERS = {
    "vlmevalkit-2025.05": grade_vlmevalkit,
    "vlmevalkit-2026.08": grade_vlmevalkit,
    "lmms-eval": grade_lmms_eval,
}


def _judged(dialect: str) -> Scorer:
    grader = _GRADERS[dialect]

    def scorer(
        prediction: Any, answers: Any, question: str = "", judge: Judge | None = None
    ) -> tuple[float, Parts]:
        if judge is None:
            raise UsageError(
                "MM-Vet is graded by a language model: pass judge=, a callable that takes a "
                "prompt and a temperature and returns the reply, or a RecordedJudge"
            )
        prompt = grading_prompt(question, (as_texts(answers) or [""])[0], as_text(prediction))
        grade, replies = grader(judge, prompt)
        return grade, {"replies": replies, "prompt_sha256": prompt_sha256(prompt)}

    return scorer


def _parsed(dialect: str) -> Scorer:
    """What a judge's replies are worth, given as the prediction."""
    grader = _GRADERS[dialect]

    def scorer(prediction: Any, answers: Any = None) -> tuple[float, Parts]:
        grade, replies = grader(RecordedJudge(as_texts(prediction)), "")
        return grade, {"replies": replies, "judge_calls": len(replies)}

    return scorer


MMVET: dict[str, Scorer] = {dialect: _judged(dialect) for dialect in _GRADERS}
MMVET_JUDGE_PARSE: dict[str, Scorer] = {dialect: _parsed(dialect) for dialect in _GRADERS}
