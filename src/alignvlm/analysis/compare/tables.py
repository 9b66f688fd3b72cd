"""The tables of a comparison, as Tables 2, 3 and 5 of the paper have them: Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from alignvlm.training.curves import compact

__all__ = ["Table", "as_csv", "as_markdown", "main_table", "tables"]

_PERCENT = ("anls", "exact")
_SHORT = {"anls": "ANLS", "exact": "exact", "loss": "loss", "gain": "gain"}


class Table(NamedTuple):
    """A table with its title; every cell is text."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(results: Mapping[str, Any]) -> list[Table]:
    """All tables of a comparison; those without a row are left out."""
    made = [main_table(results), _tests(results), _noise(results), _search(results)]
    return [table for table in made if table.rows]


def main_table(results: Mapping[str, Any]) -> Table:
    """Rows are connectors; columns budgets with their metrics, then sizes and seconds."""
    head = ["connector"]
    for budget in results["budgets"]:
        head += [f"{name}, {compact(budget)}" for name in _SHORT.values()]
    head += ["parameters", "visual tokens", "rate", "CPU s a sample", "s at the largest"]
    rows = []
    for row in results["rows"]:
        found = {entry["budget"]: entry for entry in row["budgets"]}
        cells = [row["connector"]]
        for budget in results["budgets"]:
            entry = found.get(budget)
            cells += [value(entry[m], m) if entry else "" for m in _SHORT]
        last = row["budgets"][-1]
        cells += [compact(row["parameters"]), str(row["visual_tokens"]), f"{row['rate']:g}"]
        cells += [f"{row['cpu_seconds_per_sample']:.2f}", f"{last['train_seconds']:,.0f}"]
        rows.append(cells)
    title = (
        f"Held-out pages: {results['num_pages']}; mean and standard deviation over "
        f"{results['num_seeds']} seeds, ANLS and exact match in percent; gain: loss beside another "
        "page minus loss"
    )
    return Table(title, head, rows)


def value(figure: Mapping[str, float | None], metric: str = "") -> str:
    """A mean with its spread."""
    scale, digits = (100.0, 1) if metric in _PERCENT else (1.0, 3)
    mean, spread = figure["mean"], figure["spread"]
    assert mean is not None
    text = f"{scale * mean:.{digits}f}"
    return text if spread is None else f"{text} ± {scale * spread:.{digits}f}"


def as_markdown(made: Sequence[Table]) -> str:
    """All tables as one Markdown text."""
    parts = []
    for table in made:
        rule = ["---"] + ["---:"] * (len(table.head) - 1)
        lines = [f"| {' | '.join(row)} |" for row in (table.head, rule, *table.rows)]
        parts.append("\n".join([f"**{table.title}**", "", *lines]))
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


def _tests(results: Mapping[str, Any]) -> Table:
    head = ["connector", "budget", "metric", "difference", "95 %", "p", "p, Holm"]
    rows = []
    for test in results["tests"]:
        scale, digits = (100.0, 1) if test["metric"] in _PERCENT else (1.0, 3)
        low, high, gap = (f"{scale * test[k]:+.{digits}f}" for k in ("low", "high", "difference"))
        rows.append([
            test["connector"], compact(test["budget"]), _SHORT[test["metric"]], gap,
            f"{low} to {high}", _probability(test["p"]), _probability(test["p_holm"]),
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
            f"{row['patch_distance']['mean']:.4f}", f"{row['ratio']['mean']:.3f}",
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
        losses = [row["losses"].get(rate) for rate in rates]
        chosen = "" if row["chosen"] is None else f"{row['chosen']:g}"
        rows.append([row["connector"], *("" if x is None else f"{x:.3f}" for x in losses), chosen])
    head = ["connector", *rates, "chosen"]
    return Table("Validation loss by the connector's learning rate, smallest budget", head, rows)


def _probability(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
