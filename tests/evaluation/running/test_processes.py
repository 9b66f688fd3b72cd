from __future__ import annotations

import subprocess
import sys

import pytest

from alignvlm.errors import InputError, UsageError
from alignvlm.evaluation.running.processes import Processes, RepeatedError, open_processes


def test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = open_processes()
    assert alone == Processes(0, 1, None) and alone.is_main
    assert alone.gather({"a": 1}) == [{"a": 1}]
    with alone.together():
        pass
    with pytest.raises(UsageError, match="no"), alone.together():
        raise UsageError("no")


def test_alone_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from alignvlm.evaluation.running import Settings, evaluate_model, open_processes\n"
        "open_processes().gather(1)\n"
        "assert not {'torch', 'transformers', 'accelerate'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def others_say(monkeypatch: pytest.MonkeyPatch, *said: object) -> None:
    """The other processes' part of every gathering; ours is None in it."""

    def gather(self: Processes, value: object) -> list[object]:
        return [value if one is None else None if one == "" else one for one in said]

    monkeypatch.setattr(Processes, "gather", gather)


def test_the_first_that_has_an_error_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    others_say(monkeypatch, "", None, ("later", 1))
    with pytest.raises(InputError, match="mine"), Processes(1, 3).together():
        raise InputError("mine")
    others_say(monkeypatch, ("before", 2), None)
    with pytest.raises(RepeatedError, match="before") as raised, Processes(1, 2).together():
        raise InputError("mine")
    assert raised.value.exit_code == 2
    with pytest.raises(RepeatedError, match="before"), Processes(1, 2).together():
        pass
    others_say(monkeypatch, "", None)
    with Processes(1, 2).together():
        pass
