"""A run's folder: what is there at any instant is enough to go on.

`run.json` says what was run, `<benchmark>/parts/<process>.jsonl` holds predictions as they come,
and `<benchmark>/predictions.jsonl` with `scores.json` all of them once there are all.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from alignvlm.errors import InputError, UsageError
from alignvlm.evaluation.question import Prediction
from alignvlm.evaluation.scorers.registry import MEASURES
from alignvlm.files import replacing, to_line, write_atomically
from alignvlm.imaging.sources import quoted

__all__ = ["BenchmarkFolder", "RunFolder", "as_json", "check_folder", "read_predictions"]

Write = Callable[[int, Prediction], None]

# What may differ between the starts of one run; everything else decides the answers or the scores.
_FREE = ("model", "benchmarks", "versions", "scorers", "command", "started", "ended",
         "num_processes", "batch_size")  # fmt: skip

# Of a benchmark, what decides the answers or the scores.
_DECIDING = ("name", "split", "measures", "headline", "num_questions", "prompt_dialect")


def as_json(content: Mapping[str, Any]) -> str:
    """Indented JSON; null for numbers that JSON lacks."""
    return json.dumps(json.loads(to_line(_finite(content))), indent=1, ensure_ascii=False) + "\n"


def check_folder(path: Path, remedy: str) -> None:
    """Refuse a place where no folder can be, before any work is done.

    Raises:
        UsageError: it is a file, or lies below one.
    """
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not there.is_dir():
        raise UsageError(f"{str(there)!r} is a file and no folder: {remedy}")


def read_predictions(path: Path) -> list[Prediction]:
    """The predictions of a `predictions.jsonl`, in its order.

    Raises:
        InputError: there is no such file, or a line of it is no prediction.
    """
    if not path.is_file():
        raise InputError(f"{path} is not there: run `alignvlm eval` with this folder to its end")
    found = []
    for number, record in enumerate(_records(path), start=1):
        try:
            found.append(Prediction.from_record(record or {}))
        except TypeError as error:
            raise InputError(f"Line {number} of {path} is no prediction: restore the file, or "
                             "delete it and run `alignvlm eval` again") from error  # fmt: skip
    return found


def _check_whole(path: Path, predictions: Sequence[Prediction], num_questions: Any) -> None:
    lines: dict[str, int] = {}
    for number, one in enumerate(predictions, start=1):
        if lines.setdefault(one.id, number) != number:
            raise InputError(
                f"Line {number} of {path} has the question {quoted(one.id)} of line "
                f"{lines[one.id]} a second time: restore the file"
            )
        if unknown := [name for name in one.measures if name not in MEASURES]:
            raise InputError(
                f"Line {number} of {path} names the measure {quoted(unknown[0])}, which there is "
                "not: restore the file"
            )
    if isinstance(num_questions, int) and len(predictions) != num_questions:
        raise InputError(
            f"{path} holds {len(predictions)} predictions and benchmark.json beside it says "
            f"{num_questions} questions: restore the file, or run the same `alignvlm eval` again"
        )
    if not predictions:
        raise InputError(f"{path} holds no prediction: run `alignvlm eval` again")


class RunFolder:
    """The folder of one evaluation run.

    Args:
        path: need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other command writes here while the block runs.

        Raises:
            UsageError: one does.
        """
        check_folder(self.path, "choose another place with --run")
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.path / ".lock", timeout=0):
                yield
        except Timeout as error:
            raise UsageError(
                f"Another evaluation is writing into {self.path}: wait for it, or choose another "
                "folder with --run"
            ) from error

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Write `run.json`, or check that the run that is there was started with the same settings.

        Args:
            facts: its content without the times. Benchmarks may be added to a run.

        Raises:
            UsageError: another setting.
            InputError: the file that is there is damaged.
        """
        before = self.read()
        ours: dict[str, Any] = json.loads(to_line(facts))
        if before is not None:
            self._check(before, ours)
            ours["benchmarks"] = list(dict.fromkeys(before["benchmarks"] + ours["benchmarks"]))
        started = _now() if before is None else before["started"]
        self._write({**ours, "started": started, "ended": None})

    def end(self) -> None:
        """Write into `run.json` that everything is done."""
        facts = self.read()
        if facts is not None:
            self._write({**facts, "ended": _now()})

    def read(self) -> dict[str, Any] | None:
        """The content of `run.json`; None if there is none.

        Raises:
            InputError: it is damaged.
        """
        path = self.path / "run.json"
        if not path.is_file():
            return None
        found = _json_object(path)
        names = found.get("benchmarks")
        are_names = isinstance(names, list) and all(isinstance(name, str) for name in names)
        is_described = isinstance(found.get("description") or {}, dict)
        if not (are_names and is_described and isinstance(found.get("started"), str)):
            raise InputError(f"{path} is no record of an evaluation: choose another folder")
        return found

    def benchmark(self, name: str) -> BenchmarkFolder:
        """The folder of one benchmark."""
        return BenchmarkFolder(self.path / name)

    def _write(self, facts: Mapping[str, Any]) -> None:
        write_atomically(self.path / "run.json", as_json(facts))

    def _check(self, before: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        ours, theirs = _settings(facts), _settings(before)
        for name in dict.fromkeys((*theirs, *ours)):
            if ours.get(name) != theirs.get(name):
                raise UsageError(
                    f"The run in {self.path} was started with {name} {_said(theirs.get(name))} and "
                    f"not {_said(ours.get(name))}: give the same to go on with it, or choose "
                    "another folder with --run"
                )


def _said(value: Any) -> str:
    return "none" if value is None else repr(value)


class BenchmarkFolder:
    """The folder of one benchmark in a run.

    Args:
        path: need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.predictions = path / "predictions.jsonl"
        self._parts = path / "parts"

    def begin(self, record: Mapping[str, Any]) -> None:
        """Write `benchmark.json`, or check that what is there says the same.

        Raises:
            UsageError: it does not.
        """
        path = self.path / "benchmark.json"
        ours = json.loads(to_line(record))
        if path.is_file():
            theirs = _json_object(path)
            if theirs.get("digest", ours.get("digest")) != ours.get("digest"):
                raise UsageError(
                    f"The data of {ours.get('name')} has changed since {self.path} was started: "
                    "put it back as it was, or choose another folder with --run"
                )
            for name in _DECIDING:
                if ours.get(name) != theirs.get(name):
                    raise UsageError(
                        f"{self.path} was started with another {name} of the benchmark "
                        f"({_short(theirs.get(name))}, now {_short(ours.get(name))}): choose "
                        "another folder with --run"
                    )
            return
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(path, as_json(ours))

    def record(self) -> dict[str, Any]:
        """The content of `benchmark.json`.

        Raises:
            InputError: it is not there or damaged.
        """
        return _json_object(self.path / "benchmark.json")

    def whole(self) -> list[Prediction]:
        """The predictions of a benchmark that is done.

        Raises:
            InputError: it is not done, or its files are damaged.
        """
        found = read_predictions(self.predictions)
        _check_whole(self.predictions, found, self.record().get("num_questions"))
        return found

    def done(self) -> dict[int, Prediction]:
        """What was predicted so far, by the question's number.

        Of several predictions for a question one with an answer counts, else the last.
        """
        found: dict[int, Prediction] = {}
        for index, record in enumerate(_records(self.predictions)):
            _keep(found, index, record)
        for path in sorted(self._parts.glob("*.jsonl")):
            for record in _records(path):
                place = record.pop("index", None) if record else None
                if isinstance(place, int):
                    _keep(found, place, record)
        return found

    @contextmanager
    def writer(self, rank: int) -> Iterator[Write]:
        """What appends a prediction to this process's part; it is in the file when it returns."""
        self._parts.mkdir(parents=True, exist_ok=True)
        path = self._parts / f"{rank}.jsonl"
        _drop_torn_line(path)
        with path.open("a", encoding="utf-8") as file:

            def write(index: int, prediction: Prediction) -> None:
                file.write(to_line(_finite({"index": index, **prediction.to_record()})))
                file.flush()

            yield write

    def finish(self, predictions: Sequence[Prediction], scores: Mapping[str, Any]) -> None:
        """Write `predictions.jsonl` and `scores.json`, and remove the parts.

        Where there are new predictions, scores in other dialects are removed too.
        """
        for stale in self.path.glob("scores-*.json") if self._parts.exists() else ():
            stale.unlink()
        with (
            replacing(self.predictions) as temporary,
            temporary.open("w", encoding="utf-8") as file,
        ):
            for prediction in predictions:
                file.write(to_line(_finite(prediction.to_record())))
        self.write_scores("scores.json", scores)
        shutil.rmtree(self._parts, ignore_errors=True)

    def write_scores(self, name: str, scores: Mapping[str, Any]) -> Path:
        """Write scores under this name; returns the file's path."""
        path = self.path / name
        write_atomically(path, as_json(scores))
        return path


def _keep(found: dict[int, Prediction], index: int, record: Mapping[str, Any] | None) -> None:
    try:
        prediction = Prediction.from_record(record or {})
    except TypeError:
        return  # damaged: asked again
    before = found.get(index)
    if before is None or before.error is not None or prediction.error is None:
        found[index] = prediction


def _records(path: Path) -> Iterator[dict[str, Any] | None]:
    """The objects of a JSON lines file, None for each damaged line.

    Unlike `alignvlm.files.each_line`, an answer "NaN" stays a text.
    """
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            yield record if isinstance(record, dict) else None


def _drop_torn_line(path: Path) -> None:
    """A kill may leave half a line, which the next one must not be added to."""
    if not path.is_file():
        return
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    try:
        json.loads(content[end:])
    except (ValueError, RecursionError):
        os.truncate(path, end)
    else:  # only the line's end is missing
        path.write_bytes(content + b"\n")


def _settings(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the answers and the scores; the model's device does not."""
    found = {name: value for name, value in facts.items() if name not in _FREE}
    description = found.pop("description", None) or {}
    return {**found, **{f"model's {k}": v for k, v in description.items() if k != "device"}}


def _json_object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{path} is not there: name the folder of a run of `alignvlm eval`"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: choose another folder") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} is no JSON object: choose another folder")
    return found


def _finite(value: Any) -> Any:
    """The same with None for what is no number; another program might take a text for an answer."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, (list, tuple)) else value


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
