from __future__ import annotations

import os
from pathlib import Path

import pytest

from alignvlm import memory


def test_what_the_system_says() -> None:
    total, available = memory.total_bytes(), memory.available_bytes()
    assert total == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert available is not None and 0 < available < total


def test_a_system_that_does_not_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sysconf_names", {})
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "none")
    assert memory.total_bytes() is None
    assert memory.available_bytes() is None


def test_linux_tells_what_is_available(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:       7 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    assert memory.available_bytes() == 7 * 1024
