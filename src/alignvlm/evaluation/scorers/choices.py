"""Multiple choice: the letter that an answer means (SEED-Bench, MMMU).

Where a toolkit would ask a language model or draw at random, an answer that holds no choice is
wrong here and marked `unparsed`, so that a score is the same every time.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

from alignvlm.errors import UsageError
from alignvlm.evaluation.scorers.base import Parts, Scorer, as_text, as_texts

UNPARSED = "Z"
"""VLMEvalKit's letter for an answer that is none of the choices."""

_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_API_FAILURE = "Failed to obtain answer via API"
_SIGNS_TO_BLANKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_ANSWER_IS = re.compile(r"answer\s+is\s+\**([ABCD])", re.IGNORECASE)


def lettered(options: Any) -> dict[str, str]:
    """Choices by their letters, from a mapping or from a list in their order.

    Raises:
        UsageError: there are none, or more than there are letters.
    """
    if isinstance(options, Mapping):
        found = {str(key): as_text(text) for key, text in options.items() if text is not None}
    elif isinstance(options, list | tuple) and len(options) <= len(string.ascii_uppercase):
        found = dict(zip(string.ascii_uppercase, as_texts(options), strict=False))
    else:
        found = {}
    if not found or not set(found) <= set(string.ascii_uppercase):
        raise UsageError(
            "A multiple-choice score needs its choices: pass options={'A': ..., 'B': ...} or a "
            "list of at most 26 texts"
        )
    return found


def find_letter(answer: str, choices: Mapping[str, str], *, since_2025_08: bool) -> str | None:
    """The choice whose letter stands alone in an answer; "Z" for a refusal, None for neither.

    Args:
        answer: of the model.
        choices: by letter.
        since_2025_08: the letter must be among the last five words, and a letter after "answer
            is" counts where none was found.
    """
    if _API_FAILURE in answer:
        return None
    if any(refusal in answer for refusal in _REFUSALS):
        return UNPARSED
    words = answer.translate(_SIGNS_TO_BLANKS).split()
    present = [letter for letter in choices if letter in words]
    if len(present) == 1:
        if not since_2025_08 or words.index(present[0]) > len(words) - 5:
            return present[0]
    elif not present and UNPARSED in words:
        return UNPARSED
    match = _ANSWER_IS.search(answer) if since_2025_08 else None
    return match[1].upper() if match and match[1].upper() in choices else None


def find_text(answer: str, choices: Mapping[str, str], *, since_2025_08: bool) -> str | None:
    """The only choice whose text stands in an answer, letter case aside.

    Args:
        answer: of the model.
        choices: by letter.
        since_2025_08: an answer more than twice as long as all choices together is not searched.
    """
    answer = answer.lower()
    if since_2025_08 and len(answer) > 2 * sum(map(len, choices.values())):
        return None
    found = [letter for letter, text in choices.items() if text.lower() in answer]
    return found[0] if len(found) == 1 else None


def extract(answer: str, choices: Mapping[str, str], *, since_2025_08: bool) -> str:
    """The letter that VLMEvalKit takes from an answer without a judge, "Z" where there is none."""
    letter = find_letter(answer, choices, since_2025_08=since_2025_08)
    return letter or find_text(answer, choices, since_2025_08=since_2025_08) or UNPARSED


def _vlmevalkit(since_2025_08: bool) -> Scorer:
    def scorer(prediction: Any, answers: Any, options: Any = None) -> tuple[float, Parts]:
        letter = extract(as_text(prediction), lettered(options), since_2025_08=since_2025_08)
        return _hit(letter, answers, unparsed=letter == UNPARSED)

    return scorer


def _first_letter(prediction: Any, answers: Any, options: Any = None) -> tuple[float, Parts]:
    """SEED-Bench in lmms-eval: the first character of the answer, whatever it belongs to."""
    letter = as_text(prediction).strip()[:1]
    golds = [gold.lower().strip() for gold in as_texts(answers)]
    right = letter.lower() in golds
    return float(right), {"extracted": letter, "unparsed": not letter.isalpha()}


Places = Sequence[tuple[str, str]]
"""How a letter may be written, in order, each with what its last place is looked up by."""

MMMU_PLACES: Places = (("({})", "({})"), (" {} ", " {} "))
LMMS_EVAL_PLACES: Places = (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} "))


def parse_mmmu(answer: str, choices: Mapping[str, str], places: Places = MMMU_PLACES) -> str | None:
    """The letter that MMMU's own parser takes from an answer, None where it would draw one.

    "(A)" counts before " A ", and a choice's text last, in answers of more than five words; of
    several the last one stands. lmms-eval does not ask for the blank before, and takes "A." too.

    Args:
        answer: of the model.
        choices: by letter.
        places: of the toolkit.
    """
    for sign in ",.!?;:'":
        answer = answer.strip(sign)
    answer = f" {answer} "
    for pattern, place in places:
        found = [letter for letter in choices if pattern.format(letter) in answer]
        if found:
            return max(found, key=lambda letter: answer.rfind(place.format(letter)))
    if len(answer.split()) <= 5:
        return None
    lower = answer.lower()
    found = [letter for letter, text in choices.items() if text.lower() in lower]
    return max(found, key=lambda letter: lower.rfind(choices[letter].lower()), default=None)


def _mmmu_official(prediction: Any, answers: Any, options: Any = None) -> tuple[float, Parts]:
    letter = parse_mmmu(as_text(prediction), lettered(options))
    return _hit(letter, answers, unparsed=letter is None)


def _mmmu_lmms_eval(prediction: Any, answers: Any, options: Any = None) -> tuple[float, Parts]:
    letter = parse_mmmu(as_text(prediction).strip(), lettered(options), LMMS_EVAL_PLACES)
    return _hit(letter, answers, unparsed=letter is None)


def _hit(letter: str | None, answers: Any, *, unparsed: bool) -> tuple[float, Parts]:
    right = letter in as_texts(answers)
    return float(right), {"extracted": letter, "unparsed": unparsed}


SEED_CHOICE: dict[str, Scorer] = {
    "vlmevalkit-2025.05": _vlmevalkit(since_2025_08=False),
    "vlmevalkit-2026.08": _vlmevalkit(since_2025_08=True),
    "lmms-eval": _first_letter,
}
MMMU_CHOICE: dict[str, Scorer] = SEED_CHOICE | {
    "lmms-eval": _mmmu_lmms_eval,
    "official": _mmmu_official,
}
