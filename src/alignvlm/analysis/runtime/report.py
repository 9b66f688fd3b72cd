"""From costs to numbers, and from numbers to tables and files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean, median
from typing import Any

from alignvlm.analysis.runtime.measure import Cost
from alignvlm.analysis.runtime.plot import draw
from alignvlm.analysis.runtime.scaling import ScalingPoint, exponent
from alignvlm.files import write_atomically

__all__ = ["TABLE_7", "Table", "markdown", "summarise", "tables", "write_results"]

TABLE_7 = {
    "mlp": {"seconds": 0.161, "tokens_per_s": 118.3, "peak_gb": 10.9},
    "perceiver": {"seconds": 0.140, "tokens_per_s": 135.1, "peak_gb": 10.9},
    "ovis": {"seconds": 0.155, "tokens_per_s": 122.5, "peak_gb": 10.8},
    "align": {"seconds": 0.165, "tokens_per_s": 115.4, "peak_gb": 10.9},
}
"""Table 7 of the paper: Llama-3.2-3B, means over 2500 samples."""

_REFERENCE = "mlp"

Row = dict[str, Any]
Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""Title, head and lines; the first column is text, the others are numbers."""


def summarise(costs: Sequence[Cost], scaling: Sequence[ScalingPoint] = ()) -> dict[str, list[Row]]:
    """The numbers of one measurement.

    `connectors`: a row for each. `seconds` is the mean over pages, as in the paper; `first_token_s`
    and `connector_s` are medians. `times_mlp` is the median over pages of the time divided by that
    of `mlp` on the same page. `connector_share` is connector_s / first_token_s, `flops_share` the
    connector's part of the matrix products up to the first new token. `paper_...` is Table 7.

    `scaling`: a row for each point. `exponents`: a row for each line through such points.
    """
    reference = next((cost for cost in costs if cost.connector == _REFERENCE), None)
    return {
        "connectors": [_connector_row(cost, reference) for cost in costs],
        "scaling": [_scaling_row(point) for point in scaling],
        "exponents": _exponents(scaling),
    }


def _connector_row(cost: Cost, reference: Cost | None) -> Row:
    first, connector = median(cost.first_token_s), median(cost.connector_s)
    row: Row = {
        "connector": cost.connector,
        "num_parameters": cost.num_parameters,
        "num_visual_tokens": cost.num_visual_tokens,
        "seconds": mean(cost.seconds),
        "seconds_median": median(cost.seconds),
        "seconds_min": min(cost.seconds),
        "seconds_max": max(cost.seconds),
        "tokens_per_s": cost.num_new_tokens / mean(cost.seconds),
        "peak_gb": cost.peak_bytes / 1e9,
        "first_token_s": first,
        "first_token_s_min": min(cost.first_token_s),
        "first_token_s_max": max(cost.first_token_s),
        "connector_s": connector,
        "connector_share": connector / first,
        "flops_share": cost.connector_flops / cost.prefill_flops,
        "times_mlp": None,
        "peak_times_mlp": None,
    }
    if reference is not None:
        pairs = zip(cost.seconds, reference.seconds, strict=True)
        row["times_mlp"] = median(mine / other for mine, other in pairs)
        row["peak_times_mlp"] = cost.peak_bytes / reference.peak_bytes
    paper = TABLE_7.get(cost.connector, {})
    return row | {f"paper_{key}": paper.get(key) for key in ("seconds", "tokens_per_s", "peak_gb")}


def _scaling_row(point: ScalingPoint) -> Row:
    return {
        "connector": point.connector,
        "axis": point.axis,
        "num_tiles": point.num_tiles,
        "vocab_size": point.vocab_size,
        "seconds_median": median(point.seconds),
        "seconds_min": min(point.seconds),
        "seconds_max": max(point.seconds),
        "extra_gb": point.extra_bytes / 1e9,
        "flops": point.flops,
    }


def _exponents(points: Sequence[ScalingPoint]) -> list[Row]:
    rows = []
    for name, axis in dict.fromkeys((point.connector, point.axis) for point in points):
        line = [point for point in points if (point.connector, point.axis) == (name, axis)]
        amounts = [point.amount for point in line]
        rows.append(
            {
                "connector": name,
                "axis": axis,
                "time": exponent(amounts, [median(point.seconds) for point in line]),
                "memory": exponent(amounts, [point.extra_bytes for point in line]),
                "flops": exponent(amounts, [point.flops for point in line]),
            }
        )
    return rows


def tables(results: dict[str, list[Row]]) -> list[Table]:
    """What a person reads, on the terminal as in Markdown."""
    rows = results["connectors"]
    found: list[Table] = [
        (
            "Cost of a connector",
            ("connector", "tokens", "params", "s a page (range)", "tok/s", "peak GB", "x mlp"),
            [_cost_line(row) for row in rows],
        ),
        (
            "Until the first new token",
            ("connector", "s (range)", "its ms", "of the time", "of the FLOPs"),
            [_first_token_line(row) for row in rows],
        ),
    ]  # fmt: skip
    compared = [row for row in rows if row["paper_seconds"] is not None]
    if compared:
        head = ("connector", "s", "paper", "tok/s", "paper", "peak GB", "paper")
        title = "Beside Table 7 of the paper (Llama-3.2-3B, another machine and other pages)"
        found.append((title, head, [_paper_line(row) for row in compared]))
    if results["scaling"]:
        work = ("connector", "tiles", "words", "s (range)", "extra GB", "TFLOP")
        title = "Cost against work, the connector by itself"
        found.append((title, work, [_scaling_line(row) for row in results["scaling"]]))
        fits = ("connector", "varied", "time", "memory", "FLOPs")
        title = "Fitted exponents (1: proportional to the work, 0: independent of it)"
        found.append((title, fits, [_exponent_line(row) for row in results["exponents"]]))
    return found


def _cost_line(row: Row) -> list[str]:
    return [
        row["connector"],
        str(row["num_visual_tokens"]),
        f"{row['num_parameters'] / 1e6:.2f} M",
        _spread(row, "seconds", "seconds", digits=2),
        f"{row['tokens_per_s']:.1f}",
        f"{row['peak_gb']:.2f}",
        _shown(row["times_mlp"], 2),
    ]


def _first_token_line(row: Row) -> list[str]:
    return [
        row["connector"],
        _spread(row, "first_token_s", "first_token_s", digits=2),
        f"{row['connector_s'] * 1e3:.2f}",
        f"{row['connector_share']:.1%}",
        f"{row['flops_share']:.1%}",
    ]


def _paper_line(row: Row) -> list[str]:
    return [
        row["connector"],
        *(f"{row['seconds']:.3f}", f"{row['paper_seconds']:.3f}"),
        *(f"{row['tokens_per_s']:.1f}", f"{row['paper_tokens_per_s']:.1f}"),
        *(f"{row['peak_gb']:.1f}", f"{row['paper_peak_gb']:.1f}"),
    ]


def _scaling_line(row: Row) -> list[str]:
    return [
        row["connector"],
        str(row["num_tiles"]),
        str(row["vocab_size"]),
        _spread(row, "seconds_median", "seconds", digits=4),
        f"{row['extra_gb']:.3f}",
        f"{row['flops'] / 1e12:.4f}",
    ]


def _exponent_line(row: Row) -> list[str]:
    return [
        row["connector"],
        row["axis"],
        *(_shown(row[k], 2) for k in ("time", "memory", "flops")),
    ]


def _spread(row: Row, middle: str, ends: str, digits: int) -> str:
    """The number and in brackets the least and the most."""
    low, high = row[f"{ends}_min"], row[f"{ends}_max"]
    return f"{row[middle]:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def _shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def markdown(record: dict[str, Any]) -> str:
    """The facts of the run and all tables."""
    parts = ["# What a connector costs", ""]
    parts += [f"- {name}: {_fact(value)}" for name, value in record["run"].items()]
    for title, head, lines in tables(record["results"]):
        rules = ["---", *["--:"] * (len(head) - 1)]
        rows = [head, rules, *lines]
        parts += ["", f"## {title}", "", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(parts) + "\n"


def _fact(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_fact(part)}" for name, part in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def write_results(
    folder: Path,
    record: dict[str, Any],
    costs: Sequence[Cost],
    scaling: Sequence[ScalingPoint] = (),
) -> list[Path]:
    """Write runtime.json, .csv, .md and .png, and runtime_scaling.csv if there is scaling.

    Args:
        folder: created if it is not there; each file is written whole or not at all.
        record: `{"run": facts about the run, "results": what summarise returned}`.
        costs: what was summarised; the JSON gets every sample.
        scaling: the same.

    Returns:
        The paths.

    Raises:
        MissingDependencyError: there is no matplotlib to plot with; nothing is written then.
    """
    results = record["results"]
    samples = {"costs": [asdict(c) for c in costs], "scaling": [asdict(p) for p in scaling]}
    whole = {**record, "samples": samples}
    contents = {
        "runtime.png": draw(results),
        "runtime.json": (json.dumps(whole, indent=1, ensure_ascii=False) + "\n").encode(),
        "runtime.csv": _csv(results["connectors"]),
        "runtime.md": markdown(record).encode(),
    }
    if results["scaling"]:
        contents["runtime_scaling.csv"] = _csv(results["scaling"])
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return [folder / name for name in contents]


def _csv(rows: Sequence[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
