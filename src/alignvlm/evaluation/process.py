"""What a command costs when it starts from nothing: seconds and peak memory of a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from alignvlm.errors import InputError

_LAUNCHER = Path(__file__).with_name("launch.py")


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
    with TemporaryDirectory() as folder:
        result = Path(folder) / "cost.json"
        launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), str(result)]
        done = subprocess.run([*launcher, *command], capture_output=True, check=False)
        if done.returncode == 0:
            status, seconds, peak = json.loads(result.read_text(encoding="utf-8"))
        else:
            status = done.returncode
    if status != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
        raise InputError(
            f"The command {' '.join(command[:4])} ... ended with status {status} and said: "
            f"{lines[-1]}"
        )
    unit = 1 if sys.platform == "darwin" else 1024
    return ProcessCost(seconds, peak * unit, done.stdout.decode(errors="replace"))
