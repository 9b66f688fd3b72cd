"""Samples that could not be used: written down, counted, and the end of a run if they are many."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from alignvlm.errors import TrainingError
from alignvlm.files import each_line, to_line

__all__ = ["Quarantine"]

_FIRST = 100  # samples before a share means anything


class Quarantine:
    """Appends to `<run folder>/quarantine.jsonl`: source, key, reason, kind, and step.

    Kinds are "broken" and "too_long"; the first alone count against the limit, the second follow
    from a policy of the recipe.

    Args:
        run_folder: of the run.
        writes: whether this process does; all of them count.
        max_bad_share: largest share of broken samples.
        batch_size: samples a step.
    """

    def __init__(
        self, run_folder: Path, writes: bool, max_bad_share: float, batch_size: int
    ) -> None:
        self._path = run_folder / "quarantine.jsonl"
        self._writes = writes
        self._max_share = max_bad_share
        self._batch_size = batch_size
        self._num_broken = 0
        self._first_step: int | None = None
        self._known: set[tuple[Any, Any]] | None = None  # what the file holds, once it was read

    def add(self, step: int, found: Sequence[dict[str, Any]]) -> None:
        """Takes what all processes found in a step; some of it they all found.

        Raises:
            TrainingError: more samples are broken than the run accepts.
        """
        self._first_step = step if self._first_step is None else self._first_step
        if not found:
            return
        found = list({(record["source"], record["key"]): record for record in found}.values())
        if self._writes:
            self._append([{**record, "step": step} for record in found])
        num_new = sum(record["kind"] == "broken" for record in found)
        self._num_broken += num_new
        seen = (step - self._first_step + 1) * self._batch_size
        if num_new and self._num_broken > self._max_share * max(seen, _FIRST):
            last = next(record for record in reversed(found) if record["kind"] == "broken")
            raise TrainingError(
                f"{self._num_broken} of the last {seen} samples are broken, more than the share "
                f"of {self._max_share:g} that this run accepts (last: {last['reason']}): see "
                f"{self._path}, repair the data or raise max_bad_share"
            )

    def _append(self, records: list[dict[str, Any]]) -> None:
        """A resumed run meets samples again that stand here already; each stands once."""
        if self._known is None:
            lines = filter(None, each_line(self._path))
            self._known = {(line.get("source"), line.get("key")) for line in lines}
        new = [r for r in records if (r["source"], r["key"]) not in self._known]
        if not new:
            return
        self._known |= {(record["source"], record["key"]) for record in new}
        # Lines are added, for a long run that skips long samples would write them all every step.
        with self._path.open("a+b") as file:
            if file.tell() and not _ends_with_newline(file):
                file.write(b"\n")
            file.write("".join(map(to_line, new)).encode())
            file.flush()
            os.fsync(file.fileno())


def _ends_with_newline(file: IO[bytes]) -> bool:
    """Whether the last line is whole; a kill may have cut it."""
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
