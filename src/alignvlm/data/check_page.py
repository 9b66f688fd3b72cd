"""A report of `alignvlm.data.check` as one HTML file that needs nothing but a browser.

Everything in it comes from a stranger's file: all text is escaped, pictures are encoded again,
and the file's content security policy runs no script and forbids every request.
"""

from __future__ import annotations

import base64
import html
import io

from PIL import Image

from alignvlm.data.check import Example, Histogram, Report

__all__ = ["render_html"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem;
  color: #1d1d1f; background: #fff; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem .2rem 0; text-align: left;
  vertical-align: top; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
.bar { background: #4c78a8; height: .8rem; min-width: 1px; }
.example { border: 1px solid #ccc; border-radius: 6px; padding: 1rem; margin: 1rem 0; }
.example img { max-width: 100%; border: 1px solid #ddd; margin-right: .5rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: .8rem 0 0; font-size: 13px; }
mark { background: #cdebc5; color: inherit; } .image { color: #8a5a00; }
@media (prefers-color-scheme: dark) { body { background: #1d1d1f; color: #eee; }
  mark { background: #2c5d2a; } .image { color: #e0b060; } .example { border-color: #555; } }
"""


def render_html(report: Report) -> str:
    """The page: counts, broken rows, histograms, and examples with what is learned marked."""
    title = html.escape(f"{report.source}: {report.path}")
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{title}</h1>",
        _facts(report),
        _broken(report),
        _histogram("Text tokens of a row, images not counted", report.tokens),
        _histogram("Tiles of a row", report.tiles),
    ]
    if report.examples:
        parts.append("<h2>Examples</h2><p>What is learned is <mark>marked</mark>.</p>")
        parts += [_example(example) for example in report.examples]
    return "\n".join([*parts, "</body></html>", ""])


def _facts(report: Report) -> str:
    rows = {
        "rows": report.num_rows,
        "rows checked": report.num_checked,
        "broken rows": report.num_broken,
        "images": report.num_images,
        "supervised tokens": report.num_supervised,
    }
    return _table([(name, f"{number:,}") for name, number in rows.items()])


def _broken(report: Report) -> str:
    if not report.num_broken:
        return ""
    reasons = [(html.escape(reason), f"{count:,}") for reason, count in report.reasons.items()]
    rows = [(html.escape(row.reason), f"{row.row:,}") for row in report.broken]
    return (
        f"<h2>Why rows are broken</h2>{_table(reasons)}"
        f"<details><summary>The first {len(rows)}</summary>{_table(rows)}</details>"
    )


def _histogram(title: str, histogram: Histogram | None) -> str:
    if histogram is None:
        return ""
    most = max(histogram.counts)
    lines = []
    for number, count in enumerate(histogram.counts):
        low, high = histogram.edges[number], histogram.edges[number + 1] - 1
        span = f"{low:g}" if low >= high else f"{low:g} - {high:g}"
        bar = f'<div class="bar" style="width: {300 * count / most:.0f}px"></div>' if count else ""
        cells = f'<td class="number">{span}</td><td class="number">{count:,}</td><td>{bar}</td>'
        lines.append(f"<tr>{cells}</tr>")
    return (
        f"<h2>{title}</h2><p>median {histogram.median:g}, 95 % below {histogram.p95:g}, largest "
        f"{histogram.largest:,}, {histogram.total:,} in all</p><table>{''.join(lines)}</table>"
    )


def _example(example: Example) -> str:
    pictures = "".join(f'<img alt="" src="{_data_url(image)}">' for image in example.images)
    tags = {"answer": ("<mark>", "</mark>"), "image": ('<span class="image">', "</span>")}
    text = ""
    for piece in example.pieces:
        before, after = tags.get(piece.kind, ("", ""))
        text += f"{before}{html.escape(piece.text)}{after}"
    return (
        f'<div class="example"><h3>{html.escape(example.key)}</h3>{pictures}<pre>{text}</pre></div>'
    )


def _table(rows: list[tuple[str, str]]) -> str:
    lines = (f'<tr><td>{name}</td><td class="number">{value}</td></tr>' for name, value in rows)
    return f"<table>{''.join(lines)}</table>"


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
