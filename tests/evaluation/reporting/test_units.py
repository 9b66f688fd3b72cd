"""Units and their rates give the score that `aggregate` gives, for every way of putting scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignvlm.errors import InputError
from alignvlm.evaluation.reporting.units import Scored, as_units
from alignvlm.evaluation.scorers import Score, aggregate, score

WORDS = st.sampled_from(["a", "b", "a b", "Bishop's Stortford", "Stortford", "None", "", "12"])
GROUPS = st.sampled_from(["human", "augmented", "human,augmented"])


def scored(rows: Sequence[tuple[str, Score]]) -> list[Scored]:
    return [Scored(str(place), group, found) for place, (group, found) in enumerate(rows)]


@given(st.lists(st.tuples(WORDS, WORDS, GROUPS), min_size=1, max_size=12))
def test_means(rows: list[tuple[str, str, str]]) -> None:
    found = [(g, score("anls@vlmevalkit-2025.05", said, [gold])) for said, gold, g in rows]
    units = as_units(scored(found))
    assert units.kind == "questions" and len(units.sums) == len(rows)
    assert units.value == pytest.approx(aggregate([one for _, one in found]).value)


@given(st.lists(st.tuples(WORDS, WORDS, GROUPS), min_size=1, max_size=12))
def test_means_of_groups(rows: list[tuple[str, str, str]]) -> None:
    found = [(g, score("anls@vlmevalkit-2025.05", said, [gold])) for said, gold, g in rows]
    whole = aggregate([one for _, one in found], [group for group, _ in found])
    units = as_units(scored(found), "mean_of_groups")
    assert units.value == pytest.approx(whole.parts["mean_of_groups"])
    assert units.strata == tuple(group for group, _ in found)


@pytest.mark.parametrize("metric", ["due_f1@due", "due_mean_f1@due"])
@given(
    st.lists(
        st.tuples(WORDS, st.lists(WORDS.filter(bool), max_size=2), st.integers(0, 3),
                  st.booleans()),
        min_size=1, max_size=12,
    )
)  # fmt: skip
def test_documents(metric: str, rows: list[tuple[str, list[str], int, bool]]) -> None:
    found = [
        ("", score(metric, said, golds, key="name" if is_name else "date", document=f"d{number}"))
        for said, golds, number, is_name in rows
    ]
    units = as_units(scored(found))
    assert units.kind == "documents"
    assert len(units.sums) == len({number for _, _, number, _ in rows})
    assert units.value == pytest.approx(aggregate([one for _, one in found]).value)


@pytest.mark.parametrize("dialect", ["vlmevalkit-2025.05", "lmms-eval"])
@given(
    st.lists(
        st.tuples(st.sampled_from(["Yes", "No", "maybe"]), st.sampled_from(["Yes", "No"]),
                  st.sampled_from(["random", "popular", "random,popular"])),
        min_size=1, max_size=12,
    )
)  # fmt: skip
def test_yes_and_no(dialect: str, rows: list[tuple[str, str, str]]) -> None:
    found = [(group, score(f"pope@{dialect}", said, gold)) for said, gold, group in rows]
    scores, groups = [one for _, one in found], [group for group, _ in found]
    whole = aggregate(scores, groups)
    assert as_units(scored(found)).value == pytest.approx(whole.value)
    by_group = as_units(scored(found), "mean_of_groups").value
    assert by_group == pytest.approx(whole.parts["mean_of_groups"])


@given(st.lists(st.lists(st.sampled_from(["a b", "c", "d e f"]), min_size=1, max_size=3),
                min_size=1, max_size=6))  # fmt: skip
def test_pooled_blanks(rows: list[list[str]]) -> None:
    found = [("", score("vcr_exact_match@vlmevalkit-2025.05", "a b d", golds)) for golds in rows]
    assert as_units(scored(found)).value == pytest.approx(aggregate([s for _, s in found]).value)


def test_only_shares_of_questions_are_right_or_wrong() -> None:
    def units(values: Sequence[float], headline: str = "mean", **parts: Any) -> bool:
        groups = ["a", "b"] * len(values)
        rows = [(g, Score("anls@due", v, parts)) for g, v in zip(groups, values, strict=False)]
        return as_units(scored(rows), headline).are_right_or_wrong

    assert units([0.0, 1.0, 1.0])
    assert not units([0.0, 0.5, 1.0])
    assert not units([0.0, 1.0], "mean_of_groups")


def test_scores_that_have_no_common_value_are_refused() -> None:
    rows = [("a", score("anls@due", "x", ["x"])), ("b", score("pope@lmms-eval", "yes", "yes"))]
    assert as_units(scored(rows)).value == 1.0, "two means have one mean"
    rows.append(("b", score("due_f1@due", "x", ["x"], key="k", document="d")))
    with pytest.raises(InputError, match=r"different ways .*: score it by one metric$"):
        as_units(scored(rows))
    fields = [("a", score("due_f1@due", "x", ["x"], key="k", document=d)) for d in "de"]
    with pytest.raises(InputError, match="have no mean"):
        as_units(scored(fields), "mean_of_groups")
