"""A comparison in a process of its own, which kills itself."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch

from alignvlm.analysis.compare import Comparison, compare


def kill_compare(comparison: Comparison, out: Path, kill_at: int) -> None:
    """Ends by SIGKILL after the step `kill_at` of this start, whichever runs the steps are of."""
    torch.set_num_threads(1)
    steps = 0

    def told(_what: str, samples: int) -> None:
        nonlocal steps
        steps += samples > 0
        if steps == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    compare(comparison, out, "cpu", told=told)
