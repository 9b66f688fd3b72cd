"""Curves of a comparison as PNG."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from alignvlm.analysis.plotting import new_figure, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["efficiency", "losses"]


def losses(results: Mapping[str, Any]) -> bytes:
    """A PNG: training loss of each connector at the largest budget."""
    figure = new_figure(11.0, 4.0)
    axes: Axes = figure.subplots()
    for curve in results["curves"]:
        axes.plot(curve["samples"], curve["loss"], label=curve["connector"], marker=_marker(curve))
    axes.set_xlabel("samples")
    axes.set_ylabel("training loss, mean of the seeds")
    if results["curves"]:
        axes.legend(frameon=False)
    return png(figure)


def efficiency(results: Mapping[str, Any]) -> bytes:
    """A PNG: ANLS and held-out loss of each connector against the samples it was trained on."""
    figure = new_figure(11.0, 4.0)
    left, right = figure.subplots(1, 2)
    for axes, metric, label, scale in (
        (left, "anls", "ANLS, %", 100.0), (right, "loss", "loss a token", 1.0),
    ):  # fmt: skip
        for place, row in enumerate(results["rows"]):
            entries = row["budgets"]
            aside = 1 + 0.015 * (place - (len(results["rows"]) - 1) / 2)  # bars side by side
            axes.errorbar(
                [aside * entry["budget"] for entry in entries],
                [scale * entry[metric]["mean"] for entry in entries],
                yerr=[scale * (entry[metric]["spread"] or 0.0) for entry in entries],
                marker="o", capsize=3, label=row["connector"],
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xticks(results["budgets"], [f"{budget:,}" for budget in results["budgets"]])
        axes.tick_params("x", which="minor", bottom=False, labelbottom=False)
        axes.set_xlabel("samples")
        axes.set_ylabel(label)
    left.set_ylim(bottom=0, top=max(1.0, left.get_ylim()[1]))
    if results["rows"]:
        left.legend(frameon=False)
    return png(figure)


def _marker(curve: Mapping[str, Any]) -> str | None:
    """A point is seen by its marker alone."""
    return "o" if len(curve["loss"]) == 1 else None
