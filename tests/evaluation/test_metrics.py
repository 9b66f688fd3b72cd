from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignvlm.evaluation.metrics import anls, character_edits, character_overlap, contains, estimate

# What VLMEvalKit and lmms-eval return.
OFFICIAL = [
    ("University of Californa", ["University of California"], 0.9583333333333334),
    ("1234.56", ["$1,234.56"], 0.7777777777777778),
    ("abc", ["abd"], 0.6666666666666667),
    ("october 12 1998", ["10/12/98", "October 12, 1998"], 0.9375),
    ("The answer is Paris", ["Paris"], 0.0),
    ("北京市", ["北京"], 0.6666666666666667),
    ("Document Control", ["Policy on Document Control"], 0.6153846153846154),
    ("   Dr. Smith   ", ["Dr. Smith"], 1.0),
    ("İ", ["i"], 0.0),
    ("ab ", ["abc"], 0.6666666666666667),
    ("no", ["No", "none"], 1.0),
    ("ab", ["ac"], 0.5),
    ("a", ["b"], 0.0),
    ("STRASSE", ["straße"], 0.7142857142857143),
    ("Bishop’s Stortford", ["Bishop's Stortford"], 0.9444444444444444),
    ("ab", ["a  b"], 0.75),
    ("", [""], 1.0),
]


@pytest.mark.parametrize(("prediction", "answers", "score"), OFFICIAL)
def test_anls_is_that_of_the_toolkits(prediction: str, answers: list[str], score: float) -> None:
    assert anls(prediction, answers) == pytest.approx(score, abs=1e-6)


def test_anls_without_answers_is_zero() -> None:
    assert anls("anything", []) == 0.0


def _levenshtein(left: str, right: str) -> int:
    table = np.zeros((len(left) + 1, len(right) + 1), dtype=int)
    table[:, 0], table[0] = np.arange(len(left) + 1), np.arange(len(right) + 1)
    for i, a in enumerate(left, start=1):
        for j, b in enumerate(right, start=1):
            table[i, j] = min(
                table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (a != b)
            )
    return int(table[-1, -1])


@given(st.text("ab cé\n", max_size=12), st.text("ab cé\n", max_size=12))
def test_character_edits_are_those_of_the_plain_table(read: str, truth: str) -> None:
    read_, truth_ = " ".join(read.split()), " ".join(truth.split())
    assert character_edits(read, truth) == (_levenshtein(read_, truth_), len(truth_))


@given(st.text("aB 1", max_size=9), st.text("aB 1", max_size=9))
def test_anls_follows_its_definition(prediction: str, answer: str) -> None:
    longest = max(len(prediction), len(answer))
    folded = [" ".join(text.lower().split()) for text in (prediction, answer)]
    similarity = 1 - _levenshtein(*folded) / longest if longest else 1.0
    assert anls(prediction, [answer]) == pytest.approx(similarity if similarity >= 0.5 else 0.0)


@pytest.mark.parametrize(
    ("prediction", "answers", "right"),
    [
        ("The total is  $12.50.", ["$12.50"], True),
        ("the customer is ADA\nLOVELACE", ["Ada Lovelace"], True),
        ("The total is $12", ["$12.50"], False),
        ("", ["a"], False),
        ("I do not know", ["no"], False),
        ("No, it is not.", ["no"], True),
        ("125.00", ["12"], False),
        ("$1,250.00", ["250"], False),
        ("$1,250.00", ["1,250"], False),
        ("$1,250.00", ["250.00"], False),
        ("$1,250.00", ["1,250.00"], True),
        ("There are 12, 50 and 7.", ["7"], True),
        ("There are 12, 50 and 7.", ["12"], True),
        ("Invoice 4.Total (EUR)", ["total (eur)"], True),
        ("a+b", ["a.b"], False),
    ],
)
def test_contains(prediction: str, answers: list[str], right: bool) -> None:
    assert contains(prediction, answers) is right


def test_character_overlap_is_f1_of_bags_and_knows_no_order() -> None:
    assert character_overlap("left right\n", "right  left") == (18, 18)
    assert character_overlap("aab", "abbc") == (2 * 2, 3 + 4)
    assert character_overlap("", "ab") == (0, 2)
    # What the docstring warns of: another sentence shares most letters.
    top, bottom = character_overlap("the rent is due on the first", "this order is sent in three")
    assert top / bottom > 0.75


def test_estimate_is_the_ratio_of_sums_not_the_mean_of_ratios() -> None:
    found = estimate([1.0, 0.0], [1.0, 3.0])
    assert found.value == 0.25
    assert found.num_units == 2
    assert (found.low, found.high) == (0.0, 1.0)


def test_estimate_of_a_constant_has_no_width() -> None:
    found = estimate([0.5] * 7)
    assert (found.value, found.low, found.high, found.num_units) == (0.5, 0.5, 0.5, 7)


def test_interval_is_that_of_the_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(3.0, 1.0, 400)
    found = estimate(values.tolist())
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_estimate_is_the_same_every_time() -> None:
    values = [0.1, 0.9, 0.4, 0.7]
    assert estimate(values) == estimate(values)


@pytest.mark.parametrize("sums", [[], [1.0]])
def test_estimate_refuses_what_has_no_weight(sums: list[float]) -> None:
    with pytest.raises(ValueError, match="positive weight"):
        estimate(sums, [0.0] * len(sums))
