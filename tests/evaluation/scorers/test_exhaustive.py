"""Every text of a few pieces: ours makes of each of them what the official code makes of it.

The digests are of the official functions' results at the commits that README.md names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest

from alignvlm.evaluation.scorers.choices import LMMS_EVAL_PLACES, extract, parse_mmmu
from alignvlm.evaluation.scorers.denotation import normalise, parse_date, parse_number
from alignvlm.evaluation.scorers.mmmu_open import key_phrases, numbers_in
from alignvlm.evaluation.scorers.relaxed import within
from alignvlm.evaluation.scorers.tables import normalise_amount
from alignvlm.evaluation.scorers.vqa import (
    PERIOD,
    normalise_2026,
    normalise_evalai,
    normalise_vqa,
)
from alignvlm.evaluation.scorers.yes_no import extract as extract_yes_no

CHOICES = {"A": "x y", "B": "no"}
AMOUNTS = ["5", "$", "(", ",", ".", " ", "million", "%", "year", "s", "-"]
VQA = ["a", "1", "dont", "ten", "the", ".", ",", "'s", "'S", "?", "-", " ", "\n", "\t"]
LETTERS = ["A", "B", "(A)", "B.", " ", "no", "answer is **", "x y z ", "Z"]
YES_NO = ["yes", "No", "1", ".", ",", " ", "?"]

Function = Callable[[str], Any]

FUNCTIONS: dict[str, tuple[list[str], int, Function]] = {
    "normalised cells": (list('[]() "*a1.'), 5, normalise),
    "dates": (["xx", "xxxx", "-", "1", "12", "32", "2004", "0", "-1", " "], 5, parse_date),
    "numbers": (list("1.-+e_ 0a"), 5, parse_number),
    "amounts": (AMOUNTS, 4, normalise_amount),
    "vqa 2025": (VQA, 4, normalise_vqa),
    "vqa 2026": (VQA, 4, normalise_2026),
    "vqa evalai": (VQA, 4, normalise_evalai),
    "yes or no 2025": (YES_NO, 5, lambda text: extract_yes_no(text, PERIOD)),
    "yes or no 2026": (YES_NO, 5, extract_yes_no),
    "letters 2025": (LETTERS, 5, lambda text: extract(text, CHOICES, since_2025_08=False)),
    "letters 2026": (LETTERS, 5, lambda text: extract(text, CHOICES, since_2025_08=True)),
    "letters mmmu": (LETTERS, 5, lambda text: parse_mmmu(text, CHOICES)),
    "letters lmms-eval": (LETTERS, 5, lambda text: parse_mmmu(text, CHOICES, LMMS_EVAL_PLACES)),
    "numbers in phrases": (list("12,.-e+ "), 5, numbers_in),
    "key phrases": (["so ", "is ", "=", "\n", "a", ".", ":", " ", "b c"], 5, key_phrases),
}
DIGESTS = {
    "normalised cells": "293f99d464f1dc83c5b40aa5058bb17c",
    "dates": "fc281d8d10e423de3104260732d71dc4",
    "numbers": "536ad7e2044b83fdf7bfa06a5d0d0014",
    "amounts": "fb8d19fcc46f900b8c63cfb8371e6d57",
    "vqa 2025": "f42991ae8f388fe5d775c10b0a067057",
    "vqa 2026": "b4e19ea029270bbf0bf5a042b1327ddf",
    "vqa evalai": "0f20b5640af4ebeabf79aed81e3619f6",
    "yes or no 2025": "86449dc5fe55e00cedc06796ac9a4b05",
    "yes or no 2026": "86449dc5fe55e00cedc06796ac9a4b05",
    "letters 2025": "2bc5a59f488ed3490b2141f339396b2b",
    "letters 2026": "9b7892f5251f9071f2c096df3172f2eb",
    "letters mmmu": "36d4e30287b2d2f921cc8a9d5ceeba94",
    "letters lmms-eval": "1d6a358b9e16b31cca3c114106ce9306",
    "numbers in phrases": "e52c4e3fdacb1abdb63a2aafcb3d6e7d",
    "key phrases": "88d7d9b52c6e5fe6f154bc20ee8b2bb5",
    "pairs": "0c3b396eff973039af0d2f13c2b83b11",
}


def texts(pieces: list[str], longest: int) -> Iterator[str]:
    for length in range(longest + 1):
        yield from map("".join, product(pieces, repeat=length))


def digest(results: Iterator[Any]) -> str:
    found = hashlib.sha256()
    for result in results:
        found.update(json.dumps(result).encode() + b"\n")
    return found.hexdigest()[:32]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_short_text_comes_out_as_in_the_official_code(name: str) -> None:
    pieces, longest, function = FUNCTIONS[name]
    assert digest(map(function, texts(pieces, longest))) == DIGESTS[name]


def test_every_pair_of_short_numbers_is_compared_as_in_the_official_code() -> None:
    amounts = list(texts(list("0195.%-"), 3))
    assert digest(within(one, other) for one in amounts for other in amounts) == DIGESTS["pairs"]
