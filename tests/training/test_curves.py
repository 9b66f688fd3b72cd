from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignvlm.training.curves import HEIGHT, WIDTH, Chart, Series, compact, draw, smoothed, thinned

VALUES = st.floats(-1e30, 1e30, allow_subnormal=False)


def chart_of(values: list[float], **options: object) -> Chart:
    series = Series(name="a", steps=[float(n) for n in range(len(values))], values=values)
    return Chart(title="t", series=[series], **options)  # type: ignore[arg-type]


def points_of(figure: str) -> list[tuple[float, float]]:
    found = re.findall(r'points="([^"]*)"', figure)
    return [tuple(map(float, point.split(","))) for line in found for point in line.split()]  # type: ignore[misc]


@given(st.lists(VALUES, min_size=1, max_size=80), st.booleans(), st.booleans())
def test_whatever_the_values_the_curve_stays_inside(
    values: list[float], smooth: bool, may_be_log: bool
) -> None:
    figure = draw(chart_of(values, smooth=smooth, may_be_log=may_be_log))
    ET.fromstring(figure)
    assert "nan" not in figure
    assert "inf" not in figure
    for x, y in points_of(figure):
        assert 0 <= x <= WIDTH
        assert 0 <= y <= HEIGHT


@given(st.lists(VALUES, min_size=1, max_size=3000), st.integers(1, 300))
def test_thinning_keeps_ends_and_extremes(values: list[float], buckets: int) -> None:
    places = thinned(values, buckets)
    assert places == sorted(set(places))
    assert len(places) <= 2 * buckets + 2
    kept = [values[place] for place in places]
    assert (min(kept), max(kept)) == (min(values), max(values))
    assert (places[0], places[-1]) == (0, len(values) - 1)


def test_a_single_spike_among_a_hundred_thousand_is_drawn() -> None:
    values = [1.0] * 100_000
    values[54_321], values[54_322] = 9.0, -4.0
    kept = [values[place] for place in thinned(values)]
    assert {9.0, -4.0} <= set(kept)
    assert len(kept) < 700


def test_few_values_are_drawn_as_they_are() -> None:
    assert smoothed([3.0, 1.0, 2.0]) == [3.0, 1.0, 2.0]
    assert len(points_of(draw(chart_of([3.0, 1.0, 2.0], smooth=True)))) == 3


def test_the_moving_mean_starts_at_the_first_value_and_follows() -> None:
    values = [8.0] * 50 + [2.0] * 5000
    means = smoothed(values)
    assert means[:50] == pytest.approx([8.0] * 50)
    assert means[-1] == pytest.approx(2.0, abs=1e-6)
    assert all(b <= a + 1e-12 for a, b in pairwise(means[50:]))


def test_a_logarithmic_axis_where_values_span_decades() -> None:
    values = [10.0 ** -(n / 10) for n in range(41)]
    log = draw(chart_of(values, may_be_log=True))
    assert "log scale" in log
    heights = [y for _, y in points_of(log)]
    falls = [b - a for a, b in pairwise(heights)]
    assert max(falls) - min(falls) < 0.25  # a straight line, up to the rounding of its points
    assert "log scale" not in draw(chart_of(values))
    assert "log scale" not in draw(chart_of([0.0, *values], may_be_log=True))


def test_ticks_are_round_numbers_that_hold_the_curve() -> None:
    texts = re.findall(r">([^<>]+)</text>", draw(chart_of([0.13, 0.97])))
    assert texts == ["0", "0.5", "1", "0", "step"]


def test_ticks_differ_however_close_the_values_are() -> None:
    texts = re.findall(r">([^<>]+)</text>", draw(chart_of([0.41002, 0.41044])))
    ticks = texts[: texts.index("0")]
    assert len(set(ticks)) == len(ticks) > 2
    zero = re.findall(r">([^<>]+)</text>", draw(chart_of([0.41, 0.42], from_zero=True)))
    assert zero[0] == "0"


def test_marks_lie_at_their_steps_and_tooltips_say_values() -> None:
    chart = chart_of([float(n) for n in range(101)], marks=[0.0, 50.0, 400.0], warned=[25.0])
    figure = draw(chart)
    assert figure.count('class="mark"') == 1
    (at,) = re.findall(r'class="mark" d="M([\d.]+)', figure)
    (dot,) = re.findall(r'class="warned" cx="([\d.]+)"', figure)
    by_step = dict(zip(range(101), points_of(figure), strict=True))
    assert float(at) == pytest.approx(by_step[50][0], abs=0.1)
    assert float(dot) == pytest.approx(by_step[25][0], abs=0.1)
    assert "<title>steps 0 to 2: a 0 to 2</title>" in figure


def test_names_are_text() -> None:
    series = Series(name="<b>&", steps=[1.0, 2.0], values=[1.0, 2.0])
    figure = draw(Chart(title='"><script>', series=[series], unit="<i>"))
    ET.fromstring(figure)
    assert "<script" not in figure
    assert figure.count("&lt;b&gt;&amp;") >= 3  # the legend and two tooltips
    assert "<i>" not in figure


def test_no_values_no_chart() -> None:
    assert draw(chart_of([])) == ""
    assert draw(Chart(title="t", series=[])) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (0.001, "0.001"), (3e-5, "3e-5"), (1.5e-9, "1.5e-9"), (0.12345, "0.123"),
        (12.5, "12.5"), (999.4, "999.4"), (1000, "1k"), (999_999, "1M"), (-4147, "-4.15k"),
        (2.5e9, "2.5G"), (1e20, "1e20"), (-2e-7, "-2e-7"),
    ],
)  # fmt: skip
def test_numbers_are_short(value: float, text: str) -> None:
    assert compact(value) == text


@given(VALUES)
def test_short_numbers_are_the_numbers(value: float) -> None:
    text = compact(value)
    factor = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}.get(text[-1], 1.0)
    assert math.isclose(float(text.rstrip("kMGT")) * factor, value, rel_tol=6e-3)
    assert len(text) <= 10
