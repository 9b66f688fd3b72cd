"""Every benchmark by name, and those that users make."""

from __future__ import annotations

import re
from pathlib import Path
from types import MappingProxyType
from typing import Final

from alignvlm.data.rows.json_rows import json_lines
from alignvlm.errors import InputError, UsageError
from alignvlm.evaluation.benchmarks.documents import DOCUMENTS, short_answer
from alignvlm.evaluation.benchmarks.drawn import DrawnHome
from alignvlm.evaluation.benchmarks.general import GENERAL, VCR
from alignvlm.evaluation.benchmarks.own import OwnHome, measures_in
from alignvlm.evaluation.benchmarks.own_row import ROW_MEASURES, wrong_measure
from alignvlm.evaluation.benchmarks.record import Benchmark, PromptRule
from alignvlm.hints import did_you_mean
from alignvlm.imaging.sources import quoted

__all__ = ["BENCHMARKS", "find_benchmark", "own_benchmark", "synthdoc"]

_NUM_PAGES = 100
_NOT_IN_NAMES = re.compile(r"[^\w.-]+")

_SHORT = "{question}\nAnswer the question using a single word or phrase."
_LETTER = "{question}\n{choices}\nAnswer with the option's letter from the given choices directly."
_OWN_RULE = PromptRule(
    template=f"{{hint}}{_LETTER}", without_choices=f"{{hint}}{_SHORT}", max_new_tokens=128
)


def synthdoc(num_pages: int = _NUM_PAGES, seed: int = 0, strength: float = 0.5) -> Benchmark:
    """Questions about drawn pages of all kinds, with fonts and layouts that training never sees.

    The pages are a function of the arguments: page n of a kind has the seed `seed + n`, as in
    `alignvlm measure`. Each is asked one of its questions.

    Args:
        num_pages: pages, and so questions; the kinds take turns.
        seed: of each kind's first page.
        strength: of blur, noise and the like, from 0 to 1.

    Raises:
        UsageError: a number is out of range.
    """
    if num_pages < 1:
        raise UsageError(f"synthdoc of {num_pages} pages has no question: ask for at least one")
    if not 0 <= strength <= 1:
        raise UsageError(f"The strength is {strength}: give a number from 0 to 1")
    lmms_eval = PromptRule(template=_SHORT, max_new_tokens=32, stop=("\n\n",))
    return Benchmark(
        name="synthdoc",
        title="Drawn pages",
        split="heldout",
        num_expected=num_pages,
        num_source="given",
        measures=("anls",),
        prompts=short_answer(lmms_eval),
        homes=(DrawnHome(num_pages=num_pages, seed=seed, strength=strength),),
        source=f"Drawn by the package: seed {seed}, strength {strength:g}, {num_pages} pages.",
    )


BENCHMARKS: Final = MappingProxyType(
    {benchmark.name: benchmark for benchmark in (*DOCUMENTS, *GENERAL, *VCR, synthdoc())}
)
"""The benchmarks in the order of the paper's tables."""


def find_benchmark(name: str) -> Benchmark:
    """A benchmark by its name.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in BENCHMARKS:
        raise UsageError(
            f"There is no benchmark {name!r}{did_you_mean(name, BENCHMARKS)}: use one of "
            f"{', '.join(BENCHMARKS)}"
        )
    return BENCHMARKS[name]


def own_benchmark(path: str | Path, measure: str = "", prompt: str | None = None) -> Benchmark:
    """A benchmark of a user's own JSON Lines file.

    A row is an object with `image` (a path relative to the file, or a data URI) or `images`,
    `question`, `answers` (or `answer`), and if wanted `id`, `metric`, `choices`, `options` (for the
    metric), `group` and `hint`.

    Args:
        path: the file, whose name becomes the benchmark's.
        measure: of rows without `metric`, e.g. "anls".
        prompt: text with `{question}`, and `{choices}` and `{hint}` if wanted; by default as
            VLMEvalKit and lmms-eval ask for short answers and for letters.

    Raises:
        InputError: there is no such file.
        UsageError: there is no such measure, none is given and no row names one, or the prompt does
            not hold the question.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"There is no file {quoted(str(path))}: check the path")
    if measure and (problem := wrong_measure(measure)):
        raise UsageError(f"Rows cannot have the {problem}")
    rows = json_lines(path)
    measures = tuple(dict.fromkeys(filter(None, (measure, *measures_in(rows)))))
    if not measures and len(rows):
        raise UsageError(
            f"No metric is given for {quoted(str(path))}: give --metric, or a metric in each row, "
            f"one of {', '.join(ROW_MEASURES)}"
        )
    if prompt is not None and "{question}" not in prompt:
        raise UsageError(
            f"The prompt {prompt!r} has no place for the question: write {{question}} there"
        )
    rule = _OWN_RULE if prompt is None else PromptRule(template=prompt, max_new_tokens=128)
    name = _NOT_IN_NAMES.sub("_", path.stem) or "own"
    return Benchmark(
        name=f"own_{name}" if name in BENCHMARKS else name,
        title=path.name,
        split="all rows",
        measures=measures,
        prompts={"own": rule},
        homes=(OwnHome(path=path, measure=measure),),
        source=f"The file {path}.",
    )
