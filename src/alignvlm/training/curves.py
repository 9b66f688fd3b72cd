"""Curves of a run as inline SVG: axes, ticks, thinning that keeps every extreme, smoothing."""

from __future__ import annotations

import html
import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

__all__ = ["Chart", "Series", "compact", "draw", "smoothed", "thinned"]

WIDTH, HEIGHT = 400, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 8, 24
_BUCKETS = 300  # of each curve: the extremes of each are drawn
_STRIPS = 48  # parts of a chart that say their values under the pointer
_LOG_FROM = 50.0  # ratio of largest and smallest value
_FEWEST_TO_SMOOTH = 40
_SMOOTH_SHARE = 0.01  # of the points weigh as much as all before them


@dataclass(frozen=True, kw_only=True)
class Series:
    """One curve: a finite value at each of some rising steps."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One diagram.

    Attributes:
        title: above it.
        series: one to six curves on one axis.
        smooth: draw noisy values pale and their moving mean over them.
        from_zero: let the axis begin at zero, however close together the values are.
        may_be_log: use a logarithmic axis where values differ by more than a factor of 50.
        scale: values are multiplied by it, e.g. 100 for a share in percent.
        unit: behind values.
        marks: steps with a vertical line, where the run was resumed.
        warned: steps with a dot on the axis.
    """

    title: str
    series: Sequence[Series]
    smooth: bool = False
    from_zero: bool = False
    may_be_log: bool = False
    scale: float = 1.0
    unit: str = ""
    marks: Sequence[float] = ()
    warned: Sequence[float] = field(default=())


def draw(chart: Chart) -> str:
    """The chart as a `<figure>` that needs no script; colours are classes of the page's style."""
    series = [
        Series(name=s.name, steps=s.steps, values=[v * chart.scale for v in s.values])
        for s in chart.series
        if s.values
    ]
    if not series:
        return ""
    x = _linear(*_bounds([s.steps for s in series]), _LEFT, WIDTH - _RIGHT)
    columns = [s.values for s in series] + ([[0.0]] if chart.from_zero else [])
    is_log, low, high, ticks = _axis(columns, chart.may_be_log)
    y = (_logarithmic if is_log else _linear)(low, high, HEIGHT - _BOTTOM, _TOP)
    parts = [_grid(y, ticks), _steps_axis(series, x), _marks(chart, x)]
    means = []
    for number, one in enumerate(series):
        mean = smoothed(one.values) if chart.smooth else list(one.values)
        means.append(Series(name=one.name, steps=one.steps, values=mean))
        if chart.smooth and len(mean) >= _FEWEST_TO_SMOOTH:
            parts.append(_line(one, x, y, f"c{number} raw"))
        parts.append(_line(means[-1], x, y, f"c{number}"))
    parts.append(_strips(series, x, chart.unit))
    note = " <small>log scale</small>" if is_log else ""
    return (
        f"<figure><figcaption><div><b>{html.escape(chart.title)}</b>{note}</div>"
        f"<div>{_legend(means, chart.unit)}</div></figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(chart.title)}">'
        f"{''.join(parts)}</svg></figure>"
    )


def thinned(values: Sequence[float], buckets: int = _BUCKETS) -> list[int]:
    """Places of at most 2 values for each bucket: its smallest and its largest, in their order."""
    if len(values) <= 2 * buckets:
        return list(range(len(values)))
    kept: list[int] = []
    for bucket in range(buckets):
        start = bucket * len(values) // buckets
        part = values[start : (bucket + 1) * len(values) // buckets]
        ends = {start + part.index(min(part)), start + part.index(max(part))}
        kept += sorted(ends)
    return sorted({0, *kept, len(values) - 1})


def smoothed(values: Sequence[float]) -> list[float]:
    """Exponential moving mean over 1 % of the values, without the pull of a first value of zero."""
    if len(values) < _FEWEST_TO_SMOOTH:
        return list(values)
    keep = 1 - 1 / max(4.0, _SMOOTH_SHARE * len(values))
    total = weight = 0.0
    means = []
    for value in values:
        total = keep * total + value
        weight = keep * weight + 1
        means.append(total / weight)
    return means


def compact(value: float, digits: int = 3) -> str:
    """A number in few characters: 1.23k, 45.6M, 0.0012, 3e-5."""
    size = abs(value)
    for limit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if 0.9995 * limit <= size < 1e15:
            return f"{value / limit:.{digits}g}{letter}"
    if size >= 1e15 or 0 < size < 1e-3:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:.{digits + (size >= 1)}g}"


_Scale = Callable[[float], float]


def _linear(low: float, high: float, start: float, end: float) -> _Scale:
    span = high - low or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _logarithmic(low: float, high: float, start: float, end: float) -> _Scale:
    inner = _linear(math.log10(low), math.log10(high), start, end)
    return lambda value: inner(math.log10(value))


def _bounds(columns: Sequence[Sequence[float]]) -> tuple[float, float]:
    return min(min(column) for column in columns), max(max(column) for column in columns)


def _axis(
    columns: Sequence[Sequence[float]], may_be_log: bool
) -> tuple[bool, float, float, list[float]]:
    """Whether it is logarithmic, its ends, and where its ticks are."""
    low, high = _bounds(columns)
    if may_be_log and low > 0 and high / low > _LOG_FROM:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        every = -(-(last - first) // 6)
        for factors in ((1,), (1, 2, 5)):  # the latter where there are too few powers of ten
            ticks = [f * 10.0**power for power in range(first, last + 1, every) for f in factors]
            ticks = [tick for tick in ticks if low <= tick <= high]
            if len(ticks) > 2:
                break
        return True, low, high, ticks
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = low - (abs(low) / 2 or 0.5), high + (abs(high) / 2 or 0.5)
    if 0 < low < 0.4 * high:
        low = 0.0
    step = _nice((high - low) / 4)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return False, low, high, [low + step * n for n in range(round((high - low) / step) + 1)]


def _nice(step: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * f for f in (1, 2, 5, 10) if power * f >= step * (1 - 1e-9))


def _grid(y: _Scale, ticks: Sequence[float]) -> str:
    digits = next(
        (n for n in range(3, 7) if len({compact(tick, n) for tick in ticks}) == len(ticks)), 7
    )
    return "".join(
        f'<path class="grid" d="M{_LEFT} {y(tick):.1f}H{WIDTH - _RIGHT}"/>'
        f'<text x="{_LEFT - 6}" y="{y(tick) + 3.5:.1f}" text-anchor="end">'
        f"{compact(tick, digits)}</text>"
        for tick in ticks
    )


def _steps_axis(series: Sequence[Series], x: _Scale) -> str:
    low, high = _bounds([one.steps for one in series])
    step = max(1.0, _nice((high - low or 1) / 5))
    ticks = [step * n for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
    labels = "".join(
        f'<text x="{x(tick):.1f}" y="{HEIGHT - 7}" text-anchor="middle">{compact(tick)}</text>'
        for tick in ticks or [low]
        if x(tick) < WIDTH - 44
    )
    return (
        f'<path class="axis" d="M{_LEFT} {HEIGHT - _BOTTOM}H{WIDTH - _RIGHT}"/>{labels}'
        f'<text x="{WIDTH - _RIGHT}" y="{HEIGHT - 7}" text-anchor="end">step</text>'
    )


def _marks(chart: Chart, x: _Scale) -> str:
    low, high = _bounds([one.steps for one in chart.series if one.steps])
    lines = "".join(
        f'<path class="mark" d="M{x(step):.1f} {_TOP}V{HEIGHT - _BOTTOM}"/>'
        for step in chart.marks
        if low < step < high
    )
    warned = [chart.warned[place] for place in thinned(list(chart.warned), 60)]
    dots = "".join(
        f'<circle class="warned" cx="{x(step):.1f}" cy="{HEIGHT - _BOTTOM}" r="2.5"/>'
        for step in warned
        if low <= step <= high
    )
    return lines + dots


def _line(one: Series, x: _Scale, y: _Scale, kind: str) -> str:
    places = thinned(one.values)
    points = " ".join(f"{x(one.steps[p]):.1f},{y(one.values[p]):.1f}" for p in places)
    if len(places) == 1:
        cx, cy = points.split(",")
        return f'<circle class="{kind} dot" cx="{cx}" cy="{cy}" r="3"/>'
    return f'<polyline class="{kind}" points="{points}"/>'


def _strips(series: Sequence[Series], x: _Scale, unit: str) -> str:
    """Invisible columns whose tooltips say what the values in them are."""
    low, high = _bounds([one.steps for one in series])
    parts: list[list[str]] = [[] for _ in range(_STRIPS)]
    width = (high - low) / _STRIPS or 1.0
    for one in series:
        start = 0
        for place in range(_STRIPS):
            last = place == _STRIPS - 1
            end = len(one.steps) if last else bisect_left(one.steps, low + (place + 1) * width)
            if end > start:
                said = f"{one.name} {_range(one.values[start:end])}{unit}"
                parts[place].append(said)
            start = end
    strip = (WIDTH - _LEFT - _RIGHT) / _STRIPS
    return "".join(
        f'<rect x="{_LEFT + place * strip:.1f}" y="{_TOP}" width="{strip:.1f}" '
        f'height="{HEIGHT - _TOP - _BOTTOM}"><title>'
        f"{html.escape(_step_range(low, width, place) + ': ' + ', '.join(said))}</title></rect>"
        for place, said in enumerate(parts)
        if said
    )


def _step_range(low: float, width: float, place: int) -> str:
    first, last = math.ceil(low + place * width), math.floor(low + (place + 1) * width)
    return f"step {first:,}" if last <= first else f"steps {first:,} to {last:,}"


def _range(values: Sequence[float]) -> str:
    low, high = compact(min(values)), compact(max(values))
    return low if low == high else f"{low} to {high}"


def _legend(series: Sequence[Series], unit: str) -> str:
    return "".join(
        f'<span class="key c{number}">{html.escape(one.name)} '
        f"<b>{compact(one.values[-1])}{html.escape(unit)}</b></span>"
        for number, one in enumerate(series)
    )
