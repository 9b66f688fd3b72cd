"""What a run reports: one JSON line a step, always, and a progress bar on a terminal."""

from __future__ import annotations

import json
import os
import sys
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


class Tracker:
    """Appends records to `<run folder>/log.jsonl` and draws the bar on stderr.

    A resumed run first drops the records after its checkpoint, so that no step stands twice.
    """

    def __init__(self, run_folder: Path, *, name: str, num_steps: int, first_step: int) -> None:
        run_folder.mkdir(parents=True, exist_ok=True)
        self._path = run_folder / "log.jsonl"
        _truncate_after(self._path, first_step)
        self._file = self._path.open("a", encoding="utf-8")
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}"),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._progress.add_task(name, total=num_steps, completed=first_step, shown="")
        self._progress.start()

    def log(self, record: dict[str, Any]) -> None:
        """Write one record; floats keep all their digits."""
        self._file.write(json.dumps(record, allow_nan=False) + "\n")
        self._file.flush()
        shown = "  ".join(
            f"{key} {value:.4g}" for key, value in record.items() if isinstance(value, float)
        )
        self._progress.update(self._task, completed=record["step"], shown=shown)

    def close(self) -> None:
        """Flush to disk and take the bar down."""
        self._progress.stop()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def read_log(run_folder: Path) -> list[dict[str, Any]]:
    """Every record of a run, oldest first."""
    path = run_folder / "log.jsonl"
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]


def _truncate_after(path: Path, step: int) -> None:
    if not path.is_file():
        return
    lines = path.read_text("utf-8").splitlines()
    # A kill may leave half a line at the end; it belongs to a step that will be done again.
    whole = [line for line in lines if line.endswith("}")]
    kept = [line for line in whole if json.loads(line)["step"] <= step]
    write_atomically(path, "".join(line + "\n" for line in kept))


def write_atomically(path: Path, text: str) -> None:
    """Replace a small file: the old one or the whole new one is there, never a part."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
