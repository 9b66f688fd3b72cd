"""A run that is killed at any instant, or whose disk is full, goes on as if nothing had been.

`ALIGNVLM_KILLS=100` is the long form: that many kills, and a fifth of them again with workers.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import tiny_vlm as tiny
import torch
import warm
from kill_tiny import kill_until, killed_with_a_part_of_the_model, prepare

from alignvlm.errors import AlignVLMError, WeightsError
from alignvlm.files import read_lines
from alignvlm.training import checkpoint
from alignvlm.training.loop import train
from alignvlm.training.tracking import read_log

NUM_KILLS = int(os.environ.get("ALIGNVLM_KILLS", "20"))
IS_LONG = NUM_KILLS > 20


def losses(run: Path) -> list[float]:
    return [record["loss"] for record in read_log(run)]


@pytest.mark.timeout(240 if not IS_LONG else 0)
@pytest.mark.parametrize(
    ("num_kills", "num_workers"), [(NUM_KILLS, 0), *([(NUM_KILLS // 5, 2)] if IS_LONG else [])]
)
def test_killed_at_any_instant(tmp_path: Path, num_kills: int, num_workers: int) -> None:
    """Losses, weights and optimizer, bit for bit: packing, weights, several epochs, dropout."""
    prepare(tmp_path)
    phases, runs = kill_until(tmp_path, num_kills, num_workers)
    assert phases.total() >= num_kills
    assert set(phases) == {"before a checkpoint", "saving", "between saves"}, phases
    whole = tmp_path / "whole"
    assert len(losses(whole)) == 10
    kinds = {record["kind"] for record in read_lines(whole / "quarantine.jsonl")}
    assert kinds == {"broken", "too_long"}
    files = ["model/model.safetensors", "step-00000010/weights.safetensors",
             "step-00000010/optimizer.safetensors"]  # fmt: skip
    for run in runs:
        assert losses(run) == losses(whole)
        for file in files:
            assert (run / file).read_bytes() == (whole / file).read_bytes()
        assert not list(run.glob(".*.part"))
        assert sorted(p.name for p in run.glob("step-*")) == ["step-00000008", "step-00000010"]
        rows = read_lines(run / "quarantine.jsonl")
        assert len({(row["source"], row["key"]) for row in rows}) == len(rows)


class Full:
    """A disk on which the n-th flush of a file fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: str, after: int) -> None:
        self.left, self.folder = after, folder
        self.real = os.fsync
        monkeypatch.setattr(os, "fsync", self)

    def __call__(self, descriptor: int) -> None:
        if self.folder in os.readlink(f"/proc/self/fd/{descriptor}"):
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.real(descriptor)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps that nothing disturbs."""
    run = tmp_path_factory.mktemp("whole")
    train(tiny.make_task(), tiny.config(checkpoint_every=2), run)
    return run


@pytest.fixture(scope="module")
def after_three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("half")

    def stop(step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    # The checkpoint of step 2 is there, that of step 4 would come next.
    with pytest.raises(KeyboardInterrupt):
        train(tiny.make_task(), tiny.config(checkpoint_every=2), run, on_step=stop)
    return run


@pytest.fixture
def half_done(after_three: Path, tmp_path: Path) -> Path:
    """The same run after three of its steps, to be done with as one likes."""
    return shutil.copytree(after_three, tmp_path / "run")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs the names of open files")
@pytest.mark.parametrize("after", [0, 1, 2, 4])
def test_a_full_disk_loses_nothing_older(
    half_done: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    older = {p: p.read_bytes() for p in half_done.rglob("step-*/*")}
    assert older
    with monkeypatch.context() as patch:
        Full(patch, ".step-", after)
        with pytest.raises(AlignVLMError) as raised:
            train(tiny.make_task(), tiny.config(checkpoint_every=2), half_done)
    said = str(raised.value)
    assert "\n" not in said and "step 4" in said and "No space left" in said
    assert "goes on from the checkpoint before" in said
    assert {p: p.read_bytes() for p in half_done.rglob("step-*/*")} == older
    assert not list(half_done.glob(".step-*"))
    train(tiny.make_task(), tiny.config(checkpoint_every=2), half_done)
    assert_same_run(half_done, whole)


def assert_same_run(run: Path, other: Path) -> None:
    assert losses(run) == losses(other)
    ours, theirs = (r / "model" / "model.safetensors" for r in (run, other))
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("write", ["weights.safetensors", "optimizer.safetensors"])
def test_a_write_that_fails(
    half_done: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    """safetensors has an error of its own for a full disk."""
    real = checkpoint.save_file

    def save_file(tensors: dict[str, torch.Tensor], path: Path) -> None:
        if Path(path).name == write:
            Path(path).write_bytes(b"a part")
            raise checkpoint.SafetensorError("I/O error: No space left on device (os error 28)")
        real(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", save_file)
        with pytest.raises(AlignVLMError, match="No space left on device"):
            train(tiny.make_task(), tiny.config(checkpoint_every=2), half_done)
    assert [p.name for p in half_done.glob("*step-*")] == ["step-00000002"]
    train(tiny.make_task(), tiny.config(checkpoint_every=2), half_done)
    assert_same_run(half_done, whole)


@pytest.mark.parametrize("damage", ["no marker", "cut"])
def test_a_folder_that_is_not_whole_is_never_loaded(
    half_done: Path, whole: Path, damage: str
) -> None:
    """A newer one that lacks its marker, or a file of which is cut, counts as none."""
    newer = half_done / "step-00000005"
    shutil.copytree(half_done / "step-00000002", newer)
    state = newer / "state.json"
    state.write_text(json.dumps({"step": 5, "seed": 0}))
    if damage == "no marker":
        (newer / "complete.json").unlink()
    else:
        weights = newer / "weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:-10])
    found = checkpoint.latest(half_done)
    assert found is not None and found.step == 2
    train(tiny.make_task(), tiny.config(checkpoint_every=2), half_done)
    assert_same_run(half_done, whole)


def test_a_whole_folder_that_cannot_be_read_is_named(half_done: Path) -> None:
    folder = half_done / "step-00000002"
    weights = folder / "weights.safetensors"
    weights.write_bytes(b"\xff" * weights.stat().st_size)
    with pytest.raises(WeightsError, match=r"step-00000002 cannot be read \(SafetensorError\)"):
        checkpoint.latest(half_done)


@pytest.mark.parametrize("is_in_place", [False, True])
def test_a_half_written_model_goes_at_the_next_start(
    half_done: Path, whole: Path, tmp_path: Path, is_in_place: bool
) -> None:
    process = warm.start(
        killed_with_a_part_of_the_model, half_done, is_in_place, stderr=tmp_path / "stderr"
    )
    process.join(100)
    assert process.exitcode == -signal.SIGKILL
    (part,) = half_done.glob(".model.*.part")
    assert any(part.rglob("model.safetensors")) != is_in_place
    assert (half_done / "model").exists() == is_in_place
    train(tiny.make_task(), tiny.config(checkpoint_every=2), half_done)
    assert not list(half_done.glob(".*.part"))
    assert_same_run(half_done, whole)


@pytest.mark.parametrize("keep", [1, 3])
def test_as_many_checkpoints_stay_as_asked_for(tmp_path: Path, keep: int) -> None:
    train(tiny.make_task(), tiny.config(checkpoint_every=1, keep=keep, num_steps=5), tmp_path)
    kept = sorted(p.name for p in tmp_path.glob("step-*"))
    assert kept == [f"step-{step:08d}" for step in range(6 - keep, 6)]


def test_what_is_not_whole_is_not_counted_among_those_kept(half_done: Path) -> None:
    """With one kept, a damaged newer folder must not push out the only good one."""
    newer = half_done / "step-00000009"
    shutil.copytree(half_done / "step-00000002", newer)
    (newer / "complete.json").unlink()

    def stop(step: int) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny.make_task(), tiny.config(checkpoint_every=2, keep=1), half_done, on_step=stop)
    found = checkpoint.latest(half_done)
    assert found is not None and found.step == 4


def test_a_kill_between_a_save_and_the_removal_of_older_ones(tmp_path: Path) -> None:
    """The run that only finds its last checkpoint removes what the killed one could not."""
    train(tiny.make_task(), tiny.config(checkpoint_every=1, keep=2, num_steps=4), tmp_path)
    shutil.copytree(tmp_path / "step-00000003", tmp_path / "step-00000002")
    train(tiny.make_task(), tiny.config(checkpoint_every=1, keep=2, num_steps=4), tmp_path)
    kept = sorted(p.name for p in tmp_path.glob("step-*"))
    assert kept == ["step-00000003", "step-00000004"]
