"""Runs of `alignvlm eval` as the report reads them: predictions with their scores."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignvlm.errors import InputError, UsageError
from alignvlm.evaluation.question import Prediction
from alignvlm.evaluation.reporting.paper import paper_tables, paper_vcr
from alignvlm.evaluation.reporting.text import quoted
from alignvlm.evaluation.reporting.units import Scored
from alignvlm.evaluation.running.folder import BenchmarkFolder
from alignvlm.evaluation.running.scoring import (
    check_dialect,
    is_poolable,
    missed_score,
    score_again,
)
from alignvlm.evaluation.scorers import PAPER_DIALECT, Score, metric_name

__all__ = ["Result", "Run", "read_runs"]

PREDICTIONS = "predictions.jsonl"


@dataclass(frozen=True, kw_only=True)
class Result:
    """One benchmark of a run.

    Attributes:
        name: of the benchmark.
        record: what `benchmark.json` holds.
        reported: what `scores.json` holds, empty without it.
        predictions: in the benchmark's order.
        scores: of each prediction, one for each of its measures; a failed one has 0 for all.
    """

    name: str
    record: Mapping[str, Any]
    reported: Mapping[str, Any]
    predictions: tuple[Prediction, ...]
    scores: tuple[tuple[Score, ...], ...]

    @property
    def headline(self) -> str:
        """How the set's score is made: "mean" or "mean_of_groups"."""
        return str(self.record.get("headline", "mean"))

    @property
    def title(self) -> str:
        """What people call it."""
        return str(self.record.get("title") or self.name)

    @property
    def num_expected(self) -> int | None:
        """Questions that the benchmark has, None if that is not known."""
        number = self.record.get("num_expected")
        return number if isinstance(number, int) else None

    def scored(self, place: int = 0) -> list[Scored]:
        """The scores by each question's measure number `place`; the first is the one that counts.

        A question that could not even be read, so that its group is not known, is in all groups.

        Raises:
            IndexError: a question has fewer measures.
        """
        every = ",".join(self.groups)
        return [
            Scored(one.id, one.group or (every if one.error else ""), found[place])
            for one, found in zip(self.predictions, self.scores, strict=True)
        ]

    @property
    def groups(self) -> list[str]:
        """Of its questions, in the order in which they first come."""
        return list(dict.fromkeys(
            name.strip() for one in self.predictions if one.group for name in one.group.split(",")
        ))  # fmt: skip

    @property
    def num_measures(self) -> int:
        """Measures that every question has."""
        return min((len(found) for found in self.scores), default=0)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run folder.

    Attributes:
        name: of the folder.
        label: what tables call it, unlike every other run's.
        record: what `run.json` holds.
        dialect: of the scores.
        results: the benchmarks that are done, by name.
        unfinished: those that are not.
    """

    name: str
    label: str
    record: Mapping[str, Any]
    dialect: str
    results: Mapping[str, Result]
    unfinished: tuple[str, ...]

    @property
    def prompt_dialect(self) -> str:
        """Whose prompts the model was given."""
        return str(self.record.get("prompt_dialect", ""))


def read_runs(
    folders: Sequence[Path],
    dialect: str | None = None,
    benchmarks: Sequence[str] | None = None,
) -> list[Run]:
    """Read run folders.

    Args:
        folders: of runs.
        dialect: score the saved answers in this one; None: take the scores that are there.
        benchmarks: only these; None: all.

    Raises:
        UsageError: there is no run, or none has a benchmark that was asked for, or the runs were
            scored in different dialects.
        InputError: a folder is no run, or a file of it is damaged.
    """
    if dialect is not None:
        check_dialect(dialect)
    if not folders:
        raise UsageError("There is no run to report on: name the folder of one")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError("A run is named twice: name each folder once")
    records = [_object(folder / "run.json", folder) for folder in folders]
    own = [str(record.get("score_dialect") or PAPER_DIALECT) for record in records]
    if dialect is None and len(set(own)) > 1:
        raise UsageError(
            f"The runs were scored in different dialects ({', '.join(sorted(set(own)))}), so that "
            f"their numbers do not compare: give one, e.g. --dialect {PAPER_DIALECT}"
        )
    labels = _labels(folders, records)
    runs = [
        _read(folder, label, record, dialect, scored_in, benchmarks)
        for folder, label, record, scored_in in zip(folders, labels, records, own, strict=True)
    ]
    there = {name for run in runs for name in (*run.results, *run.unfinished)}
    for name in benchmarks or ():
        if name not in there:
            raise UsageError(
                f"No run has the benchmark {name!r}: use {', '.join(sorted(_names(folders)))}"
            )
    if not any(run.results for run in runs):
        raise UsageError(
            "No benchmark that was asked for is finished in any of the runs: run `alignvlm eval` "
            "again with the same folder, it goes on"
        )
    return runs


def _read(
    folder: Path,
    label: str,
    record: Mapping[str, Any],
    dialect: str | None,
    scored_in: str,
    benchmarks: Sequence[str] | None,
) -> Run:
    results, unfinished = {}, []
    for path in _benchmark_folders(folder, record):
        if benchmarks is not None and path.name not in benchmarks:
            continue
        if (path / PREDICTIONS).is_file():
            results[path.name] = _result(path, dialect, scored_in)
        else:
            unfinished.append(path.name)
    return Run(
        name=folder.resolve().name,
        label=label,
        record=record,
        dialect=dialect or scored_in,
        results=results,
        unfinished=tuple(unfinished),
    )


def _benchmark_folders(folder: Path, record: Mapping[str, Any]) -> list[Path]:
    """In the order of the paper's tables, then in the run's own."""
    papers = [name for table in paper_tables() for name in table.benchmarks]
    own = [str(name) for name in record.get("benchmarks") or ()]
    order = list(dict.fromkeys([*papers, *paper_vcr().differences, *own]))
    found = [path for path in folder.iterdir() if (path / "benchmark.json").is_file()]
    places = {name: place for place, name in enumerate(order)}
    return sorted(found, key=lambda path: (places.get(path.name, len(places)), path.name))


def _names(folders: Sequence[Path]) -> set[str]:
    return {path.parent.name for folder in folders for path in folder.glob("*/benchmark.json")}


def _result(folder: Path, dialect: str | None, scored_in: str) -> Result:
    reported = folder / "scores.json"
    predictions = tuple(BenchmarkFolder(folder).whole())
    return Result(
        name=folder.name,
        record=_object(folder / "benchmark.json", folder),
        reported=_object(reported, folder) if reported.is_file() else {},
        predictions=predictions,
        scores=tuple(
            tuple(_score(one, measure, dialect, scored_in) for measure in one.measures)
            for one in predictions
        ),
    )


def _score(one: Prediction, measure: str, dialect: str | None, scored_in: str) -> Score:
    """The score that is saved, or made again in `dialect`; a failed sample has 0."""
    wanted = metric_name(measure, dialect or scored_in)
    if one.error is not None:
        return missed_score(one, wanted)
    saved = next((name for name in one.scores if name.partition("@")[0] == measure), None)
    if saved is not None and (dialect is None or saved == wanted):
        value, parts = one.scores[saved].get("value"), one.scores[saved].get("parts", {})
        found = Score(saved, math.nan if value is None else value, parts)
        if is_poolable(found):
            return found
    return score_again(replace(one, measures=(measure,)), dialect or scored_in)[wanted]


def _labels(folders: Sequence[Path], records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The models' names; the folder's beside it where two runs have one model."""
    models = [
        _model(record) or folder.resolve().name
        for folder, record in zip(folders, records, strict=True)
    ]
    shared = {name for name, times in Counter(models).items() if times > 1}
    labels = [
        f"{model} ({folder.resolve().name})" if model in shared else model
        for folder, model in zip(folders, models, strict=True)
    ]
    twice = {label for label, times in Counter(labels).items() if times > 1}
    return [
        f"{label} #{number}" if label in twice else label
        for number, label in enumerate(labels, start=1)
    ]


def _model(record: Mapping[str, Any]) -> str:
    """What the user called the model; of a path its last part."""
    name = str(record.get("model", ""))
    if name.startswith(("/", "./", "../", "~")) or "\\" in name:
        return name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return name


def _object(path: Path, folder: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{quoted(folder)} is no run, as it holds no {path.name}: give a folder that "
            "`alignvlm eval` wrote"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{quoted(path)} cannot be read: restore it or run again") from error
    if not isinstance(content, dict):
        raise InputError(f"{quoted(path)} is no JSON object: restore it or run again")
    return content
