"""What a run reports: one JSON line a step, always, trackers by name, a bar on a terminal."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from alignvlm.errors import ConfigurationError, MissingDependencyError
from alignvlm.files import from_line, read_lines, to_line, write_atomically
from alignvlm.training.trackers import Backend, check_names, open_backend

__all__ = ["Tracker", "read_log"]


class Tracker:
    """Appends records to `<run folder>/log.jsonl`, passes them on, and draws the bar on stderr.

    A resumed run first drops the records after its checkpoint, so that no step stands twice. A
    tracker that fails is dropped after one line on stderr, and the run goes on.

    Args:
        run_folder: made if it is not there.
        name: beside the bar.
        num_steps: of the whole run.
        first_step: done by the checkpoint that the run goes on from.
        trackers: names of `alignvlm.training.trackers`.
        config: the resolved recipe, for the trackers.

    Raises:
        ConfigurationError: there is no tracker of that name.
        MissingDependencyError: a tracker's package is not installed.
    """

    def __init__(
        self,
        run_folder: Path,
        *,
        name: str,
        num_steps: int,
        first_step: int,
        trackers: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
    ) -> None:
        check_names(trackers)
        run_folder.mkdir(parents=True, exist_ok=True)
        self._console = Console(stderr=True)
        self._backends: dict[str, Backend] = {}
        for tracker in dict.fromkeys(trackers):
            try:
                self._backends[tracker] = open_backend(
                    tracker, run_folder, config or {}, first_step
                )
            except (ConfigurationError, MissingDependencyError):
                self._close_backends()
                raise
            except Exception as error:
                self._say_dropped(tracker, error)
        self._path = run_folder / "log.jsonl"
        _truncate_after(self._path, first_step)
        self._file = self._path.open("a", encoding="utf-8")
        self._shown: dict[str, Any] = {}
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}", markup=False),
            console=self._console,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._progress.add_task(name, total=num_steps, completed=first_step, shown="")
        self._progress.start()

    def log(self, record: Mapping[str, Any]) -> None:
        """Write one record, whose `step` says how many steps are done; floats keep all digits.

        Numbers that are not finite become the strings "NaN", "Infinity" and "-Infinity", which
        `read_log` turns back. Trackers get the numbers alone.
        """
        self._file.write(to_line(record))
        self._file.flush()
        self._shown.update(record)
        self._progress.update(self._task, completed=record["step"], shown=_summary(self._shown))
        numbers = {
            key: float(value)
            for key, value in record.items()
            if key != "step" and isinstance(value, (int, float)) and not isinstance(value, bool)
        }
        for name, backend in list(self._backends.items()):
            try:
                backend.log(record["step"], numbers)
            except Exception as error:
                del self._backends[name]
                self._say_dropped(name, error)

    def say(self, text: str) -> None:
        """One line on stderr, above the bar if there is one."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def sync(self) -> None:
        """See the log on disk, e.g. before a checkpoint counts on what it says."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush to disk, end the trackers and take the bar down."""
        self._progress.stop()
        self.sync()
        self._file.close()
        self._close_backends()

    def _close_backends(self) -> None:
        while self._backends:
            name, backend = self._backends.popitem()
            try:
                backend.close()
            except Exception as error:
                self._say_dropped(name, error)

    def _say_dropped(self, name: str, error: Exception) -> None:
        detail = str(error).strip().partition("\n")[0]
        self.say(
            f"The tracker {name} failed ({type(error).__name__}{': ' if detail else ''}{detail}) "
            "and is left out from here on; the run goes on and log.jsonl has everything"
        )


def read_log(run_folder: Path) -> list[dict[str, Any]]:
    """Every record of a run, oldest first; damaged lines are left out."""
    return read_lines(run_folder / "log.jsonl")


def _truncate_after(path: Path, step: int) -> None:
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        kept = [line.rstrip("\n") + "\n" for line in lines if _step_of(line) <= step]
    write_atomically(path, "".join(kept))


def _step_of(line: str) -> float:
    """The step of a log line; infinity, after any checkpoint, for a damaged one."""
    found = (from_line(line) or {}).get("step")
    return found if isinstance(found, int) else math.inf


def _summary(record: Mapping[str, Any]) -> str:
    """What stands behind the bar: the loss and how fast text and visual tokens go by."""
    parts = []
    if isinstance(loss := record.get("loss"), float):
        parts.append(f"loss {loss:.4g}")
    rates = [record.get(f"{kind}_tokens_per_s") for kind in ("text", "visual")]
    if any(known := [rate for rate in rates if isinstance(rate, (int, float))]):
        parts.append(f"{sum(known):,.0f} tokens/s")
    return "  ".join(parts)
