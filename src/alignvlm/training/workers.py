"""Processes that make samples, set up alike wherever they are used."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from typing import Any

__all__ = ["end_with_parent", "worker_options"]


def worker_options(num_workers: int) -> dict[str, Any]:
    """Arguments of torch's DataLoader for so many workers; 0 makes samples in this process."""
    return {
        "num_workers": num_workers,
        "worker_init_fn": _set_up,
        # Threads of the parent are not safe to fork from once torch has used them.
        "multiprocessing_context": "spawn" if num_workers else None,
        "persistent_workers": bool(num_workers),
    }


def end_with_parent() -> None:
    """End this process, whatever it does, as soon as the one that started it has ended.

    A worker of torch's looks whether its parent changes, and one that was started by a process
    that is killed before the worker is ready sees no change: it would wait for work for ever.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="end-with-parent", daemon=True).start()


def _set_up(_worker: int) -> None:
    """A signal for the whole process group must not end workers before the checkpoint is made."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
