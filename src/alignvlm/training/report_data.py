"""What a run folder holds, read for the report: whole files, broken ones, or none."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from alignvlm.files import each_line, read_lines
from alignvlm.training.curves import Series
from alignvlm.training.health import collapse_warning
from alignvlm.weights.cache import is_complete

__all__ = ["Checkpoint", "RunData", "read_run"]

_LARGEST = 1e30  # what is larger is counted with what is not finite, and not drawn
_SMALLEST = 1e-100  # what is smaller is drawn as zero
_QUOTED_OR_NUMBER = re.compile(r"'[^']*'|\"[^\"]*\"|\d+(?:[.,]\d+)*")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A whole `step-<n>` folder."""

    step: int
    num_bytes: int
    written: str


@dataclass(frozen=True, kw_only=True)
class RunData:
    """Everything the report shows.

    Attributes:
        name: of the folder.
        columns: every logged number over the steps.
        last_step: of the log, 0 if it is empty.
        num_steps: what the run was started for, None if nothing says it.
        not_finite: how often each key was no finite number.
        warned: steps at which the connector had collapsed, and what was said.
        num_checks: how often that was looked at.
        num_damaged: lines of the log that cannot be read.
        starts, trained_parts, recipe, environment: the files of those names, empty without them.
        quarantine: reason (without names and numbers) and kind: how often, and one key.
        checkpoints: oldest first.
        bad_steps: names of the files about steps whose loss was no number.
    """

    name: str
    columns: Mapping[str, Series]
    last_step: int
    num_steps: int | None
    not_finite: Mapping[str, int]
    warned: Sequence[tuple[float, str]]
    num_checks: int
    num_damaged: int
    starts: Sequence[Mapping[str, Any]]
    trained_parts: Sequence[Mapping[str, Any]]
    recipe: Mapping[str, Any]
    environment: Mapping[str, Any]
    quarantine: Mapping[tuple[str, str], tuple[int, str]]
    checkpoints: Sequence[Checkpoint]
    bad_steps: Sequence[str]

    @property
    def resumed_at(self) -> list[float]:
        """Steps from which the run went on after a break."""
        steps = [start.get("step") for start in self.starts]
        return [float(step) for step in steps if isinstance(step, int) and step > 0]

    def values(self, *names: str) -> list[float]:
        """The values of the first of these keys that was logged."""
        found = next((self.columns[name] for name in names if name in self.columns), None)
        return [] if found is None else list(found.values)


def read_run(run_folder: Path) -> RunData:
    """Read a run folder; nothing in it has to be there, or whole."""
    log = _Log(run_folder / "log.jsonl")
    columns = log.columns()
    starts = read_lines(run_folder / "starts.jsonl")
    recipe = _object(run_folder / "recipe.json") or _object(run_folder / "config.json")
    planned = [start.get("num_steps") for start in reversed(starts)] + [recipe.get("num_steps")]
    trained = _json(run_folder / "trained_parts.json")
    return RunData(
        name=run_folder.resolve().name,
        columns=columns,
        last_step=int(max((one.steps[-1] for one in columns.values()), default=0)),
        num_steps=next((n for n in planned if isinstance(n, int) and n > 0), None),
        not_finite=log.not_finite,
        warned=log.warned,
        num_checks=log.num_checks,
        num_damaged=log.num_damaged,
        starts=starts,
        trained_parts=_objects(trained),
        recipe=recipe,
        environment=_object(run_folder / "environment.json"),
        quarantine=_quarantine(run_folder),
        checkpoints=_checkpoints(run_folder),
        bad_steps=sorted(path.name for path in run_folder.glob("bad-step-*.json")),
    )


class _Log:
    """log.jsonl line by line: a long run's records would fill the memory."""

    def __init__(self, path: Path) -> None:
        self._found: dict[str, tuple[list[float], list[float]]] = {}
        self.not_finite: Counter[str] = Counter()
        self.warned: list[tuple[float, str]] = []
        self.num_checks = self.num_damaged = 0
        for record in each_line(path):
            step = None if record is None else _number(record.get("step"))
            if record is None or step is None:
                self.num_damaged += 1
                continue
            self._add(step, record)
            if "health/token_cosine" in record:
                self.num_checks += 1
                if sentence := _warning(record):
                    self.warned.append((step, sentence))

    def columns(self) -> dict[str, Series]:
        """Numbers by key, at rising steps."""
        return {key: _rising(key, *column) for key, column in self._found.items()}

    def _add(self, step: float, record: Mapping[str, Any]) -> None:
        found = self._found
        for key, value in record.items():
            if (type(value) is not float and type(value) is not int) or key == "step":
                continue
            if -_LARGEST < value < _LARGEST:
                column = found.get(key)
                if column is None:
                    column = found[key] = ([], [])
                column[0].append(step)
                column[1].append(value)
            else:
                self.not_finite[key] += 1


def _rising(name: str, steps: list[float], values: list[float]) -> Series:
    if any(later < step for step, later in pairwise(steps)):
        order = sorted(range(len(steps)), key=steps.__getitem__)
        steps, values = [steps[place] for place in order], [values[place] for place in order]
    drawn = [value if abs(value) > _SMALLEST else 0.0 for value in values]
    return Series(name=name, steps=steps, values=drawn)


def _number(value: Any) -> float | None:
    """A number that can be drawn."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if not -_LARGEST < value < _LARGEST:
        return None
    return float(value)


def _warning(record: Mapping[str, Any]) -> str | None:
    numbers = {key: n for key, value in record.items() if (n := _number(value)) is not None}
    return collapse_warning(numbers)


def _quarantine(run_folder: Path) -> dict[tuple[str, str], tuple[int, str]]:
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    for record in read_lines(run_folder / "quarantine.jsonl"):
        reason = _QUOTED_OR_NUMBER.sub("…", str(record.get("reason", "not said")))
        kind = (reason, str(record.get("kind", "")))
        counts[kind] += 1
        place = [str(record[key]) for key in ("source", "key") if key in record]
        examples.setdefault(kind, ", ".join(place))
    return {kind: (count, examples[kind]) for kind, count in counts.most_common()}


def _checkpoints(run_folder: Path) -> list[Checkpoint]:
    found = []
    for folder in sorted(run_folder.glob("step-*")):
        number = folder.name.removeprefix("step-")
        if not (number.isascii() and number.isdigit() and is_complete(folder)):
            continue
        written = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
        found.append(
            Checkpoint(
                step=int(number),
                num_bytes=sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()),
                written=written.strftime("%Y-%m-%d %H:%M UTC"),
            )
        )
    return found


def _object(path: Path) -> dict[str, Any]:
    content = _json(path)
    return content if isinstance(content, dict) else {}


def _objects(content: Any) -> list[dict[str, Any]]:
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
