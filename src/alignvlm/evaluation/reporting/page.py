"""report.html: the whole report in one file that needs nothing but a browser.

Answers, questions, names and reasons are strangers' text: all of it is escaped, images are decoded
and encoded again, and the page's content policy forbids scripts and requests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from alignvlm.evaluation.reporting.case_page import cases_section
from alignvlm.evaluation.reporting.markup import (
    between,
    difference_bar,
    interval_bar,
    number,
    percent,
    points,
    probability,
    section,
)
from alignvlm.evaluation.reporting.method import method, notes
from alignvlm.evaluation.reporting.pictures import Pictures
from alignvlm.markup import as_html, html_table

__all__ = ["render_html"]

_MOST_GROUPS = 60
_MOST_FAILURES = 60


def render_html(content: Mapping[str, Any], pictures: Sequence[Pictures]) -> str:
    """The page.

    Args:
        content: of report.json.
        pictures: of each of its cases.
    """
    labels = [run["label"] for run in content["runs"]]
    title = as_html(", ".join(labels))
    parts = [
        *(_paper_table(found, place) for place, found in enumerate(content["tables"], start=1)),
        _differences(content),
        _results(content),
        _groups(content),
        cases_section(content["cases"], pictures, _titles(content)),
        _failures(content["failures"]),
        section("method", "How it was computed", f"<ul>{_items(method(content))}</ul>"),
        _runs(content["runs"]),
    ]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'">
<title>{title} - alignvlm report</title>
<style>{files("alignvlm.evaluation.reporting").joinpath("report.css").read_text("utf-8")}</style>
</head>
<body>
<header><h1>{title}</h1>{_contents(content)}{_notes(content)}</header>
<main>{"".join(parts)}</main>
</body>
</html>
"""


def _items(lines: Sequence[str]) -> str:
    return "".join(f"<li>{as_html(line)}</li>" for line in lines)


def _contents(content: Mapping[str, Any]) -> str:
    tables = enumerate(content["tables"], start=1)
    links = [(f"table-{place}", found["name"]) for place, found in tables]
    has_groups = any(one["groups"] for one in content["results"])
    parts = (
        ("differences", "Differences", content["differences"]),
        ("results", "Scores", True),
        ("groups", "Groups", has_groups),
        ("cases", "Cases", content["cases"]),
        ("failures", "Failures", content["failures"]),
        ("method", "Method", True),
        ("runs", "Runs", True),
    )
    links += [(name, title) for name, title, is_there in parts if is_there]
    return "<nav>" + "".join(f'<a href="#{n}">{as_html(t)}</a>' for n, t in links) + "</nav>"


def _notes(content: Mapping[str, Any]) -> str:
    found = notes(content)
    return f'<ul class="notes">{_items(found)}</ul>' if found else ""


def _titles(content: Mapping[str, Any]) -> dict[str, str]:
    return {one["benchmark"]: one["title"] for one in content["results"]}


def _paper_table(found: Mapping[str, Any], place: int) -> str:
    """A table with the paper's rows, ours after them, and remarks below."""
    remarks: dict[str, int] = {}
    columns = found["columns"]
    over = "".join(f'<th colspan="{span}" scope="colgroup">{as_html(title)}</th>'
                   for title, span in _spans([c["group"] for c in columns]))  # fmt: skip
    groups = f"<tr><th></th>{over}</tr>" if any(c["group"] for c in columns) else ""
    names = "".join(f'<th class="number" scope="col">{as_html(c["heading"])}</th>' for c in columns)
    body, last = "", None
    for row in found["rows"]:
        if row["section"] != last and row["section"]:
            body += f'<tr class="part"><th colspan="{len(columns) + 1}" scope="rowgroup">' \
                    f'<span>{as_html(row["section"])}</span></th></tr>'  # fmt: skip
        last = row["section"]
        cells = "".join(_cell(cell, row["ours"], remarks) for cell in row["cells"])
        kind = ' class="ours"' if row["ours"] else ""
        body += f'<tr{kind}><th scope="row"><bdi>{as_html(row["model"])}</bdi></th>{cells}</tr>'
    below = "".join(f"<li>{as_html(said)}</li>" for said in remarks)
    return section(
        f"table-{place}",
        f"{found['name']}: {found['title']}",
        f'<div class="card wide paper"><table><thead>{groups}<tr><th scope="col">Model</th>{names}'
        f"</tr></thead><tbody>{body}</tbody></table></div>"
        + (f'<ol class="soft">{below}</ol>' if below else ""),
        as_html(found["note"]),
    )


def _spans(titles: Sequence[str]) -> list[tuple[str, int]]:
    """Neighbours of one title together."""
    found: list[tuple[str, int]] = []
    for title in titles:
        if found and found[-1][0] == title:
            found[-1] = (title, found[-1][1] + 1)
        else:
            found.append((title, 1))
    return found


def _cell(cell: Mapping[str, Any] | None, ours: bool, remarks: dict[str, int]) -> str:
    if cell is None:
        return '<td class="number none">–</td>'
    if not ours:
        return f'<td class="number">{percent(cell["value"])}</td>'
    marks = ",".join(
        str(remarks.setdefault(said, len(remarks) + 1)) for said in cell.get("remarks", ())
    )
    return f'<td class="number">{_score(cell)}{f"<sup>{marks}</sup>" if marks else ""}' \
           f"{_range(cell)}</td>"  # fmt: skip


def _score(cell: Mapping[str, Any]) -> str:
    return f"<b>{percent(cell['value'])}</b>"


def _range(cell: Mapping[str, Any]) -> str:
    said = between(cell)
    return f"<small>{said}</small>{interval_bar(cell)}" if said else ""


def _differences(content: Mapping[str, Any]) -> str:
    found = content["differences"]
    titles = _titles(content)
    ends = [abs(one[end]) for one in found for end in ("low", "high") if one[end] is not None]
    largest = max(ends, default=1.0)

    def row(one: Mapping[str, Any], name: str, rest: Sequence[str]) -> list[str]:
        span, bar = between(one, points), difference_bar(one, largest)
        pair = f"<bdi>{as_html(one['first'])}</bdi> − <bdi>{as_html(one['second'])}</bdi>"
        return [pair, name, f"<b>{points(one['difference'])}</b>", f"<small>{span}</small>", bar,
                *rest]  # fmt: skip

    rows = [
        row(one, as_html(titles[one["benchmark"]]), [
            f"{one['first_better']:,} : {one['second_better']:,}", f"{one['num_questions']:,}",
            as_html(one["test"]), probability(one["p"]), probability(one["p_holm"]),
            as_html(one["remark"]),
        ])
        for one in found
    ]  # fmt: skip
    rows += [
        row(one, as_html("mean of " + ", ".join(titles[name] for name in one["benchmarks"])),
            [""] * 6)
        for one in content["mean_differences"]
    ]  # fmt: skip
    head = ("runs", "benchmark", "#points", "#95 %", "", "#better : worse", "#questions", "test",
            "#p", "#p, Holm", "")  # fmt: skip
    return section("differences", "Differences between the runs", html_table(head, rows),
                   "On the questions that both were asked; better : worse counts questions on "
                   "which one run's score is the higher.")  # fmt: skip


def _results(content: Mapping[str, Any]) -> str:
    rows = []
    for one in content["results"]:
        for place, metric in enumerate(one["metrics"]):
            counts = [
                f"{one['num_questions']:,}", number(one["num_expected"]),
                f"{one['num_failed']:,}", f"{one['num_unparsed']:,}", f"{one['num_cut']:,}",
                number(one["seconds"], 2), number(one["tokens"], 1),
                as_html("; ".join(one["remarks"])),
            ]  # fmt: skip
            rows.append([
                f"<bdi>{as_html(one['run'])}</bdi>", as_html(one["title"]),
                f"<code>{as_html(metric['metric'])}</code>", f"{_score(metric)}{_range(metric)}",
                f"{metric['num_units']:,} {as_html(metric['units'])}",
                *(counts if place == 0 else [""] * 8),
            ])  # fmt: skip
    head = ("run", "benchmark", "metric", "#score", "#drawn", "#questions", "#expected", "#failed",
            "#not parsed", "#cut", "#seconds", "#tokens", "remarks")  # fmt: skip
    return section("results", "Scores", html_table(head, rows),
                   "Not parsed: the scorer found no answer of the expected kind. Cut: the answer "
                   "reached the largest number of tokens. Seconds and tokens are means of an "
                   "answer.")  # fmt: skip


def _groups(content: Mapping[str, Any]) -> str:
    labels = [run["label"] for run in content["runs"]]
    made = ""
    for benchmark, title in _titles(content).items():
        found = {one["run"]: {group["group"]: group for group in one["groups"]}
                 for one in content["results"] if one["benchmark"] == benchmark}  # fmt: skip
        names = list(dict.fromkeys(name for groups in found.values() for name in groups))
        asked = [label for label in labels if label in found]
        rows = []
        for name in names[:_MOST_GROUPS]:
            cells = [found[label].get(name) for label in asked]
            count = next(cell["num_questions"] for cell in cells if cell)
            rows.append(
                [f"<bdi>{as_html(name or '(none)')}</bdi>", f"{count:,}"]
                + ["–" if c is None else f"{_score(c)}{_range(c)}" for c in cells]
            )
        if len(names) > _MOST_GROUPS:
            more = f"{len(names) - _MOST_GROUPS:,} more, see report.json"
            rows.append([more, *[""] * (1 + len(asked))])
        if rows:
            head = ("group", "#questions", *(f"#{label}" for label in asked))
            made += f"<h3>{as_html(title)}</h3>{html_table(head, rows)}"
    return section("groups", "Groups of questions", made)


def _failures(found: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [f"<bdi>{as_html(one['run'])}</bdi>", as_html(one["benchmark"]),
         f"{one['num_failed']:,}", as_html(one["reason"]), as_html(one["example"]["id"]),
         as_html(one["example"]["error"])]
        for one in found[:_MOST_FAILURES]
    ]  # fmt: skip
    if len(found) > _MOST_FAILURES:
        rows.append([f"{len(found) - _MOST_FAILURES:,} more, see report.json", *[""] * 5])
    head = ("run", "benchmark", "#samples", "reason", "for example", "what was said")
    return section("failures", "Failed samples", html_table(head, rows), "Each counts as 0.")


def _runs(found: Sequence[Mapping[str, Any]]) -> str:
    parts = ""
    for run in found:
        text = json.dumps(run, indent=1, ensure_ascii=False)
        parts += (
            f'<details class="card"><summary><bdi>{as_html(run["label"])}</bdi></summary>'
            f"<pre>{as_html(text)}</pre></details>"
        )
    return section("runs", "Runs", parts)
