"""Run folders as `alignvlm eval` leaves them, written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from alignvlm.data.images import DrawnImage
from alignvlm.evaluation.question import Prediction, Question
from alignvlm.evaluation.scorers import PAPER_DIALECT, metric_name, score

Row = Mapping[str, Any]
WriteRun = Callable[..., Path]


def prediction(row: Row, dialect: str) -> Prediction:
    """From what a test says of it: id, measures, answers, raw and what else it wants."""
    measures = tuple(row.get("measures", ("anls",)))
    options = row.get("options", {})
    raw, error = row.get("raw"), row.get("error")
    scores: dict[str, Any] = dict(row.get("scores", {}))
    if not scores and error is None:
        for measure in measures:
            found = score(metric_name(measure, dialect), raw, row["answers"], **options)
            scores[found.metric] = {"value": found.value, "parts": dict(found.parts)}
    return Prediction(
        id=row["id"], group=row.get("group", ""), question=row.get("question", f"{row['id']}?"),
        prompt=row.get("prompt", "<image>\n?"), prompt_sha256=row.get("prompt_sha256", "0" * 64),
        answers=row["answers"], options=options, measures=measures, raw=raw, scores=scores,
        tokens=row.get("tokens", 3), complete=row.get("complete", True), error=error, seconds=0.25,
    )  # fmt: skip


@pytest.fixture
def reporting_write(tmp_path: Path) -> WriteRun:
    """Writes a run folder: name, {benchmark: rows}, then what its files hold besides."""

    def write(
        name: str,
        benchmarks: Mapping[str, Sequence[Row]],
        *,
        model: str = "",
        dialect: str = PAPER_DIALECT,
        records: Mapping[str, Row] | None = None,
        scores: Mapping[str, Any] | None = None,
        **facts: Any,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        record = {"model": model or name, "description": {"kind": "test"}, "limit": None,
                  "benchmarks": list(benchmarks), "score_dialect": dialect,
                  "prompt_dialect": dialect,
                  "started": "2026-11-22T10:00:00+00:00", **facts}  # fmt: skip
        (folder / "run.json").write_text(json.dumps(record), "utf-8")
        for benchmark, rows in benchmarks.items():
            inside = folder / benchmark
            inside.mkdir()
            about = {"name": benchmark, "title": benchmark.title(), "headline": "mean",
                     "num_expected": len(rows), "num_questions": len(rows),
                     **(records or {}).get(benchmark, {})}  # fmt: skip
            (inside / "benchmark.json").write_text(json.dumps(about), "utf-8")
            lines = [json.dumps(prediction(row, dialect).to_record()) for row in rows]
            (inside / "predictions.jsonl").write_text("".join(f"{x}\n" for x in lines), "utf-8")
            if scores and benchmark in scores:
                (inside / "scores.json").write_text(json.dumps(scores[benchmark]), "utf-8")
        return folder

    return write


@pytest.fixture
def reporting_questions() -> Callable[[Sequence[Row]], list[Question]]:
    """The questions of rows with a page drawn for each."""

    def make(rows: Sequence[Row]) -> list[Question]:
        made = []
        for number, row in enumerate(rows):
            image = Image.new("RGB", (300, 200), (250, 250, 240))
            ImageDraw.Draw(image).text((20, 20), f"Page {number}", fill="black")
            made.append(Question(
                id=row["id"], text=row.get("question", ""), answers=row["answers"],
                measures=tuple(row.get("measures", ("anls",))),
                images=(DrawnImage(image, f"page {number}"),),
            ))  # fmt: skip
        return made

    return make
