from __future__ import annotations

from pathlib import Path

import pytest

from alignvlm.paths import cache_dir


def test_our_variable_comes_before_xdg_and_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somebody")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("ALIGNVLM_CACHE", "~/mine")
    assert cache_dir() == Path("/somebody/mine")
    monkeypatch.setenv("ALIGNVLM_CACHE", "")
    assert cache_dir() == Path("/xdg/alignvlm")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path("/somebody/.cache/alignvlm")
