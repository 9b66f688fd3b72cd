"""Fresh processes are started in earnest; a GPU is not at hand."""

from __future__ import annotations

import mmap
import os
from typing import Any

import pytest
import torch

from alignvlm.analysis.runtime import Workload, choose_runner, measure_scaling, memory
from alignvlm.analysis.runtime.memory import CpuRunner, CudaRunner
from alignvlm.errors import InputError, UsageError


def test_a_process_of_its_own_with_as_many_threads() -> None:
    runner = CpuRunner()
    assert len({os.getpid(), runner.run(os.getpid), runner.run(os.getpid)}) == 3
    assert runner.run(torch.get_num_threads) == torch.get_num_threads() == 1


def test_the_peak_is_what_a_pass_adds(workload: Workload) -> None:
    (small, large) = measure_scaling(
        workload, ["linear"], CpuRunner(), torch.float32, tiles=(1, 20_000), vocabularies=(8,)
    )
    output = 20_000 * 16 * 32 * 4
    assert output <= large.extra_bytes < 1.5 * output
    assert small.extra_bytes < 0.25 * output, "another process: nothing of the large one is in it"


def test_a_process_that_the_system_ends() -> None:
    with pytest.raises(InputError, match="was ended, most likely because there is too little"):
        CpuRunner().run(os._exit, 1)


def test_memory_of_this_process() -> None:
    runner = CpuRunner()
    held = runner.held_bytes()
    num_bytes = 64 * 2**20
    with mmap.mmap(-1, num_bytes) as kept:  # from the system, never from what was freed earlier
        kept.write(b"1" * num_bytes)
        assert runner.held_bytes() - held > 0.9 * num_bytes
    assert runner.peak_bytes() >= 0.99 * runner.held_bytes()  # the kernel counts the two apart


def test_time_of_this_process() -> None:
    runner = CpuRunner()
    marks = [runner.mark(), runner.mark(), runner.mark()]
    whole = runner.seconds_between(marks[0], marks[2])
    assert 0 <= runner.seconds_between(marks[0], marks[1]) <= whole


@pytest.mark.parametrize(
    ("asked", "found", "kind"),
    [("auto", "cuda", CudaRunner), ("cuda:1", "cuda:1", CudaRunner), ("auto", "mps", CpuRunner),
     ("auto", "cpu", CpuRunner), ("cpu", "cpu", CpuRunner)],
)  # fmt: skip
def test_the_runner_of_a_device(
    asked: str, found: str, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "choose_device", lambda name: torch.device(found))
    runner = choose_runner(asked)
    assert type(runner) is kind
    assert runner.device == torch.device("cpu" if kind is CpuRunner else found)


def test_a_device_whose_memory_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "choose_device", torch.device)
    with pytest.raises(UsageError, match="'mps' cannot be told: choose cpu or cuda"):
        choose_runner("mps")


def test_cuda_is_asked_about_the_chosen_device(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Any]] = []
    for name in ("synchronize", "reset_peak_memory_stats", "memory_allocated",
                 "max_memory_allocated"):  # fmt: skip
        monkeypatch.setattr(
            torch.cuda, name, lambda device, name=name: asked.append((name, device)) or 5
        )
    device = torch.device("cuda:1")
    runner = CudaRunner(device)
    runner.synchronize()
    runner.restart()
    assert (runner.run(runner.held_bytes), runner.peak_bytes()) == (5, 5)
    assert {where for _, where in asked} == {device}
    assert len({name for name, _ in asked}) == 4
