"""What a comparison has found, on disk: JSON, tables, curves, and one page with examples."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from alignvlm.analysis.compare import plots
from alignvlm.analysis.compare.pages import TEST_SEED, draw_pages
from alignvlm.analysis.compare.plan import Comparison
from alignvlm.analysis.compare.summary import summarise
from alignvlm.analysis.compare.tables import Table, as_csv, as_markdown, curves_as_csv, tables
from alignvlm.environment import environment
from alignvlm.files import write_atomically
from alignvlm.markup import as_html, html_table
from alignvlm.training.curves import compact

__all__ = ["write_report"]

_SHOWN = {
    "losses.png": "Training loss of each connector at the largest budget",
    "efficiency.png": "ANLS and held-out loss of each connector against the samples trained on",
}

_STYLE = """
.wide td { white-space: nowrap; }
figure { margin-bottom: 0.9rem; }
figure.page { margin: 0; padding: 0.4rem; background: #fff; }
.right { color: var(--good); } .wrong { color: var(--bad); } .nearly { color: var(--hint); }
img { max-width: 100%; }
"""


def write_report(comparison: Comparison, out: Path) -> list[Path]:
    """Write what the cells that are done have found.

    Returns:
        The files: results.json, table.md, table.csv, losses.csv, report.html, losses.png,
        efficiency.png.

    Raises:
        MissingDependencyError: there is no matplotlib.
    """
    results = {**summarise(comparison, out), "run": environment()}
    made = tables(results)
    pictures = {"losses.png": plots.losses(results), "efficiency.png": plots.efficiency(results)}
    texts = {
        "results.json": json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "table.md": as_markdown(made),
        "table.csv": as_csv(results),
        "losses.csv": curves_as_csv(results),
        "report.html": _page(comparison, results, made, pictures),
    }
    contents: dict[str, str | bytes] = {**texts, **pictures}
    for name, content in contents.items():
        write_atomically(out / name, content)
    return [out / name for name in contents]


def _page(
    comparison: Comparison,
    results: Mapping[str, Any],
    made: Sequence[Table],
    pictures: Mapping[str, bytes],
) -> str:
    style = files("alignvlm.training").joinpath("report.css").read_text(encoding="utf-8")
    part = "" if results["cells"] == results["cells_wanted"] else (
        f" So far {results['cells']} of {results['cells_wanted']} scored runs are done."
    )  # fmt: skip
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>Connectors compared - alignvlm</title>
<style>{style}{_STYLE}</style>
</head>
<body>
<header><h1>Connectors compared</h1>
<p class="soft">Recipe <code>{as_html(comparison.recipe.recipe)}</code>, the same data, order,
steps and start for all.{part}</p></header>
<main>{_curves(pictures)}{"".join(map(_table, made))}{_examples(comparison, results)}</main>
</body>
</html>
"""


def _curves(pictures: Mapping[str, bytes]) -> str:
    drawn = "".join(
        f'<figure><img alt="{_SHOWN[name]}" src="{_inline(content)}"></figure>'
        for name, content in pictures.items()
    )
    return f"<section><h2>Curves</h2>{drawn}</section>"


def _inline(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _table(table: Table) -> str:
    rows = [[as_html(cell) for cell in row] for row in table.rows]
    return f"<section><h2>{as_html(table.title)}</h2>{html_table(table.columns, rows)}</section>"


def _examples(comparison: Comparison, results: Mapping[str, Any]) -> str:
    """The same pages as every connector has answered them."""
    examples = results["examples"]
    if not examples:
        return ""
    pages = draw_pages(comparison.recipe, TEST_SEED, len(examples))
    blocks = []
    for page, example in zip(pages, examples, strict=True):
        buffer = io.BytesIO()
        page.image.save(buffer, "PNG")
        said = "".join(_said(name, one) for name, one in example["said"].items())
        blocks.append(
            f'<tr><td><figure class="page"><img alt="{as_html(example["key"])}" '
            f'src="{_inline(buffer.getvalue())}"></figure></td><td>{as_html(example["question"])}<br>'
            f"<b>{as_html(example['answer'])}</b></td><td>{said}</td></tr>"
        )
    return (
        f"<section><h2>Answers to the same pages after {compact(results['examples_budget'])} "
        "samples, first seed</h2>"
        '<table class="said"><thead><tr><th>page</th><th>question and answer</th>'
        f"<th>said by</th></tr></thead><tbody>{''.join(blocks)}</tbody></table></section>"
    )


def _said(name: str, one: Mapping[str, Any]) -> str:
    kind = "right" if one["exact"] else "nearly" if one["anls"] else "wrong"
    mark = {"right": "✓", "nearly": "≈", "wrong": "✗"}[kind]
    text = as_html(one["answer"]) or "nothing"
    return f'<div><small>{as_html(name)}</small> <span class="{kind}">{mark} {text}</span></div>'
