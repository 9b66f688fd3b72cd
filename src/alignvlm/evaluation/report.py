"""From rows of predictions to the numbers, and from the numbers to JSON and Markdown."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alignvlm.evaluation.encoder import PDF_KIND, Row
from alignvlm.evaluation.metrics import estimate
from alignvlm.files import write_atomically
from alignvlm.markup import markdown_table

Number = dict[str, float | int]
"""An `Estimate` as JSON: value, low, high, num_units."""

DOCUMENTS = "all documents"
"""Every drawn kind but the easy pages, together; pages of PDFs are told apart from them."""

# Name, path in the summary, whether more is better, the bar. One tile on two cores for the seconds.
_BARS: tuple[tuple[str, tuple[str, ...], bool, float], ...] = (
    ("patch accuracy, 14-34 px", ("patches", "clean", "14-34 px", "accuracy"), True, 0.90),
    ("character error, easy pages", ("character_error", "alignvlm", "easy"), False, 0.05),
    ("ANLS, easy pages", ("anls", "alignvlm", "easy"), True, 0.75),
    ("ANLS, documents", ("anls", "alignvlm", DOCUMENTS), True, 0.50),
    ("seconds cold, easy pages", ("cold", "easy", "seconds"), False, 10.0),
    ("seconds warm, easy pages", ("seconds", "alignvlm", "easy"), False, 4.0),
    ("peak memory, easy pages, GB", ("cold", "easy", "peak_gb"), False, 3.0),
)


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Every number with its interval, from the rows of one measurement alone."""
    answers = [row for row in rows if row["row"] == "answer"]
    readings = [row for row in rows if row["row"] == "reading"]
    summary: dict[str, Any] = {
        "patches": _patches([row for row in rows if row["row"] == "cells"]),
        "character_error": _by_kind(readings, lambda row: (row["edits"], row["length"])),
        "character_overlap": _by_kind(readings, lambda row: (row["shared"], row["both_lengths"])),
        "anls": _by_kind(answers, lambda row: (row["anls"], 1)),
        "contains": _by_kind(answers, lambda row: (row["contains"], 1)),
        "seconds": _by_kind(answers, lambda row: (_seconds(row), 1)),
        "condense": _condense([row for row in rows if row["row"] == "condense"]),
        "cold": _cold([row for row in rows if row["row"] == "cold"]),
        "num_questions": _counts(answers),
    }
    summary["bars"] = _bars(summary)
    return summary


def read_rows(path: Path) -> list[Row]:
    """The rows of a predictions file."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def write_results(folder: Path, name: str, record: dict[str, Any]) -> list[Path]:
    """Write `name.json` and `name.md`, each whole or not at all.

    Args:
        folder: created if it is not there.
        name: of both files, without suffix.
        record: `{"run": facts about the run, "results": what summarise returned}`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        ".json": json.dumps(record, indent=1, ensure_ascii=False) + "\n",
        ".md": markdown(record),
    }
    written = []
    for suffix, text in texts.items():
        path = folder / f"{name}{suffix}"
        write_atomically(path, text)
        written.append(path)
    return written


def markdown(record: dict[str, Any]) -> str:
    """The tables that a person reads; intervals are 95 %."""
    results = record["results"]
    parts = ["# Measurement of the default model", "", *_facts(record["run"])]
    parts += _table("Bars", ("", "measured", "bar", "reached"), _bar_lines(results["bars"]))
    parts += _table(
        "Patch accuracy on held-out fonts",
        ("tiles", "text size", "right", "right or beside", "spaces", "empty"),
        _patch_lines(results["patches"]),
    )
    titles = {
        "character_error": "Character error of the page text, row by row across columns",
        "character_overlap": "Characters in common in any order (F1 of two bags of characters; "
        "texts of one language share most by chance)",
        "anls": "ANLS of answers",
        "contains": "Share of answers that contain a right one",
        "seconds": "Seconds per question, warm, the page included",
    }
    for key, title in titles.items():
        parts += _kind_table(title, results[key])
    parts += _table(
        "Ways to condense, easy pages",
        ("way", "visual tokens", "seconds", "ANLS"),
        [
            (way, *(_shown(numbers[key]) for key in ("tokens", "seconds", "anls")))
            for way, numbers in results["condense"].items()
        ],
    )
    parts += _table(
        "Fresh processes",
        ("kind", "seconds", "peak memory in GB"),
        [
            (kind, _shown(numbers["seconds"]), _shown(numbers["peak_gb"]))
            for kind, numbers in results["cold"].items()
        ],
    )
    return "\n".join(parts).rstrip() + "\n"


def _number(sums: Sequence[float], weights: Sequence[float] | None = None) -> Number:
    return asdict(estimate(sums, weights))


def _seconds(row: Row) -> float:
    return float(row["page_seconds"] + row["answer_seconds"])


def _by_kind(
    rows: Sequence[Row], measured: Callable[[Row], tuple[float, float]]
) -> dict[str, dict[str, Number]]:
    """{system: {kind: number}}; a page with all its rows is the unit that is resampled."""
    units: dict[tuple[str, str, str, int], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for row in rows:
        kind = row["kind"]
        groups = (kind,) if kind in ("easy", PDF_KIND) else (kind, DOCUMENTS)
        for group in groups:
            top, bottom = measured(row)
            unit = units[(row["system"], group, kind, row["seed"])]
            unit[0] += top
            unit[1] += bottom
    grouped: dict[str, dict[str, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
    for (system, group, _, _), unit in units.items():
        grouped[system][group].append(unit)
    return {
        system: {
            group: _number([top for top, _ in pages], [bottom for _, bottom in pages])
            for group, pages in groups.items()
        }
        for system, groups in grouped.items()
    }


def _patches(rows: Sequence[Row]) -> dict[str, dict[str, dict[str, Number]]]:
    result: dict[str, dict[str, dict[str, Number]]] = {}
    for name, degraded in (("clean", False), ("degraded", True)):
        tiles = [row for row in rows if row["degraded"] is degraded]
        if not tiles:
            continue
        bands = {_band(row["band_px"]): row["band_px"] for row in tiles}
        lowest = min(band[0] for band in bands.values())
        highest = max(band[1] for band in bands.values())
        result[name] = {_band([lowest, highest]): _cells(tiles)}
        if len(bands) > 1:
            for label, band in bands.items():
                result[name][label] = _cells([row for row in tiles if row["band_px"] == band])
    return result


def _band(band_px: Sequence[int]) -> str:
    return f"{band_px[0]}-{band_px[1]} px"


def _cells(tiles: Sequence[Row]) -> dict[str, Number]:
    measured = {
        "accuracy": ("text_right", "text"),
        "accuracy_near": ("text_near", "text"),
        "spaces": ("spaces_right", "spaces"),
        "empty": ("empty_right", "empty"),
    }
    return {
        name: _number([tile[right] for tile in tiles], [tile[total] for tile in tiles])
        for name, (right, total) in measured.items()
        if any(tile[total] for tile in tiles)
    }


def _condense(rows: Sequence[Row]) -> dict[str, dict[str, Number]]:
    ways: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        ways[row["system"]].append(row)
    return {
        way: {
            "tokens": _number([row["num_tokens"] for row in found]),
            "seconds": _number([_seconds(row) for row in found]),
            "anls": _number([row["anls"] for row in found]),
        }
        for way, found in ways.items()
    }


def _cold(rows: Sequence[Row]) -> dict[str, dict[str, Number]]:
    kinds: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        kinds[row["kind"]].append(row)
    return {
        kind: {
            "seconds": _number([row["seconds"] for row in found]),
            "peak_gb": _number([row["peak_bytes"] / 1e9 for row in found]),
        }
        for kind, found in kinds.items()
    }


def _counts(answers: Iterable[Row]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for row in answers:
        counts[row["kind"]] += row["system"] == "alignvlm"
    return dict(counts)


def _bars(summary: dict[str, Any]) -> list[dict[str, Any]]:
    bars = []
    for name, path, more, bar in _BARS:
        number: Any = summary
        for key in path:
            number = number.get(key, {})
        if number:
            reached = number["value"] >= bar if more else number["value"] <= bar
            sign = ">=" if more else "<="
            bars.append({"name": name, "measured": number, "bar": f"{sign} {bar:g}",
                         "reached": reached})  # fmt: skip
    return bars


def _facts(run: dict[str, Any]) -> list[str]:
    lines = [f"- {name}: {_fact(value)}" for name, value in run.items()]
    return [*lines, "", "In brackets: 95 % bootstrap intervals over pages, tiles or runs.", ""]


def _fact(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_fact(part)}" for name, part in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _bar_lines(bars: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (bar["name"], _shown(bar["measured"]), bar["bar"], "yes" if bar["reached"] else "no")
        for bar in bars
    ]


def _patch_lines(patches: dict[str, Any]) -> list[tuple[str, ...]]:
    keys = ("accuracy", "accuracy_near", "spaces", "empty")
    return [
        (name, size, *(_shown(numbers.get(key)) for key in keys))
        for name, sizes in patches.items()
        for size, numbers in sizes.items()
    ]


def _kind_table(title: str, systems: dict[str, dict[str, Number]]) -> list[str]:
    kinds = list(dict.fromkeys(kind for numbers in systems.values() for kind in numbers))
    kinds.sort(key=lambda kind: (kind != "easy", kind != DOCUMENTS))
    lines = [(kind, *(_shown(systems[name].get(kind)) for name in systems)) for kind in kinds]
    return _table(title, ("kind", *systems), lines)


def _table(title: str, head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    return [f"## {title}", "", markdown_table(head, lines), ""] if lines else []


def _shown(number: Number | None) -> str:
    if number is None:
        return "-"
    digits = 3 if abs(number["value"]) < 1 or number["high"] <= 1 else 1
    value, low, high = (f"{number[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}] (n = {number['num_units']})"
