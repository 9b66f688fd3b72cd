from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from filelock import FileLock

from alignvlm.errors import WeightsError
from alignvlm.weights import cache

NEEDED_BYTES = 123_000_000
USAGE = namedtuple("USAGE", "total used free")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALIGNVLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def build_two_files(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    (folder / "model.bin").write_bytes(b"weights" * 100)


def child(script: str, cache_folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env=os.environ | {"ALIGNVLM_CACHE": str(cache_folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_sha256_of_a_file_longer_than_one_block(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    told: list[int] = []
    assert cache.sha256_of(tmp_path / "file", told.append) == hashlib.sha256(content).hexdigest()
    assert sum(told) == len(content) and len(told) == 2


def test_atomic_folder_appears_whole_and_replaces_the_old_one(own_cache):
    target = own_cache / "model"
    target.mkdir(parents=True)
    (target / "old").write_text("old")
    with cache.atomic_folder(target) as folder:
        build_two_files(folder)
        assert (target / "old").exists() and not cache.is_complete(target)
    assert cache.is_complete(target) and not cache.damaged_files(target, hashes=True)
    assert {p.name for p in target.iterdir()} == {"config.json", "model.bin", cache.MARKER}
    assert list(own_cache.iterdir()) == [target]


@pytest.mark.parametrize("existed", [False, True])
def test_atomic_folder_leaves_no_trace_of_a_failure(own_cache, existed):
    target = own_cache / "model"
    if existed:
        with cache.atomic_folder(target) as folder:
            build_two_files(folder)
    with pytest.raises(KeyboardInterrupt), cache.atomic_folder(target) as folder:
        (folder / "half").write_text("half")
        raise KeyboardInterrupt
    assert cache.is_complete(target) == existed
    assert list(own_cache.iterdir()) == ([target] if existed else [])


def test_a_killed_process_leaves_no_target_and_the_next_one_clears_its_rest(own_cache):
    script = (
        "from alignvlm.weights import cache\n"
        "with cache.locked('model'), cache.atomic_folder(cache.cache_dir() / 'model') as folder:\n"
        "    (folder / 'half').write_text('half')\n"
        "    print('writing', flush=True)\n"
        "    input()\n"
    )
    with child(script, own_cache) as process:
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    target = own_cache / "model"
    assert not target.exists()
    assert len(list(own_cache.glob(".model.*.part"))) == 1
    assert cache.is_complete(cache.ensure_folder("model", build_two_files, 0))
    assert not list(own_cache.glob(".model.*.part"))


def assert_names_the_full_disk(error: WeightsError, folder: Path) -> None:
    message = str(error)
    assert str(folder) in message and str(NEEDED_BYTES) in message
    assert "full" in message and "ALIGNVLM_CACHE" in message and "\n" not in message


def test_too_little_space_is_refused_before_anything_is_written(own_cache, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: USAGE(10**9, 10**9, NEEDED_BYTES - 1))
    with pytest.raises(WeightsError) as caught:
        cache.ensure_folder("model", build_two_files, NEEDED_BYTES)
    assert_names_the_full_disk(caught.value, own_cache)
    assert [p.name for p in own_cache.iterdir()] == ["model.lock"]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: USAGE(10**9, 0, NEEDED_BYTES))
    assert cache.is_complete(cache.ensure_folder("model", build_two_files, NEEDED_BYTES))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("moment", ["write", "fsync"])
def test_a_disk_that_fills_up_midway_leaves_nothing(own_cache, monkeypatch, code, moment):
    def fill_up(*_args: object) -> None:
        raise OSError(code, os.strerror(code))

    if moment == "fsync":
        monkeypatch.setattr(os, "fsync", fill_up)
    with pytest.raises(WeightsError) as caught:
        cache.ensure_folder("m", fill_up if moment == "write" else build_two_files, NEEDED_BYTES)
    assert_names_the_full_disk(caught.value, own_cache)
    assert [p.name for p in own_cache.iterdir()] == ["m.lock"]


def test_an_unusable_cache_folder_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        monkeypatch.setenv("ALIGNVLM_CACHE", str(place))
        with pytest.raises(WeightsError, match=r"cannot be stored in .*file.*ALIGNVLM_CACHE"):
            cache.ensure_folder("model", build_two_files, 0)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="only Linux has /proc")
def test_a_cache_that_cannot_be_made_is_named(monkeypatch):
    monkeypatch.setenv("ALIGNVLM_CACHE", "/proc/nope")
    with pytest.raises(WeightsError, match=r"cannot be stored in /proc/nope .*ALIGNVLM_CACHE"):
        cache.ensure_folder("model", build_two_files, 0)


def test_a_file_that_a_builder_misses_is_not_taken_for_the_cache(tmp_path):
    with pytest.raises(FileNotFoundError):
        cache.ensure_folder("model", lambda _: (tmp_path / "absent").read_bytes(), 0)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such modes")
def test_others_can_read_what_the_umask_lets_them(own_cache):
    def build(folder: Path) -> None:
        build_two_files(folder)
        (folder / "below").mkdir()
        (folder / "below" / "private").touch(0o600)
        (folder / "model.bin").chmod(0o600)  # as safetensors does

    before = os.umask(0o027)
    try:
        folder = cache.ensure_folder("model", build, 0)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in own_cache.rglob("*")}
    assert modes.pop("model") == modes.pop("below") == 0o750
    modes.pop("model.lock")
    assert modes == dict.fromkeys(("config.json", "model.bin", "private", cache.MARKER), 0o640)
    assert folder.is_dir()


def test_an_error_that_is_no_refusal_to_write_passes_through(own_cache):
    with pytest.raises(OSError, match="strange") as caught, cache.atomic_folder(own_cache / "m"):
        raise OSError(errno.EIO, "strange")
    assert not isinstance(caught.value, WeightsError)


def test_damage_is_found_by_size_and_by_content():
    folder = cache.ensure_folder("model", build_two_files, 0)
    flipped = bytearray((folder / "model.bin").read_bytes())
    flipped[50] ^= 1
    (folder / "model.bin").write_bytes(flipped)
    assert cache.is_complete(folder)
    assert cache.damaged_files(folder, hashes=True) == ["model.bin"]
    (folder / "model.bin").write_bytes(flipped[:-1])
    (folder / "config.json").unlink()
    assert cache.damaged_files(folder) == ["config.json", "model.bin"]


@pytest.mark.parametrize("marker", ["", "{", "[]", '{"files": 3}', '{"files": {"a": {}}}'])
def test_a_folder_with_a_broken_marker_is_not_complete(marker):
    folder = cache.ensure_folder("model", build_two_files, 0)
    (folder / cache.MARKER).write_text(marker)
    assert cache.damaged_files(folder) == [cache.MARKER]


def test_ensure_folder_builds_once_and_again_only_after_damage(capsys):
    calls: list[Path] = []

    def build(folder: Path) -> None:
        calls.append(folder)
        build_two_files(folder)

    folder = cache.ensure_folder("model", build, 0)
    assert cache.ensure_folder("model", build, 0) == folder
    assert len(calls) == 1 and capsys.readouterr().err == ""
    (folder / "model.bin").write_bytes(b"short")
    cache.ensure_folder("model", build, 0)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(folder) in said and "model.bin" in said
    assert len(calls) == 2 and cache.is_complete(folder)


def test_two_processes_that_race_build_once(own_cache, tmp_path):
    log = tmp_path / "log"
    script = (
        "import sys\n"
        "from alignvlm.weights import cache\n"
        "cache.QUIET_WAIT_S = 0.01\n"
        "def build(folder):\n"
        f"    open({str(log)!r}, 'a').write('built\\n')\n"
        "    print('building', flush=True)\n"
        "    input()\n"
        "    (folder / 'file').write_text('x')\n"
        "print(cache.is_complete(cache.ensure_folder('model', build, 0)))\n"
    )
    with child(script, own_cache) as first:
        assert first.stdout.readline() == "building\n"
        with child(script, own_cache) as second:
            assert second.stderr.readline().startswith("Waiting for another process that prepares")
            assert first.communicate("\n", timeout=60)[0] == "True\n"
            assert second.communicate("\n", timeout=60)[0] == "True\n"
    assert log.read_text() == "built\n"


def test_a_lock_that_stays_taken_ends_in_an_error(own_cache, monkeypatch, capsys):
    monkeypatch.setattr(cache, "QUIET_WAIT_S", 0.01)
    monkeypatch.setattr(cache, "LONGEST_WAIT_S", 0.02)
    own_cache.mkdir()
    with (
        FileLock(own_cache / "model.lock"),
        pytest.raises(WeightsError, match=r"held .*model\.lock"),
        cache.locked("model"),
    ):
        pytest.fail("the lock was taken twice")
    assert capsys.readouterr().err.startswith("Waiting for another process that prepares model")
