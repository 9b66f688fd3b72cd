"""Samples that could not be used: written down, counted, and the end of a run if they are many."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignvlm.errors import TrainingError
from alignvlm.training.files import write_atomically

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
        old = self._path.read_text("utf-8").splitlines() if self._path.is_file() else []
        known = {tuple(json.loads(line)[k] for k in ("source", "key")) for line in old}
        new = [r for r in records if (r["source"], r["key"]) not in known]
        if new:
            lines = [*old, *(json.dumps(record, ensure_ascii=False) for record in new)]
            write_atomically(self._path, "".join(line + "\n" for line in lines))
