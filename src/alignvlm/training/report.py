"""report.html: what a run did, in one file that needs nothing but a browser.

All of it comes from the run folder's files, whatever of them is there. Keys, names and reasons
are strangers' text: they are escaped, and the page's content policy forbids scripts and requests.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from alignvlm.files import write_atomically
from alignvlm.markup import as_html, html_table
from alignvlm.training.curves import Chart, Series, compact, draw, smoothed
from alignvlm.training.report_data import RunData, read_run

__all__ = ["REPORT", "write_report"]

REPORT = "report.html"

_MOST_OTHERS = 24  # charts of keys that this page knows nothing about
_MOST_RATES = 6
_MOST_REASONS = 30
_WAITING = 0.05  # share of the time that is worth a remark


class _Plan(NamedTuple):
    """A chart: title, keys with their labels, and options of `Chart`; its section."""

    section: str
    title: str
    keys: Mapping[str, str]
    options: Mapping[str, Any]


_HEALTH = "Connector"
_SPEED = "Speed and memory"
_PLANS = (
    _Plan("Learning", "Loss", {"loss": "loss"}, {"smooth": True, "may_be_log": True}),
    _Plan("Learning", "Gradient norm", {"gradient_norm": "norm"},
          {"smooth": True, "may_be_log": True}),
    _Plan(_SPEED, "Tokens a second",
          {"text_tokens_per_s": "text", "visual_tokens_per_s": "visual"}, {"smooth": True}),
    _Plan(_SPEED, "Tiles and samples a second",
          {"tiles_per_s": "tiles", "samples_per_s": "samples"}, {"smooth": True}),
    _Plan(_SPEED, "Seconds a step", {"seconds_per_step": "seconds", "step_s": "seconds"},
          {"smooth": True, "may_be_log": True, "unit": " s"}),
    _Plan(_SPEED, "Waiting for data", {"data_wait_share": "share of the time"},
          {"from_zero": True, "smooth": True, "scale": 100, "unit": " %"}),
    _Plan(_SPEED, "Padding", {"padding_share": "share of positions"},
          {"from_zero": True, "smooth": True, "scale": 100, "unit": " %"}),
    _Plan(_SPEED, "Model FLOPs utilisation", {"mfu": "of the peak"},
          {"smooth": True, "scale": 100, "unit": " %"}),
    _Plan(_SPEED, "Peak memory", {"peak_memory_bytes": "most so far"},
          {"from_zero": True, "scale": 1e-9, "unit": " GB"}),
    _Plan(_HEALTH, "Cosine between patches",
          {"health/token_cosine": "visual tokens", "health/feature_cosine": "vision features"}, {}),
    _Plan(_HEALTH, "Words that a patch spreads over", {"health/effective_words": "exp(entropy)"},
          {"may_be_log": True}),
    _Plan(_HEALTH, "Most probable word",
          {"health/max_probability": "of a patch", "health/top_word_share": "over all patches"},
          {"may_be_log": True}),
    _Plan(_HEALTH, "Words with a mean probability of 1e-6 or more", {"health/num_words": "words"},
          {"may_be_log": True}),
    _Plan(_HEALTH, "Distance from the mean embedding",
          {"health/mean_distance": "in spreads of the embeddings"}, {}),
    _Plan(_HEALTH, "Norm of visual tokens", {"health/norm_ratio": "over that of embeddings"}, {}),
)  # fmt: skip


def write_report(run_folder: Path) -> Path:
    """Write `report.html` into a run folder, finished or not; all of it or nothing.

    Returns:
        Its path.
    """
    path = run_folder / REPORT
    write_atomically(path, _page(read_run(run_folder)))
    return path


def _page(run: RunData) -> str:
    recipe = run.recipe.get("recipe")
    of = f'<p class="soft">Recipe <code>{as_html(recipe)}</code></p>' if recipe else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{as_html(run.name)} - alignvlm</title>
<style>{files("alignvlm.training").joinpath("report.css").read_text(encoding="utf-8")}</style>
</head>
<body>
<header><h1>{as_html(run.name)}</h1>{of}{_facts(run)}{_notes(run)}</header>
<main>{_curves(run)}{_tables(run)}</main>
</body>
</html>
"""


def _facts(run: RunData) -> str:
    """The few numbers at the top."""
    facts = [_progress(run), _loss(run), _time(run)]
    speed = [run.values("text_tokens_per_s"), run.values("visual_tokens_per_s")]
    if any(speed):
        total = sum(median(values) for values in speed if values)
        facts.append(("Tokens a second", compact(total), "median, text and visual"))
    for title, key in (("MFU", "mfu"), ("Waiting for data", "data_wait_share")):
        if values := run.values(key):
            facts.append((title, f"{100 * median(values):.3g} %", "median"))
    if memory := run.values("peak_memory_bytes"):
        facts.append(("Peak memory", f"{max(memory) / 1e9:.3g} GB", "of one process"))
    cards = "".join(
        f'<div class="card">{as_html(title)}<b>{as_html(value)}</b>{as_html(note)}</div>'
        for title, value, note in filter(None, facts)
    )
    return f'<div class="facts">{cards}</div>'


def _progress(run: RunData) -> tuple[str, str, str]:
    if run.num_steps is None:
        return "Steps", f"{run.last_step:,}", "done"
    left = run.num_steps - run.last_step
    note = "finished" if left <= 0 else f"{left:,} still to do"
    return "Steps", f"{run.last_step:,}", f"of {run.num_steps:,}, {note}"


def _loss(run: RunData) -> tuple[str, str, str] | None:
    values = run.values("loss")
    if not values:
        return None
    return "Loss", compact(smoothed(values)[-1]), f"moving mean; {compact(values[0])} at first"


def _time(run: RunData) -> tuple[str, str, str] | None:
    """The sum of the steps' own seconds: breaks and restarts are not in it."""
    column = run.columns.get("seconds_per_step") or run.columns.get("step_s")
    if column is None:
        return None
    gaps = [b - a for a, b in zip([0.0, *column.steps], column.steps, strict=False)]
    seconds = sum(gap * value for gap, value in zip(gaps, column.values, strict=True))
    return "Time in steps", _duration(seconds), f"{compact(median(column.values))} s a step"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def _notes(run: RunData) -> str:
    """What a person should look at, the bad first."""
    notes = sorted(_found(run), key=lambda note: not note[0])
    items = "".join(
        f'<li class="{"bad" if is_bad else "hint"}">{as_html(text)}</li>' for is_bad, text in notes
    )
    return f'<ul class="notes">{items}</ul>' if items else ""


def _found(run: RunData) -> Iterable[tuple[bool, str]]:
    if run.warned:
        checks = run.columns["health/token_cosine"].steps
        first, last = run.warned[0][0], run.warned[-1][0]
        now = last >= checks[-1]
        when = f"From step {first:,.0f} to {last:,.0f}" if now else f"Until step {last:,.0f}"
        share = f"{len(run.warned)} of {run.num_checks} checks"
        after = "" if now else " It has recovered since."
        yield now, f"{when} ({share}): {run.warned[-1][1]}.{after}"
    if count := run.not_finite.get("loss", 0):
        yield True, f"Steps whose loss was no finite number, left out of the curve: {count:,}."
    if run.bad_steps:
        yield True, f"Steps that ended the run are described in {', '.join(run.bad_steps[:5])}."
    waits = run.values("data_wait_share")
    if waits and median(waits) > _WAITING:
        yield (
            False,
            (
                f"Training waited for data {100 * median(waits):.0f} % of the time (median): give "
                "it more num_workers."
            ),
        )
    if run.quarantine:
        count = sum(number for number, _ in run.quarantine.values())
        yield False, f"Samples that could not be used, see the table below: {count:,}."
    if run.num_damaged:
        yield False, f"Damaged lines of log.jsonl, left out here: {run.num_damaged:,}."
    versions = {json.dumps(start.get("versions"), sort_keys=True) for start in run.starts}
    if len(versions) > 1:
        yield False, "The run was resumed with other versions of packages, see starts.jsonl."
    if not run.columns:
        yield False, "The log holds no numbers yet."


def _curves(run: RunData) -> str:
    sections: dict[str, list[str]] = {}
    used = set()
    for plan in _all_plans(run):
        series = [
            replace(run.columns[key], name=label)
            for key, label in plan.keys.items()
            if key in run.columns
        ]
        if len(series) > 1 and plan.title == "Seconds a step":
            series = series[:1]  # two names for the same thing
        used |= set(plan.keys)
        warned = [step for step, _ in run.warned] if plan.section == _HEALTH else []
        chart = Chart(title=plan.title, series=series, marks=run.resumed_at, warned=warned,
                      **plan.options)  # fmt: skip
        if drawn := draw(chart):
            sections.setdefault(plan.section, []).append(drawn)
    if rates := _rates_chart(run):
        sections.setdefault("Learning", []).insert(1, rates)
    used |= {"health/entropy", *_with(run, "learning_rate")}  # exp(entropy) says the same
    others = [series for key, series in run.columns.items() if key not in used]
    drawn_others = [
        draw(Chart(title=series.name, series=[replace(series, name="value")], smooth=True,
                   may_be_log=True, marks=run.resumed_at))
        for series in others[:_MOST_OTHERS]
    ]  # fmt: skip
    if drawn_others:
        sections["Also logged"] = drawn_others
    more = len(others) - _MOST_OTHERS
    return (
        _key(run)
        + "".join(
            _section(title, f'<div class="curves">{"".join(charts)}</div>')
            for title, charts in sections.items()
        )
        + (f'<p class="soft">{more} further keys are in log.jsonl alone.</p>' if more > 0 else "")
    )


def _key(run: RunData) -> str:
    said = []
    if run.resumed_at:
        said.append("Dashed lines: the run was resumed.")
    if run.warned:
        said.append("Red dots: the connector had collapsed.")
    return f'<p class="soft key-line">{" ".join(said)}</p>' if said else ""


def _all_plans(run: RunData) -> list[_Plan]:
    """The charts of this run: what it was evaluated on has keys of its own."""
    scores = [
        _Plan("Evaluation", key.removeprefix("eval/"), {key: "score"}, {})
        for key in _with(run, "eval/")
    ]
    return [*_PLANS[:2], *scores, *_PLANS[2:]]


def _rates_chart(run: RunData) -> str:
    """The learning rates; where the parts' peaks are far apart, as powers of ten from 2 % on."""
    found = [run.columns[key] for key in _with(run, "learning_rate")][:_MOST_RATES]
    rates = [replace(one, name=one.name.partition("/")[2] or "rate") for one in found]
    peaks = [peak for one in rates if (peak := max(one.values)) > 0]
    far = len(peaks) > 1 and max(peaks) > 10 * min(peaks)
    if far:
        rates = [_above(one, 0.02 * max(one.values)) for one in rates if max(one.values) > 0]
    return draw(Chart(title="Learning rate", series=rates, may_be_log=far, marks=run.resumed_at))


def _above(one: Series, least: float) -> Series:
    kept = [(s, v) for s, v in zip(one.steps, one.values, strict=True) if v >= least]
    return replace(one, steps=[s for s, _ in kept], values=[v for _, v in kept])


def _with(run: RunData, prefix: str) -> list[str]:
    return [key for key in run.columns if key.startswith(prefix)]


def _tables(run: RunData) -> str:
    trained = [
        (
            as_html(part.get("part", "")),
            _count(part.get("num_parameters")),
            _count(part.get("num_trained")),
            _rate(part.get("learning_rate")),
            _count(part.get("num_decayed")),
        )
        for part in run.trained_parts
    ]
    checkpoints = [
        (f"{point.step:,}", _bytes(point.num_bytes), as_html(point.written))
        for point in reversed(run.checkpoints)
    ]
    return "".join((
        _table("What trains", ("part", "#parameters", "#trained", "#peak learning rate",
                               "#under weight decay"), trained),
        _table("Samples that could not be used", ("reason", "kind", "#samples", "for example"),
               _reasons(run)),
        _table("Starts", ("when", "#from step", "#processes", "device", "commit", "command"),
               _starts(run)),
        _table("Checkpoints", ("#step", "#size", "written"), checkpoints),
        _folded("Recipe", run.recipe),
        _folded("Environment", run.environment),
    ))  # fmt: skip


def _reasons(run: RunData) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        (as_html(reason), as_html(kind), f"{count:,}", as_html(example))
        for (reason, kind), (count, example) in run.quarantine.items()
    ]
    if len(rows) > _MOST_REASONS:
        rest = sum(count for count, _ in list(run.quarantine.values())[_MOST_REASONS:])
        rows = [*rows[:_MOST_REASONS], ("other reasons, see quarantine.jsonl", "", f"{rest:,}", "")]
    return rows


def _starts(run: RunData) -> list[tuple[str, ...]]:
    return [
        (
            as_html(str(start.get("time", "")).replace("T", " ").replace("+00:00", " UTC")),
            _count(start.get("step")),
            _count(start.get("processes")),
            as_html(start.get("device", "")),
            f"<code>{as_html(_short(str(start.get('commit', ''))))}</code>",
            f"<code>{as_html(start.get('command', ''))}</code>",
        )
        for start in run.starts
    ]


def _short(commit: str) -> str:
    name, dash, state = commit.partition("-")
    return f"{name[:10]}{dash}{state}"


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else ""


def _bytes(number: int) -> str:
    short = compact(number)
    return f"{short[:-1]} {short[-1]}B" if short[-1].isalpha() else f"{short} B"


def _rate(value: Any) -> str:
    return compact(value) if isinstance(value, (int, float)) else "frozen"


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return _section(title, html_table(head, rows)) if rows else ""


def _section(title: str, body: str) -> str:
    return f"<section><h2>{as_html(title)}</h2>{body}</section>"


def _folded(title: str, content: Mapping[str, Any]) -> str:
    if not content:
        return ""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    return (
        f'<section><details class="card"><summary>{as_html(title)}</summary>'
        f"<pre>{as_html(text)}</pre></details></section>"
    )
