"""Scores of single answers and pages, and the interval around their mean."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alignvlm.evaluation.scorers.anls import anls, folded, levenshtein

__all__ = ["Estimate", "anls", "character_edits", "character_overlap", "contains", "estimate"]

_NUM_RESAMPLES = 2000
_RESAMPLE_SEED = 20250203


@dataclass(frozen=True)
class Estimate:
    """A measured number with its 95 % bootstrap interval.

    Attributes:
        value: over all units.
        low, high: 2.5 % and 97.5 % quantiles over resampled units.
        num_units: independent units (pages, tiles, runs) behind it.
    """

    value: float
    low: float
    high: float
    num_units: int


def contains(prediction: str, answers: Sequence[str]) -> bool:
    """Whether an accepted answer stands in the prediction as words, letter case and blanks aside.

    Part of a word or of a number does not count: "know" holds no "no", and "1,250.00" neither
    "250" nor "1,250". A model that answers in sentences is right by this measure and wrong by
    `anls`.
    """
    said = folded(prediction)
    return any(_as_words(folded(answer)).search(said) for answer in answers)


def character_edits(read: str, truth: str) -> tuple[int, int]:
    """Insertions, deletions and substitutions between two texts, and the true text's length.

    Blanks are normalised first: any run of them, line breaks included, counts as one space. The
    character error is the ratio of the two numbers.
    """
    truth = " ".join(truth.split())
    return levenshtein()(" ".join(read.split()), truth), len(truth)


def character_overlap(read: str, truth: str) -> tuple[int, int]:
    """Twice the characters that two texts share wherever they stand, and both lengths together.

    Blanks do not count. The ratio of the two numbers is the F1 of two bags of characters. It
    forgives any order, such as columns read in turn where the truth goes across them, and with
    it every confusion of places: texts of one language and length share most letters by chance,
    so it shows what is missing or invented and not whether a page was read right.
    """
    said, stands = Counter("".join(read.split())), Counter("".join(truth.split()))
    return 2 * (said & stands).total(), said.total() + stands.total()


def estimate(sums: Sequence[float], weights: Sequence[float] | None = None) -> Estimate:
    """The ratio sum(sums) / sum(weights) with its interval, units drawn with replacement.

    A unit is what is independent of the others: a page with all its questions (sum of scores,
    number of questions), a page's text (edits, length), a run (seconds, 1).

    Args:
        sums: numerator of each unit.
        weights: denominator of each unit; None: 1 each.

    Raises:
        ValueError: there is no unit, or the weights sum to 0.
    """
    tops = np.asarray(sums, dtype=np.float64)
    bottoms = np.ones_like(tops) if weights is None else np.asarray(weights, dtype=np.float64)
    if bottoms.sum() <= 0:
        raise ValueError("An estimate needs at least one unit with a positive weight")
    rng = np.random.default_rng(_RESAMPLE_SEED)
    drawn = rng.integers(0, len(tops), size=(_NUM_RESAMPLES, len(tops)))
    below = bottoms[drawn].sum(axis=1)
    ratios = tops[drawn].sum(axis=1)[below > 0] / below[below > 0]
    low, high = np.quantile(ratios, (0.025, 0.975))
    return Estimate(float(tops.sum() / bottoms.sum()), float(low), float(high), len(tops))


def _as_words(answer: str) -> re.Pattern[str]:
    before = r"(?<!\d[.,])" if answer[:1].isdecimal() else ""
    after = r"(?![.,]\d)" if answer[-1:].isdecimal() else ""
    return re.compile(rf"(?<!\w){before}{re.escape(answer)}{after}(?!\w)")
