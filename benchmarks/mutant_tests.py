"""Runs the scorers' tests on one change after the other; `mutants.py` starts it.

    python benchmarks/mutant_tests.py FOLDER

FOLDER is a copy of the package and of the tests. Requests are lines of JSON on stdin, replies lines
on stdout: `{"path", "source"}` puts other code into a file of the copy until the tests have run.
pytest and all that does not change is imported once; each request runs in a fork.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

SCORERS = "src/alignvlm/evaluation/scorers"
TESTS = "tests/evaluation/scorers"
# The same for every change, so that a fork need not import it.
SHARED = (
    "numpy", "hypothesis", "pytest", "_pytest.doctest", "rapidfuzz.distance",
    "alignvlm.files", "alignvlm.errors", "importlib.metadata", "difflib", "decimal",
)  # fmt: skip
# Hypothesis' examples would kill by luck and take long.
LEFT_OUT = ("test_properties.py",)
MAX_CALLS = 50_000
"""So many calls of a test are looked at; what it enters later, it has mostly entered before."""
MAX_MEMORY_BYTES = 4_000_000_000
SECONDS, TIMES = 2.0, 10.0
"""A test may take so many seconds of processor time and so many times what it took before."""


class Watch:
    """Notes what each test enters and how long it takes, when nothing is changed."""

    def __init__(self, folder: Path) -> None:
        self._root = str(folder / SCORERS) + os.sep
        self.seconds: dict[str, float] = {}
        self.entered: dict[str, set[str]] = defaultdict(set)

    def pytest_runtest_protocol(self, item: Any) -> None:
        """Begins to watch a test."""
        self._now = self.entered[item.nodeid]
        self._left = MAX_CALLS
        self.seconds[item.nodeid] = time.process_time()
        sys.setprofile(self._profile)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Ends it."""
        sys.setprofile(None)
        self.seconds[nodeid] = time.process_time() - self.seconds[nodeid]

    def _profile(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        self._left -= 1
        if not self._left:
            sys.setprofile(None)
        if event == "call" and code.co_filename.startswith(self._root):
            self._now.add(f"{Path(code.co_filename).name}:{code.co_qualname}")


class Order:
    """First the tests that enter the changed function, the quick ones first; each within its time.

    The others follow, since a cache may have hidden what a test needs.
    """

    def __init__(self, seconds: dict[str, float], entered: dict[str, set[str]], place: str) -> None:
        self._seconds, self._entered, self._place = seconds, entered, place

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """The tests in this order."""
        items.sort(key=lambda item: (self._distance(item.nodeid), self._before(item.nodeid)))

    def _distance(self, test: str) -> int:
        """0: it enters the function, 1: another one of its module, 2: none."""
        entered = self._entered.get(test, set())
        module = self._place.partition(":")[0]
        return (
            0 if self._place in entered
            else 1 if any(name.startswith(f"{module}:") for name in entered)
            else 2
        )  # fmt: skip

    def pytest_runtest_protocol(self, item: Any) -> None:
        """Begins a test's time."""
        allow(SECONDS + TIMES * self._before(item.nodeid))

    def _before(self, test: str) -> float:
        return self._seconds.get(test, 0.0)  # a change may make other tests


def allow(seconds: float) -> None:
    """End this process by a signal after so much processor time."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def run(*plugins: object) -> int:
    """The exit status of pytest: 0 where every test passes."""
    import pytest

    files = sorted(path for path in Path(TESTS).glob("test_*.py") if path.name not in LEFT_OUT)
    quiet = ["-q", "-x", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist"]
    return int(pytest.main([*quiet, *map(str, files)], plugins=plugins))


def forked(work: Callable[[], int], *, shown: bool = False) -> int:
    """The exit status of `work()` in a child, or minus the number of the signal that ended it."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 99
    try:
        to = 2 if shown else os.open(os.devnull, os.O_WRONLY)
        for number in (1, 2):
            os.dup2(to, number)
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
        allow(10 * SECONDS)  # for the imports
        status = work()
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(status)


def watched(folder: Path, to: Path) -> int:
    """Run the unchanged code once; leaves what each test enters, and its seconds, in a file."""
    watch = Watch(folder)
    allow(600)
    status = run(watch)
    found = {"seconds": watch.seconds, "entered": {k: sorted(v) for k, v in watch.entered.items()}}
    to.write_text(json.dumps(found))
    return status


def main() -> int:
    folder = Path(sys.argv[1]).resolve()
    os.chdir(folder)
    sys.dont_write_bytecode = True  # of a changed module it might be taken for the next one's
    sys.path.insert(0, str(folder / "src"))
    for name in SHARED:
        importlib.import_module(name)
    notes = folder / "watched.json"
    if forked(lambda: watched(folder, notes), shown=True):
        print(json.dumps({"ready": False}), flush=True)
        return 1
    found = json.loads(notes.read_text())
    entered = {name: set(functions) for name, functions in found["entered"].items()}
    print(json.dumps({"ready": True, "tests": len(entered)}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        path = Path(asked["path"])
        before = path.read_bytes()
        order = Order(found["seconds"], entered, asked["place"])
        path.write_text(asked["source"])
        try:
            status = forked(lambda order=order: run(order))
        finally:
            path.write_bytes(before)
        print(json.dumps({"status": status}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
