"""How fast a run is and where its time goes: sums over a window of steps, and rates from them."""

from __future__ import annotations

import re
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields

import torch
from torch import Tensor

__all__ = ["Meter", "Sums", "peak_flops", "peak_memory_bytes"]

# Dense bfloat16 operations a second of the tensor cores, without sparsity, with sums in float32.
# From the vendors' data sheets: NVIDIA "A100 Tensor Core GPU", "A30", "A10", "A40", "H100" (SXM,
# PCIe and NVL columns), "H200" (SXM and NVL), "L4", "L40", "L40S", "HGX B200" (a GPU's eighth),
# where a sheet gives the rate with sparsity, half of it; the white papers of the GA102, Ada and
# Blackwell GeForce architectures; AMD "Instinct MI300X" and "MI250X" (one of its two dies, which
# is what torch calls a device). All words of a key must be words of the device's name; of two
# keys that fit, the longer one counts.
_PEAK_FLOPS: dict[str, float] = {
    "A100": 312e12,
    "A30": 165e12,
    "A10": 125e12,
    "A40": 149.7e12,
    "H100": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H200": 989e12,
    "H200 NVL": 835e12,
    "GH200": 989e12,
    "B200": 2250e12,
    "L4": 121e12,
    "L40": 181e12,
    "L40S": 362e12,
    "RTX A6000": 154.8e12,
    "RTX 6000 Ada": 364e12,
    "GeForce RTX 3090": 71e12,
    "GeForce RTX 4090": 165.2e12,
    "GeForce RTX 5090": 209.5e12,
    "MI300X": 1307e12,
    "MI250X": 191.5e12,
}
# Slower versions that carry the same name.
_OTHERWISE = {"MIG", "Laptop", "Max", "Mobile", "D", "Ti"}


@dataclass(frozen=True, kw_only=True)
class Sums:
    """What happened in a window of steps, on one process or, added up, on several.

    Attributes:
        processes: how many processes these sums are of.
        seconds: of wall clock, added over the processes.
        wait_seconds: of those, waiting for data.
        steps: optimizer steps, counted by every process.
        micro_batches, samples: forward passes, and the samples in them.
        text_tokens, visual_tokens: positions that hold them.
        padding_tokens: positions that hold nothing.
        tiles: encoded.
        flops: floating-point operations of the model, forward and backward, vision and connector
            included; 0 if unknown.
    """

    processes: float = 1.0
    seconds: float = 0.0
    wait_seconds: float = 0.0
    steps: float = 0.0
    micro_batches: float = 0.0
    samples: float = 0.0
    text_tokens: float = 0.0
    visual_tokens: float = 0.0
    padding_tokens: float = 0.0
    tiles: float = 0.0
    flops: float = 0.0

    def __add__(self, other: Sums) -> Sums:
        """The sums of both, of other processes in the same window."""
        theirs = asdict(other)
        return Sums(**{name: value + theirs[name] for name, value in asdict(self).items()})

    def to_tensor(self, device: torch.device | str = "cpu") -> Tensor:
        """float64 in the order of the attributes; adding these up over processes adds the sums."""
        return torch.tensor(list(asdict(self).values()), dtype=torch.float64, device=device)

    @classmethod
    def from_tensor(cls, tensor: Tensor) -> Sums:
        """Inverse of `to_tensor`."""
        names = [field.name for field in fields(cls)]
        return cls(**dict(zip(names, tensor.tolist(), strict=True)))

    def rates(self, peak: float | None = None) -> dict[str, float]:
        """What is logged; a figure that nothing was counted for is left out.

        Args:
            peak: of one process's device, floating-point operations a second.

        Returns:
            `text_tokens_per_s`, `visual_tokens_per_s`, `tiles_per_s` and `samples_per_s` of all
            processes together; `seconds_per_step`; `data_wait_share` of the time, `padding_share`
            of all positions, `mfu` (operations of the model over those of the devices in the same
            time), from 0 to 1.
        """
        if self.seconds <= 0:
            return {}
        wall = self.seconds / self.processes
        counted = {
            "text_tokens_per_s": self.text_tokens / wall,
            "visual_tokens_per_s": self.visual_tokens / wall,
            "tiles_per_s": self.tiles / wall,
            "samples_per_s": self.samples / wall,
        }
        found = {name: rate for name, rate in counted.items() if rate > 0}
        if self.steps:
            found["seconds_per_step"] = self.seconds / self.steps
        found["data_wait_share"] = self.wait_seconds / self.seconds
        positions = self.text_tokens + self.visual_tokens + self.padding_tokens
        if positions:
            found["padding_share"] = self.padding_tokens / positions
        if peak and self.flops:
            found["mfu"] = self.flops / (self.seconds * peak)
        return found


class Meter:
    """Counts what one process does between two log lines.

    The clock runs all the time but for what is `paused`. On a GPU, work is only queued: call
    `take` after the step's loss has been read, which waits for it.

    Args:
        clock: seconds, rising.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._counts: dict[str, float] = {}
        self._started = clock()
        self._waited = self._paused = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the wait for the next micro-batch."""
        start = self._clock()
        try:
            yield
        finally:
            self._waited += self._clock() - start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Around what is no training: checkpoints, evaluation, figures of health."""
        start = self._clock()
        try:
            yield
        finally:
            self._paused += self._clock() - start

    def add(self, counts: Mapping[str, float] | None = None, **more: float) -> None:
        """Count, by names of `Sums`; one micro-batch is counted as well.

        Args:
            counts: e.g. `{"samples": 4, "tiles": 7}`.
            **more: further ones.

        Raises:
            KeyError: `Sums` has no such count.
        """
        for name, value in {"micro_batches": 1, **(counts or {}), **more}.items():
            if name not in _COUNTS:
                raise KeyError(name)
            self._counts[name] = self._counts.get(name, 0.0) + value

    def end_step(self) -> None:
        """Count an optimizer step."""
        self._counts["steps"] = self._counts.get("steps", 0.0) + 1

    def take(self) -> Sums:
        """The sums since the last call, or since the start; the next window begins."""
        now = self._clock()
        seconds = now - self._started - self._paused
        sums = Sums(seconds=seconds, wait_seconds=self._waited, **self._counts)
        self._started, self._waited, self._paused = now, 0.0, 0.0
        self._counts = {}
        return sums


_COUNTS = {field.name for field in fields(Sums)} - {
    "processes", "seconds", "wait_seconds", "steps",
}  # fmt: skip


def peak_flops(device: torch.device | str) -> float | None:
    """Dense bfloat16 operations a second that the device's maker states, None if not known here."""
    device = torch.device(device)
    return _peak_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def _peak_of(name: str) -> float | None:
    words = set(re.findall(r"[A-Za-z0-9]+", name))
    fitting = [key for key in _PEAK_FLOPS if set(key.split()) <= words]
    if not fitting or words & _OTHERWISE:
        return None
    return _PEAK_FLOPS[max(fitting, key=len)]


def peak_memory_bytes(device: torch.device | str) -> int:
    """Most memory this process has held: torch's on a CUDA device, else the resident set.

    Worker processes are not included.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes on Linux
