"""Measures how long the commands take that must start at once, and fails over the bar.

Each command runs in a fresh process; the median of the runs counts, so that one busy moment of the
machine does not. `alignvlm --help` has 0.3 s, because help that makes people wait is not read.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

BAR_S = 0.3
NUM_RUNS = 9
COMMANDS = {
    "python -c pass": "pass",
    "import alignvlm": "import alignvlm",
    "alignvlm --help": (
        "import sys; from alignvlm.cli import main; sys.argv[:] = ['alignvlm', '--help']; main()"
    ),
}


def median_seconds(code: str) -> float:
    """Median wall time in seconds of running `code` in a fresh interpreter, after one warm-up."""
    seconds = []
    for _ in range(NUM_RUNS + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def main() -> int:
    measured = {name: round(median_seconds(code), 3) for name, code in COMMANDS.items()}
    print(json.dumps({"bar_s": BAR_S, "num_runs": NUM_RUNS, "median_s": measured}, indent=2))
    return int(measured["alignvlm --help"] > BAR_S)


if __name__ == "__main__":
    sys.exit(main())
