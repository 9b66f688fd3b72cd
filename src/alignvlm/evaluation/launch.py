"""Runs a command and writes what it cost to a file; run as a script by `evaluation.process`.

Linux counts a process's peak memory from before `exec` on, so a child that a large process starts
seems as large as its parent. This script is small, and stands between the two.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time


def main() -> None:
    """`launch.py RESULT COMMAND...`: writes [exit status, seconds, ru_maxrss] to RESULT as JSON."""
    result, *command = sys.argv[1:]
    start = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    with open(result, "w", encoding="utf-8") as file:
        json.dump([process.returncode, seconds, usage.ru_maxrss], file)


if __name__ == "__main__":
    main()
