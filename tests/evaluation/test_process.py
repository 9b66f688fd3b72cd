from __future__ import annotations

import sys

import pytest

from alignvlm.errors import InputError
from alignvlm.evaluation.process import run_process


def _python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def test_output_seconds_and_memory_are_the_childs_own() -> None:
    ballast = bytearray(300_000_000)
    ballast[::4096] = b"1" * len(ballast[::4096])  # this process is large, and its children small
    large = run_process(_python("x = b'1' * 200_000_000; print('done')"))
    small = run_process(_python("print('small')"))
    assert large.output == "done\n"
    assert 200_000_000 < large.peak_bytes < 280_000_000
    assert small.peak_bytes < 100_000_000
    assert large.seconds > 0


def test_a_command_that_does_not_exist_is_one_sentence() -> None:
    with pytest.raises(InputError, match="ended with status 1 and said: FileNotFoundError"):
        run_process(["/nowhere/alignvlm"])


def test_wall_time_includes_sleep() -> None:
    assert run_process(_python("import time; time.sleep(0.3)")).seconds >= 0.3


def test_failure_is_one_sentence_with_the_last_line_of_stderr() -> None:
    with pytest.raises(InputError, match=r"status 3 and said: it broke$"):
        run_process(_python("import sys; print('it broke', file=sys.stderr); sys.exit(3)"))
