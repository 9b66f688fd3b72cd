"""From a question to the prompt that a dialect puts, word for word."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from alignvlm.errors import InputError, UsageError
from alignvlm.evaluation.benchmarks.record import Benchmark, PromptRule
from alignvlm.evaluation.question import Prompt, Question
from alignvlm.evaluation.scorers.registry import MEASURES
from alignvlm.imaging.sources import quoted
from alignvlm.inference.ask import MAX_NEW_TOKENS

__all__ = ["PLAIN", "PROMPT_DIALECTS", "put", "rule_of"]

PLAIN = "plain"
"""Every benchmark's question without instructions, as `alignvlm ask` puts it."""

PROMPT_DIALECTS = (
    "vlmevalkit-2025.05",
    "vlmevalkit-2026.08",
    "lmms-eval",
    "official",
    "docowl",
    PLAIN,
)
"""Dialects of which some benchmark has prompts of its own, and `PLAIN`, which all have."""

Part = Mapping[str, str]

_FIELD = re.compile(r"\{(question|capitalized|stripped|hint|choices)\}")
_NUMBERED = re.compile(r"<image (\d)>")
_FEW_NUMBERED = re.compile(r"<image [1-7]>")
_IMAGE: Part = {"type": "image"}


def put(benchmark: Benchmark, question: Question, dialect: str) -> Prompt:
    """The prompt that asks a question.

    Args:
        benchmark: that the question is of.
        question: to ask.
        dialect: whose way of asking; where the benchmark has no rule for it, its first one holds.

    Raises:
        UsageError: there is no such dialect.
        InputError: the text names an image that the question does not have.
    """
    rule = rule_of(benchmark, dialect)[1]
    text = _filled(rule, question)
    parts, numbers = _ARRANGE[rule.images](text, len(question.images), question.id)
    return Prompt(
        question_id=question.id,
        parts=tuple(parts),
        images=tuple(question.images[number] for number in numbers),
        max_new_tokens=rule.max_new_tokens,
        stop=rule.stop,
    )


def rule_of(benchmark: Benchmark, dialect: str) -> tuple[str, PromptRule]:
    """The dialect whose rule holds, and the rule.

    Raises:
        UsageError: there is no such dialect.
    """
    if dialect in benchmark.prompts:
        return dialect, benchmark.prompts[dialect]
    if dialect == PLAIN:
        return PLAIN, _plain(next(iter(benchmark.prompts.values())))
    known = {*PROMPT_DIALECTS, *(name for dialects in MEASURES.values() for name in dialects)}
    if dialect not in known:
        raise UsageError(
            f"There is no dialect {dialect!r}: use one of {', '.join(PROMPT_DIALECTS)}"
        )
    return next(iter(benchmark.prompts.items()))


def _plain(rule: PromptRule) -> PromptRule:
    """Only the choices stay, without which there would be nothing to choose."""
    return replace(
        rule,
        template="{hint}{question}\n{choices}",
        without_choices="{hint}{question}",
        by_group={},
        max_new_tokens=MAX_NEW_TOKENS,
        stop=(),
        unverified="",
    )


def _filled(rule: PromptRule, question: Question) -> str:
    template = rule.by_group.get(question.group, rule.template)
    if not question.choices and rule.without_choices:
        template = rule.without_choices
    fields = {
        "question": question.text,
        "capitalized": question.text.capitalize(),
        "stripped": question.text.strip(),
        "hint": f"Hint: {question.hint}\n" if question.hint else "",
        "choices": "\n".join(f"{key}. {text}" for key, text in question.choices.items()),
    }
    # What is filled in is not looked at again, whatever braces it has.
    return _FIELD.sub(lambda match: fields[match[1]], template)


def _text(text: str) -> list[Part]:
    return [{"type": "text", "text": text}] if text else []


Arranged = tuple[list[Part], Sequence[int]]
"""The parts of a message, and the numbers of the images that its image parts stand for."""


def _first(text: str, num_images: int, name: str) -> Arranged:
    return [*([_IMAGE] * num_images), *_text(text)], range(num_images)


def _vlmevalkit(text: str, num_images: int, name: str) -> Arranged:
    """Image n wherever the text names it, as often as it does; all first where it names none."""
    pieces = _NUMBERED.split(text)
    if len(pieces) == 1:
        return _first(text, num_images, name)
    parts, numbers = _text(pieces[0]), []
    for number, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        numbers.append(_checked(int(number), num_images, name))
        parts += [_IMAGE, *_text(piece)]
    return parts, numbers


def _lmms_eval(text: str, num_images: int, name: str) -> Arranged:
    """The images that the text names, sorted, in place of its marks from the first on.

    So an image that the text names before a lower one changes places with it, and where one is
    named twice, the text between the last image and the last mark is lost. Both are the toolkit's.
    """
    named = sorted({int(mark[7]) for mark in _FEW_NUMBERED.findall(text)})
    numbers = [_checked(number, num_images, name) for number in named]
    pieces = _FEW_NUMBERED.sub("<image>", text).split("<image>")
    parts: list[Part] = []
    for place in range(len(numbers)):
        if place < len(pieces) - 1:
            parts += _text(pieces[place].strip())
        parts.append(_IMAGE)
    return parts + _text(pieces[-1].strip()), numbers


def _checked(number: int, num_images: int, name: str) -> int:
    if not 1 <= number <= num_images:
        raise InputError(
            f"The question {quoted(name)} names its image {number} but has {num_images}: get the "
            "data again"
        )
    return number - 1


_ARRANGE: dict[str, Callable[[str, int, str], Arranged]] = {
    "first": _first,
    "vlmevalkit": _vlmevalkit,
    "lmms-eval": _lmms_eval,
}
