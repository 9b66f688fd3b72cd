"""The results as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alignvlm.analysis.plotting import new_figure, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.gridspec import SubplotSpec

__all__ = ["draw"]

_PARTS = (("encoder and prompt", "#9db4c0"), ("connector", "#d1495b"), ("new tokens", "#edae49"))
_BAR = "#5c7a89"


def draw(results: dict[str, Any]) -> bytes:
    """A PNG: time and memory of each connector, and below, if measured, cost against work."""
    rows, scaling = results["connectors"], results["scaling"]
    height = 1.6 + 0.35 * len(rows)
    figure = new_figure(11.0, height + (4.0 if scaling else 0.0))
    grid = figure.add_gridspec(
        2 if scaling else 1, 1, height_ratios=[height, 4.0] if scaling else [1]
    )
    time, memory = _panels(grid[0], 2, sharey=True)
    _draw_time(time, rows)
    _draw_memory(memory, rows)
    if scaling:
        axes = _panels(grid[1], 4, sharey=False)
        for number, axis in enumerate(("tiles", "vocabulary")):
            points = [row for row in scaling if row["axis"] == axis]
            _draw_lines(axes[2 * number], points, axis, "seconds_median", "s")
            _draw_lines(axes[2 * number + 1], points, axis, "extra_gb", "extra GB")
    return png(figure)


def _panels(place: SubplotSpec, number: int, *, sharey: bool) -> list[Axes]:
    """So many axes beside each other."""
    panels: Any = place.subgridspec(1, number).subplots(sharey=sharey)
    return list(panels)


def _draw_time(axes: Axes, rows: list[dict[str, Any]]) -> None:
    names = [row["connector"] for row in rows]
    first = [row["first_token_s"] for row in rows]
    connector = [row["connector_s"] for row in rows]
    widths = (
        [whole - part for whole, part in zip(first, connector, strict=True)],
        connector,
        [row["seconds_median"] - part for row, part in zip(rows, first, strict=True)],
    )
    left = [0.0] * len(rows)
    for (label, color), width in zip(_PARTS, widths, strict=True):
        axes.barh(names, width, left=left, label=label, color=color)
        left = [start + more for start, more in zip(left, width, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("seconds a page, median")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)


def _draw_memory(axes: Axes, rows: list[dict[str, Any]]) -> None:
    bars = axes.barh(
        [row["connector"] for row in rows], [row["peak_gb"] for row in rows], color=_BAR
    )
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.margins(x=0.15)
    axes.set_xlabel("peak memory, GB")


def _draw_lines(
    axes: Axes, points: list[dict[str, Any]], axis: str, value: str, label: str
) -> None:
    key, name = ("num_tiles", "tiles") if axis == "tiles" else ("vocab_size", "words")
    for connector in dict.fromkeys(point["connector"] for point in points):
        line = [point for point in points if point["connector"] == connector and point[value] > 0]
        axes.loglog([p[key] for p in line], [p[value] for p in line], marker="o", label=connector)
    amounts = sorted({point[key] for point in points})
    axes.set_xticks(amounts, [f"{a // 1024}k" if a >= 1024 else str(a) for a in amounts])
    axes.tick_params("x", which="minor", bottom=False, labelbottom=False)
    axes.set_xlabel(name)
    axes.set_ylabel(label)
    if axes.lines:
        axes.legend(frameon=False)
