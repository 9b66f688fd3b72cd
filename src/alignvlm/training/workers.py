"""Processes that make samples, set up alike wherever they are used."""

from __future__ import annotations

import signal
from typing import Any

__all__ = ["worker_options"]


def worker_options(num_workers: int) -> dict[str, Any]:
    """Arguments of torch's DataLoader for so many workers; 0 makes samples in this process."""
    return {
        "num_workers": num_workers,
        "worker_init_fn": _leave_signals_to_the_parent,
        # Threads of the parent are not safe to fork from once torch has used them.
        "multiprocessing_context": "spawn" if num_workers else None,
        "persistent_workers": bool(num_workers),
    }


def _leave_signals_to_the_parent(_worker: int) -> None:
    """A signal for the whole process group must not end workers before the checkpoint is made."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
