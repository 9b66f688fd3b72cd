"""The report's three files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from alignvlm.errors import UsageError
from alignvlm.evaluation.reporting.estimates import Draws
from alignvlm.evaluation.reporting.markdown import render_markdown
from alignvlm.evaluation.reporting.page import render_html
from alignvlm.evaluation.reporting.pictures import Gallery, Pictures, open_benchmark
from alignvlm.evaluation.reporting.runs import Result, Run
from alignvlm.evaluation.reporting.summary import Summary, summarise
from alignvlm.evaluation.running.folder import check_folder
from alignvlm.files import write_atomically

__all__ = ["check_target", "write_report"]

_FILES = ("report.json", "report.md", "report.html")


def write_report(
    runs: Sequence[Run],
    folder: Path,
    draws: Draws | None = None,
    *,
    num_cases: int = 4,
    with_images: bool = True,
    open_again: Callable[[Result], Any] = open_benchmark,
) -> list[Path]:
    """Write report.json, report.md and report.html, each whole or not at all.

    The same runs, and the same data where images are shown, give the same files.

    Args:
        runs: see `read_runs`.
        folder: is made if need be.
        draws: for intervals and tests.
        num_cases: shown at most, of each kind and benchmark.
        with_images: of the cases.
        open_again: the questions of a run's benchmark, for their images.

    Returns:
        The files' paths.

    Raises:
        InputError: scores of one benchmark cannot be put together.
        UsageError: see `check_target`.
    """
    check_target(folder)
    summary = summarise(runs, draws or Draws(), num_cases)
    pictures = _pictures(runs, summary, open_again if with_images else None)
    texts = (
        json.dumps(summary.content, indent=1, ensure_ascii=False) + "\n",
        render_markdown(summary.content),
        render_html(summary.content, pictures),
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in zip(_FILES, texts, strict=True):
        write_atomically(folder / name, text)
    return [folder / name for name in _FILES]


def check_target(folder: Path) -> None:
    """Refuse a place for a report before anything is computed.

    Raises:
        UsageError: a file is where the folder should be, or it holds a report of another kind, as
            the folders of `alignvlm train` and `alignvlm compare` do.
    """
    remedy = "name another place for the report"
    check_folder(folder, remedy)
    known, other = _FILES[0], _FILES[-1]
    if (folder / other).exists() and not (folder / known).exists():
        raise UsageError(f"{str(folder)!r} holds a {other} that `alignvlm report` did not write: "
                         f"{remedy}")  # fmt: skip


def _pictures(
    runs: Sequence[Run], summary: Summary, open_again: Callable[[Result], Any] | None
) -> list[Pictures]:
    """Of each case."""
    if open_again is None:
        return [Pictures() for _ in summary.cases]
    gallery = Gallery(open_again)
    found = []
    for _, case in summary.cases:
        by_label = {run.label: run.results.get(case.benchmark) for run in runs}
        result = by_label[case.said[0].run]
        assert result is not None
        found.append(gallery.show(case, result))
    return found
