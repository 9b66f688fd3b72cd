"""What a command costs when it starts from nothing: seconds and peak memory of a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

from alignvlm.errors import InputError


@dataclass(frozen=True)
class ProcessCost:
    """One run of a command.

    Attributes:
        seconds: wall time from start to exit.
        peak_bytes: largest resident set of the process or of one that it waited for.
        output: what it wrote on stdout.
    """

    seconds: float
    peak_bytes: int
    output: str


def run_process(command: Sequence[str]) -> ProcessCost:
    """Run a command to its end.

    Raises:
        InputError: it did not exit with 0; the message ends with the last line of its stderr.
    """
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdout is not None
        with process.stdout:
            output = process.stdout.read()
        # wait4 gives this child's own usage; getrusage would mix it with all children before.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            errors.seek(0)
            lines = errors.read().decode(errors="replace").strip().splitlines() or ["nothing"]
            raise InputError(
                f"The command {' '.join(command[:6])} ... ended with status {process.returncode} "
                f"and said: {lines[-1]}"
            )
    unit = 1 if sys.platform == "darwin" else 1024
    return ProcessCost(seconds, usage.ru_maxrss * unit, output.decode(errors="replace"))
