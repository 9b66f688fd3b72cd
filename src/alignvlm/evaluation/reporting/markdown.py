"""report.md: the tables and tests as text, for a repository or an issue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alignvlm.evaluation.reporting.markup import between, number, percent, points, probability
from alignvlm.evaluation.reporting.method import method, notes
from alignvlm.evaluation.reporting.text import as_markdown
from alignvlm.markup import markdown_table

__all__ = ["render_markdown"]


def render_markdown(content: Mapping[str, Any]) -> str:
    """The report as Markdown; questions and answers are on the page and in the JSON alone."""
    labels = ", ".join(as_markdown(run["label"]) for run in content["runs"])
    titles = {one["benchmark"]: as_markdown(one["title"]) for one in content["results"]}
    parts = [
        f"# {labels}",
        _list(notes(content)),
        *(_paper_table(table) for table in content["tables"]),
        _differences(content, titles),
        _results(content["results"]),
        _groups(content, titles),
        _failures(content["failures"]),
        "## How it was computed",
        _list(method(content)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {as_markdown(line)}" for line in lines)


def _paper_table(table: Mapping[str, Any]) -> str:
    columns = table["columns"]
    head = ["Model"]
    for column in columns:
        group = f"{column['group']}: " if column["group"] and len(columns) > 1 else ""
        head.append(f"#{as_markdown(group + column['heading'])}")
    remarks: dict[str, int] = {}
    rows, last = [], ""
    for row in table["rows"]:
        if row["section"] and row["section"] != last:
            rows.append([f"*{as_markdown(row['section'])}*", *[""] * len(columns)])
        last = row["section"]
        name = as_markdown(row["model"])
        cells = [_cell(cell, row["ours"], remarks) for cell in row["cells"]]
        rows.append([f"**{name}**" if row["ours"] else name, *cells])
    below = [f"{place}. {as_markdown(said)}" for said, place in remarks.items()]
    parts = [f"## {as_markdown(table['name'])}: {as_markdown(table['title'])}",
             as_markdown(table["note"]), markdown_table(head, rows), "\n".join(below)]  # fmt: skip
    return "\n\n".join(part for part in parts if part)


def _cell(cell: Mapping[str, Any] | None, ours: bool, remarks: dict[str, int]) -> str:
    if cell is None:
        return "–"
    if not ours:
        return percent(cell["value"])
    marks = ",".join(
        str(remarks.setdefault(said, len(remarks) + 1)) for said in cell.get("remarks", ())
    )
    return f"**{percent(cell['value'])}**{_range(cell)}{f' [{marks}]' if marks else ''}"


def _range(cell: Mapping[str, Any]) -> str:
    said = between(cell)
    return f" ({said})" if said else ""


def _differences(content: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    def row(one: Mapping[str, Any], name: str, rest: Sequence[str]) -> list[str]:
        pair = f"{as_markdown(one['first'])} − {as_markdown(one['second'])}"
        return [pair, name, points(one["difference"]), between(one, points), *rest]

    rows = [
        row(one, titles[one["benchmark"]], [
            f"{one['first_better']:,} : {one['second_better']:,}", f"{one['num_questions']:,}",
            one["test"], probability(one["p"]).replace("<", "\\<"),
            probability(one["p_holm"]).replace("<", "\\<"), as_markdown(one["remark"]),
        ])
        for one in content["differences"]
    ]  # fmt: skip
    rows += [
        row(one, "mean of " + ", ".join(titles[name] for name in one["benchmarks"]), [""] * 6)
        for one in content["mean_differences"]
    ]
    if not rows:
        return ""
    head = ("runs", "benchmark", "#points", "#95 %", "#better : worse", "#questions", "test", "#p",
            "#p, Holm", "remarks")  # fmt: skip
    return f"## Differences between the runs\n\n{markdown_table(head, rows)}"


def _results(results: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for one in results:
        for place, metric in enumerate(one["metrics"]):
            counts = [
                f"{one['num_questions']:,}", number(one["num_expected"]), f"{one['num_failed']:,}",
                f"{one['num_unparsed']:,}", f"{one['num_cut']:,}", number(one["seconds"], 2),
                number(one["tokens"], 1), as_markdown("; ".join(one["remarks"])),
            ]  # fmt: skip
            rows.append([
                as_markdown(one["run"]), as_markdown(one["title"]), as_markdown(metric["metric"]),
                f"{percent(metric['value'])}{_range(metric)}",
                f"{metric['num_units']:,} {metric['units']}",
                *(counts if place == 0 else [""] * 8),
            ])  # fmt: skip
    head = ("run", "benchmark", "metric", "#score", "#drawn", "#questions", "#expected", "#failed",
            "#not parsed", "#cut", "#seconds", "#tokens", "remarks")  # fmt: skip
    return f"## Scores\n\n{markdown_table(head, rows)}"


def _groups(content: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    rows = [
        [titles[one["benchmark"]], as_markdown(group["group"] or "(none)"),
         as_markdown(one["run"]), f"{percent(group['value'])}{_range(group)}",
         f"{group['num_questions']:,}"]
        for one in content["results"]
        for group in one["groups"]
    ]  # fmt: skip
    if not rows:
        return ""
    head = ("benchmark", "group", "run", "#score", "#questions")
    return f"## Groups of questions\n\n{markdown_table(head, rows)}"


def _failures(found: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [as_markdown(one["run"]), as_markdown(one["benchmark"]), f"{one['num_failed']:,}",
         as_markdown(one["reason"]), as_markdown(one["example"]["id"])]
        for one in found
    ]  # fmt: skip
    if not rows:
        return ""
    head = ("run", "benchmark", "#samples", "reason", "for example")
    return f"## Failed samples\n\n{markdown_table(head, rows)}"
