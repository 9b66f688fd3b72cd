"""The tables of a comparison, as Tables 2, 3 and 5 of the paper have them: Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from alignvlm.evaluation.reporting.markup import probability
from alignvlm.markup import markdown_table
from alignvlm.training.curves import compact

__all__ = ["Table", "as_csv", "as_markdown", "curves_as_csv", "main_table", "tables"]

_PERCENT = ("anls", "exact")
_NO_NUMBER = "no number"
_SHORT = {"anls": "ANLS", "exact": "exact", "loss": "loss", "gain": "gain"}


class Table(NamedTuple):
    """A table with its title; every cell is text."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def columns(self) -> list[str]:
        """The head for `html_table` and `markdown_table`: all but the first are figures."""
        return [self.head[0], *(f"#{name}" for name in self.head[1:])]


def tables(results: Mapping[str, Any]) -> list[Table]:
    """All tables of a comparison; those without a row are left out."""
    made = [
        main_table(results),
        _diverged(results),
        _tests(results),
        _noise(results),
        _costs(results),
        _search(results),
    ]
    return [table for table in made if table.rows]


def main_table(results: Mapping[str, Any]) -> Table:
    """Rows are connectors; columns budgets with their metrics."""
    head = ["connector"]
    for budget in results["budgets"]:
        head += [f"{name}, {compact(budget)}" for name in _SHORT.values()]
    lost = Counter((cell["variant"], cell["budget"]) for cell in results["diverged"])
    rows = []
    for row in results["rows"]:
        found = {entry["budget"]: entry for entry in row["budgets"]}
        cells = [row["connector"]]
        for budget in results["budgets"]:
            cells += _figures(found.get(budget), lost[row["connector"], budget])
        rows.append(cells)
    num = results["num_seeds"]
    over = "one seed" if num == 1 else f"mean and standard deviation over {num} seeds"
    title = (
        f"Held-out pages: {results['num_pages']}; {over}; ANLS and exact match in percent; gain: "
        "loss beside another page minus loss"
    )
    if lost:
        title += "; where a run's loss became no number, the seeds that are left stand behind it"
    if results["cells"] < results["cells_wanted"]:
        title += f" (so far {results['cells']} of {results['cells_wanted']} runs)"
    return Table(title, head, rows)


def _figures(entry: Mapping[str, Any] | None, num_lost: int) -> list[str]:
    """A connector's figures at one budget, and of how many seeds where some are lost."""
    if entry is None:
        return [_NO_NUMBER if num_lost else ""] * len(_SHORT)
    seeds = entry["num_seeds"]
    left = f" ({seeds} of {seeds + num_lost})" if num_lost else ""
    return [value(entry[metric], metric) + left for metric in _SHORT]


def _diverged(results: Mapping[str, Any]) -> Table:
    """Runs that no mean counts."""
    rows = [
        [cell["variant"], compact(cell["budget"]), str(cell["seed"]), f"{cell['rate']:g}"]
        for cell in results["diverged"]
    ]
    head = ["connector", "budget", "seed", "rate"]
    return Table("Runs whose loss became no number, left out of all figures", head, rows)


def _costs(results: Mapping[str, Any]) -> Table:
    """Sizes of the connectors and how long their runs took."""
    head = ["connector", "parameters", "trained in all", "visual tokens", "rate", "CPU s a sample",
            *(f"s of a run, {compact(budget)}" for budget in results["budgets"])]  # fmt: skip
    rows = []
    for row in results["rows"]:
        seconds = {entry["budget"]: f"{entry['train_seconds']:,.0f}" for entry in row["budgets"]}
        rows.append([
            row["connector"], compact(row["parameters"]), compact(row["trained_parameters"]),
            str(row["visual_tokens"]), f"{row['rate']:g}", f"{row['cpu_seconds_per_sample']:.2f}",
            *(seconds.get(budget, "") for budget in results["budgets"]),
        ])  # fmt: skip
    return Table("Sizes, the connector's learning rate, and times", head, rows)


def value(figure: Mapping[str, float | None], metric: str = "") -> str:
    """A mean with its spread."""
    scale, digits = (100.0, 1) if metric in _PERCENT else (1.0, 3)
    mean, spread = figure["mean"], figure["spread"]
    assert mean is not None
    text = f"{scale * mean:.{digits}f}"
    return text if spread is None else f"{text} ± {scale * spread:.{digits}f}"


def as_markdown(made: Sequence[Table]) -> str:
    """All tables as one Markdown text."""
    parts = [f"**{one.title}**\n\n{markdown_table(one.columns, one.rows)}" for one in made]
    return "\n\n".join(parts) + "\n"


def as_csv(results: Mapping[str, Any]) -> str:
    """Every figure in a line of its own, for other programs."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["connector", "budget", "metric", "mean", "spread", "seeds"])
    for row in results["rows"]:
        for entry in row["budgets"]:
            for metric in _SHORT:
                figure = entry[metric]
                out.writerow([row["connector"], entry["budget"], metric, figure["mean"],
                              figure["spread"], entry["num_seeds"]])  # fmt: skip
    for row in results["noise"]:
        for name, figure in row.items():
            if isinstance(figure, dict):
                out.writerow([row["connector"], results["budgets"][-1],
                              f"{name} at noise {row['sigma']}", figure["mean"],
                              figure["spread"], row["num_seeds"]])  # fmt: skip
    return text.getvalue()


def curves_as_csv(results: Mapping[str, Any]) -> str:
    """The points of the training curves."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["connector", "samples", "loss"])
    for curve in results["curves"]:
        for samples, loss in zip(curve["samples"], curve["loss"], strict=True):
            out.writerow([curve["connector"], samples, loss])
    return text.getvalue()


def _tests(results: Mapping[str, Any]) -> Table:
    head = ["connector", "budget", "metric", "difference", "95 %", "p", "p, Holm"]
    rows = []
    for test in results["tests"]:
        scale, digits = (100.0, 1) if test["metric"] in _PERCENT else (1.0, 3)
        low, high, gap = (f"{scale * test[k]:+.{digits}f}" for k in ("low", "high", "difference"))
        rows.append([
            test["connector"], compact(test["budget"]), _SHORT[test["metric"]], gap,
            f"{low} to {high}", probability(test["p"]), probability(test["p_holm"]),
        ])  # fmt: skip
    return Table(
        f"Against {results['reference']}, paired over pages (means of the seeds)", head, rows
    )


def _noise(results: Mapping[str, Any]) -> Table:
    head = ["connector", "noise", "ANLS with it", "drop", "moved by", "patches apart", "ratio",
            "RMS of F"]  # fmt: skip
    rows = [
        [
            row["connector"], row["sigma"], value(row["noisy_anls"], "anls"),
            value(row["anls_drop"], "anls"), f"{row['noise_distance']['mean']:.4f}",
            f"{row['patch_distance']['mean']:.4f}", _ratio(row["ratio"]["mean"]),
            f"{row['feature_rms']['mean']:.2f}",
        ]
        for row in results["noise"]
    ]  # fmt: skip
    title = (
        "Noise on the vision features F, largest budget: cosine distance between a visual token "
        "and itself under noise, between tokens of different patches of a page, and their ratio"
    )
    return Table(title, head, rows)


def _search(results: Mapping[str, Any]) -> Table:
    rates = list(dict.fromkeys(rate for row in results["search"] for rate in row["losses"]))
    if len(rates) < 2:
        return Table("", [], [])
    rows = []
    for row in results["search"]:
        losses = {rate: f"{loss:.3f}" for rate, loss in row["losses"].items() if loss is not None}
        losses |= dict.fromkeys(row["diverged"], _NO_NUMBER)
        chosen = "" if row["chosen"] is None else f"{row['chosen']:g}"
        rows.append([row["connector"], *(losses.get(rate, "") for rate in rates), chosen])
    head = ["connector", *rates, "chosen"]
    return Table("Validation loss by the connector's learning rate, smallest budget", head, rows)


def _ratio(found: float | None) -> str:
    return "all alike" if found is None else f"{found:.3f}"
