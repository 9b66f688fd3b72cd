"""Worker processes end with the run, however it ends and whenever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import os, sys, time
from pathlib import Path
from torch.utils.data import DataLoader, Dataset
from alignvlm.training.workers import worker_options

class Numbers(Dataset):
    def __init__(self, folder):
        self.folder, self.starter = folder, os.getpid()
    def __setstate__(self, state):  # in the worker, before it has begun its work
        self.__dict__ |= state
        Path(self.folder, "worker").write_text(str(os.getpid()))
        while os.getppid() == self.starter:
            time.sleep(0.01)
    def __getitem__(self, index):
        return index

if __name__ == "__main__":
    list(DataLoader(Numbers(sys.argv[1]), batch_size=None, sampler=range(5), **worker_options(1)))
"""


def is_there(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs the states of processes")
def test_no_worker_outlives_a_run_that_is_killed(tmp_path: Path) -> None:
    """In the run's first seconds, before torch's own watch begins."""
    script, sign = tmp_path / "script.py", tmp_path / "worker"
    script.write_text(SCRIPT)
    # The tracker of its semaphores would say on stderr that it was killed.
    run = subprocess.Popen([sys.executable, str(script), str(tmp_path)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while not (sign.exists() and sign.read_text()):
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    worker = int(sign.read_text())
    assert is_there(worker)
    run.kill()
    assert run.wait() == -signal.SIGKILL
    deadline = time.monotonic() + 20
    while is_there(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    if is_there(worker):
        os.kill(worker, signal.SIGKILL)
        pytest.fail("the worker is still there")
