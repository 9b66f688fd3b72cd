"""The paper's tables with the runs' rows beside its own, and those of other benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from alignvlm.evaluation.reporting.estimates import Figure, mean_interval
from alignvlm.evaluation.reporting.paper import PaperTable, paper_tables, paper_vcr
from alignvlm.evaluation.reporting.runs import Result, Run

__all__ = ["OURS", "Figures", "make_tables", "remarks"]

Figures: TypeAlias = Mapping[tuple[str, str], Sequence[Figure]]
"""(run's label, benchmark) to the figures by each of its measures."""

OURS = "Evaluated here"
PROMPTS = "prompts of "
"""How the remark begins that a benchmark was put to other runs in another way."""

_SAME = 5e-9


def make_tables(runs: Sequence[Run], figures: Figures) -> list[dict[str, Any]]:
    """Those tables of which a run has at least one column, the paper's first."""
    made = [_paper_table(table, runs, figures) for table in paper_tables()]
    made.append(_vcr_table(runs, figures))
    made.append(_other_table(runs, figures))
    return [table for table in made if any(row["ours"] for row in table["rows"])]


def remarks(run: Run, result: Result, runs: Sequence[Run], figures: Sequence[Figure]) -> list[str]:
    """Why a score is not to be put beside others without a second look."""
    said = []
    num = len(result.predictions)
    if result.num_expected is not None and num != result.num_expected:
        said.append(f"{num:,} of {result.num_expected:,} questions")
    elif result.num_expected is None and run.record.get("limit") == num:
        said.append(f"the first {num:,} questions only")
    failed = sum(one.error is not None for one in result.predictions)
    if failed:
        said.append(
            "1 question failed and counts as 0"
            if failed == 1
            else f"{failed:,} questions failed and count as 0"
        )
    prompts = {_prompts(other, result.name) for other in runs if result.name in other.results}
    if len(prompts) > 1:
        said.append(f"{PROMPTS}{_prompts(run, result.name)}")
    first = figures[0] if figures else None
    if first is not None and first.value is None:
        said.append("a score is no number")
    elif first is not None and _disagrees(run, result, first):
        said.append("scores.json says otherwise: `alignvlm rescore` the run")
    return said


def _prompts(run: Run, benchmark: str) -> str:
    return str(run.results[benchmark].record.get("prompt_dialect") or run.prompt_dialect or "?")


def _disagrees(run: Run, result: Result, found: Figure) -> bool:
    reported = result.reported.get("headline")
    value = reported.get("value") if isinstance(reported, Mapping) else None
    if result.reported.get("dialect") != run.dialect or not isinstance(value, (int, float)):
        return False
    return found.value is not None and abs(found.value - value) > _SAME


def _paper_table(table: PaperTable, runs: Sequence[Run], figures: Figures) -> dict[str, Any]:
    rows = [
        {
            "section": row.section,
            "model": row.model,
            "ours": False,
            "cells": [{"value": value / 100} for value in row.values],
        }
        for row in table.rows
    ]
    columns: list[dict[str, Any]] = []
    for group in table.column_groups:
        for name, heading in zip(group.benchmarks, group.headings, strict=True):
            columns.append({"group": group.title, "heading": heading, "benchmark": name})
        columns.append({"group": group.title, "heading": group.average,
                        "mean_of": list(group.benchmarks)})  # fmt: skip
    ours = [run for run in runs if any(name in run.results for name in table.benchmarks)]
    rows += [_row(run, runs, columns, figures) for run in ours]
    made = {"name": table.name, "title": table.title, "note": "", "columns": columns, "rows": rows}
    return _with_partial_averages(made, table, ours, runs, figures)


def _with_partial_averages(
    made: dict[str, Any],
    table: PaperTable,
    ours: Sequence[Run],
    runs: Sequence[Run],
    figures: Figures,
) -> dict[str, Any]:
    """Where a run lacks columns, the mean of those that all have, for every row alike."""
    for group in table.column_groups:
        shared = [b for b in group.benchmarks if all(b in run.results for run in ours)]
        if len(shared) == len(group.benchmarks) or len(shared) < 2:
            continue
        places = [_place(made["columns"], name, group.title) for name in shared]
        at = 1 + max(place for place, column in enumerate(made["columns"])
                     if column["group"] == group.title)  # fmt: skip
        column = {"group": group.title, "heading": f"Avg of {len(shared)}", "mean_of": shared}
        made["columns"].insert(at, column)
        of_run = {run.label: run for run in ours}
        for row in made["rows"]:
            if row["ours"]:
                cell = _cell(of_run[row["model"]], runs, column, figures)
            else:
                cell = {"value": float(np.mean([row["cells"][p]["value"] for p in places]))}
            row["cells"].insert(at, cell)
    return made


def _place(columns: Sequence[Mapping[str, Any]], benchmark: str, group: str) -> int:
    return next(
        place
        for place, column in enumerate(columns)
        if column.get("benchmark") == benchmark and column["group"] == group
    )


def _row(
    run: Run, runs: Sequence[Run], columns: Sequence[Mapping[str, Any]], figures: Figures
) -> dict[str, Any]:
    cells = [_cell(run, runs, column, figures) for column in columns]
    return {"section": OURS, "model": run.label, "ours": True, "cells": cells}


def _cell(
    run: Run, runs: Sequence[Run], column: Mapping[str, Any], figures: Figures
) -> dict[str, Any] | None:
    """A run's cell; None where it has no score for it."""
    if "mean_of" in column:
        return _average(run, column["mean_of"], runs, figures)
    name = column["benchmark"]
    found = figures.get((run.label, name), ())
    place = column.get("measure", 0)
    if place >= len(found):
        return None
    one = found[place]
    said = remarks(run, run.results[name], runs, found if place == 0 else ())
    return {"value": one.value, "low": one.low, "high": one.high, "remarks": said}


def _average(
    run: Run, names: Sequence[str], runs: Sequence[Run], figures: Figures
) -> dict[str, Any] | None:
    """The plain mean; benchmarks are drawn independently of each other."""
    found = [figures[run.label, name][0] for name in names if figures.get((run.label, name))]
    values = [one.value for one in found if one.value is not None]
    if len(values) < len(names):
        return None
    low, high = mean_interval(found)
    marked = any(remarks(run, run.results[name], runs, ()) for name in names)
    return {
        "value": sum(values) / len(values),
        "low": low,
        "high": high,
        "remarks": ["a mean of scores that have remarks of their own"] if marked else [],
    }


def _vcr_table(runs: Sequence[Run], figures: Figures) -> dict[str, Any]:
    paper = paper_vcr()
    columns = _columns(runs, list(paper.differences))
    told = " and ".join(
        f"{points:.2f} on the {name.removeprefix('vcr_')} setting"
        for name, points in paper.differences.items()
    )
    note = (
        f"The paper shows its scores as a diagram. In points, {paper.model} is above "
        f"{paper.other} by {told}; it does not say by which metric."
    )
    return {"name": paper.name, "title": paper.title, "note": note, "columns": columns,
            "rows": _own_rows(runs, columns, figures)}  # fmt: skip


def _other_table(runs: Sequence[Run], figures: Figures) -> dict[str, Any]:
    known = {name for table in paper_tables() for name in table.benchmarks}
    known |= set(paper_vcr().differences)
    names = dict.fromkeys(name for run in runs for name in run.results if name not in known)
    columns = _columns(runs, list(names))
    return {"name": "Other benchmarks", "title": "Not in the paper's tables", "note": "",
            "columns": columns, "rows": _own_rows(runs, columns, figures)}  # fmt: skip


def _columns(runs: Sequence[Run], names: Sequence[str]) -> list[dict[str, Any]]:
    """A column for each benchmark and measure of it."""
    columns = []
    for name in names:
        results = [run.results[name] for run in runs if name in run.results]
        if not results:
            continue
        measures = [one.score.metric.partition("@")[0]
                    for place in range(max(result.num_measures for result in results))
                    for one in results[0].scored(place)[:1]]  # fmt: skip
        columns += [
            {"group": results[0].title, "heading": measure.replace("_", " "),
             "benchmark": name, "measure": place}
            for place, measure in enumerate(measures)
        ]  # fmt: skip
    return columns


def _own_rows(
    runs: Sequence[Run], columns: Sequence[Mapping[str, Any]], figures: Figures
) -> list[dict[str, Any]]:
    names = {column["benchmark"] for column in columns}
    ours = [run for run in runs if names & run.results.keys()]
    return [_row(run, runs, columns, figures) for run in ours]
