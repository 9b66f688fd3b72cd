from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignvlm.training import meter as module
from alignvlm.training.meter import Meter, Sums, peak_flops, peak_memory_bytes


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_window_of_two_steps() -> None:
    clock = Clock()
    meter = Meter(clock)
    for _ in range(2):
        with meter.waiting():
            clock.now += 1.0
        meter.add({"samples": 4, "text_tokens": 600, "visual_tokens": 1000}, tiles=5, flops=2e12)
        clock.now += 3.0
        meter.add(samples=4, text_tokens=200, padding_tokens=200)
        meter.end_step()
        with meter.paused():
            clock.now += 100.0
    sums = meter.take()
    assert sums == Sums(
        seconds=8.0, wait_seconds=2.0, steps=2, micro_batches=4, samples=16, text_tokens=1600,
        visual_tokens=2000, padding_tokens=400, tiles=10, flops=4e12,
    )  # fmt: skip
    assert sums.rates(peak=1e12) == {
        "text_tokens_per_s": 200.0,
        "visual_tokens_per_s": 250.0,
        "tiles_per_s": 1.25,
        "samples_per_s": 2.0,
        "seconds_per_step": 4.0,
        "data_wait_share": 0.25,
        "padding_share": 0.1,
        "mfu": 0.5,
    }


def test_windows_do_not_overlap() -> None:
    clock = Clock()
    meter = Meter(clock)
    with meter.waiting():
        clock.now += 2.0
    meter.add(tiles=1)
    meter.take()
    clock.now += 5.0
    meter.end_step()
    assert meter.take() == Sums(seconds=5.0, steps=1)


def test_a_wait_that_fails_counts_as_well() -> None:
    clock = Clock()
    meter = Meter(clock)
    with pytest.raises(StopIteration), meter.waiting():
        clock.now += 2.0
        raise StopIteration
    assert meter.take().wait_seconds == 2.0


def test_two_processes_of_which_one_waits() -> None:
    """Each takes the same ten seconds; together they do the work of both in ten seconds."""
    one = Sums(seconds=10, wait_seconds=5, steps=2, text_tokens=100, flops=6e12)
    two = Sums(seconds=10, steps=2, text_tokens=300, visual_tokens=50, flops=6e12)
    rates = (one + two).rates(peak=1e12)
    assert rates == {
        "text_tokens_per_s": 40.0,
        "visual_tokens_per_s": 5.0,
        "seconds_per_step": 5.0,
        "data_wait_share": 0.25,
        "padding_share": 0.0,
        "mfu": 0.6,
    }


@given(st.lists(st.floats(0, 1e15), min_size=len(fields(Sums)), max_size=len(fields(Sums))))
def test_sums_survive_the_way_through_a_tensor(values: list[float]) -> None:
    sums = Sums(**dict(zip([field.name for field in fields(Sums)], values, strict=True)))
    tensor = sums.to_tensor()
    assert tensor.dtype == torch.float64
    assert Sums.from_tensor(tensor) == sums
    assert Sums.from_tensor(tensor + Sums().to_tensor()) == sums + Sums()


def test_nothing_counted_gives_no_figures() -> None:
    assert Sums().rates(peak=1e12) == {}
    assert set(Sums(seconds=1).rates(peak=1e12)) == {"data_wait_share"}
    assert "mfu" not in Sums(seconds=1, flops=1).rates(peak=None)


@pytest.mark.parametrize("name", ["tokens", "seconds", "steps"])
def test_an_unknown_count_is_an_error(name: str) -> None:
    with pytest.raises(KeyError, match=name):
        Meter().add({name: 1})


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA GH200 480GB", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100-PCIE-40GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40", 181e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA RTX 6000 Ada Generation", 364e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("AMD Instinct MI300X", 1307e12),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 3090 Ti", None),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", None),
        ("NVIDIA A10G", None),
        ("Tesla T4", None),
    ],
)
def test_peaks_by_the_names_that_drivers_give(
    monkeypatch: pytest.MonkeyPatch, name: str, peak: float | None
) -> None:
    monkeypatch.setattr(module.torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops("cuda:0") == peak


def test_a_processor_has_no_known_peak() -> None:
    assert peak_flops("cpu") is None


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="no /proc")
def test_peak_memory_is_what_the_kernel_says() -> None:
    lines = Path("/proc/self/status").read_text().splitlines()
    kernel = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    assert peak_memory_bytes("cpu") == pytest.approx(kernel, rel=0.05)
