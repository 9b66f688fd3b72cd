"""Peak memory: of CUDA's allocator, or of a fresh process where the work runs on a CPU.

A CPU process keeps what it once used, so each figure needs a process of its own. They are forked
from a server that has imported the packages and done nothing else: starting one takes no time, and
no earlier measurement is in it.
"""

from __future__ import annotations

import gc
import multiprocessing
import resource
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, final

import torch

from alignvlm.errors import InputError, UsageError
from alignvlm.inference.hardware import choose_device

__all__ = ["CpuRunner", "CudaRunner", "Runner", "choose_runner"]

P = ParamSpec("P")
R = TypeVar("R")

_PRELOADED = (
    "alignvlm.analysis.runtime",
    "transformers.models.llama.modeling_llama",
    "transformers.models.siglip.modeling_siglip",
)


class Runner(ABC):
    """Runs a measurement where its memory can be told from everything else's.

    Attributes:
        device: where the work runs.
        memory_is: what `peak_bytes` is, in words.
    """

    device: torch.device
    memory_is: str

    @abstractmethod
    def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Returns `function(*args, **kwargs)`, called where nothing was measured before."""

    @abstractmethod
    def synchronize(self) -> None:
        """Waits until the device has done all that was asked of it."""

    @abstractmethod
    def mark(self) -> Any:
        """This point in the device's work."""

    @abstractmethod
    def seconds_between(self, start: Any, end: Any) -> float:
        """Seconds that the device took from one mark to another; both are in the past."""

    @abstractmethod
    def restart(self) -> None:
        """Begins the count of `peak_bytes` where the device can; else it began with `run`."""

    @abstractmethod
    def held_bytes(self) -> int:
        """Memory in use now."""

    @abstractmethod
    def peak_bytes(self) -> int:
        """Most memory in use since `restart`."""


@final
class CudaRunner(Runner):
    """Runs in this process; PyTorch's allocator counts exactly."""

    memory_is = (
        "the most that PyTorch's CUDA allocator held at once (max_memory_allocated), weights "
        "included, the CUDA context not"
    )

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """See `Runner.run`."""
        gc.collect()  # modules know each other: the last model goes only now
        return function(*args, **kwargs)

    def synchronize(self) -> None:
        """See `Runner.synchronize`."""
        torch.cuda.synchronize(self.device)

    def mark(self) -> Any:
        """See `Runner.mark`."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def seconds_between(self, start: Any, end: Any) -> float:
        """See `Runner.seconds_between`."""
        return float(start.elapsed_time(end)) / 1e3

    def restart(self) -> None:
        """See `Runner.restart`."""
        torch.cuda.reset_peak_memory_stats(self.device)

    def held_bytes(self) -> int:
        """See `Runner.held_bytes`."""
        return torch.cuda.memory_allocated(self.device)

    def peak_bytes(self) -> int:
        """See `Runner.peak_bytes`."""
        return torch.cuda.max_memory_allocated(self.device)


@final
class CpuRunner(Runner):
    """Runs in a fresh process with as many threads as this one; the system counts its pages."""

    device = torch.device("cpu")
    memory_is = (
        "the largest resident set of a fresh process, with Python, the libraries and the weights"
    )

    def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """See `Runner.run`.

        Raises:
            InputError: the process was ended from outside, which is what systems do that run out
                of memory.
        """
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(_PRELOADED))
        threads = torch.get_num_threads()
        with ProcessPoolExecutor(1, context, torch.set_num_threads, (threads,)) as process:
            try:
                return process.submit(function, *args, **kwargs).result()
            except BrokenProcessPool as error:
                raise InputError(
                    "A process that measures memory was ended, most likely because there is too "
                    "little: close other programs, or choose a smaller preset or fewer tiles"
                ) from error

    def synchronize(self) -> None:
        """See `Runner.synchronize`."""

    def mark(self) -> Any:
        """See `Runner.mark`."""
        return time.perf_counter()

    def seconds_between(self, start: Any, end: Any) -> float:
        """See `Runner.seconds_between`."""
        return float(end - start)

    def restart(self) -> None:
        """See `Runner.restart`."""

    def held_bytes(self) -> int:
        """See `Runner.held_bytes`; where the system does not tell, the peak until now."""
        status = Path("/proc/self/statm")
        if status.is_file():
            return int(status.read_text(encoding="ascii").split()[1]) * resource.getpagesize()
        return self.peak_bytes()

    def peak_bytes(self) -> int:
        """See `Runner.peak_bytes`."""
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def choose_runner(device: str) -> Runner:
    """The runner for "auto" (a CUDA GPU, else the CPU), "cpu", "cuda" or e.g. "cuda:1".

    Raises:
        UsageError: there is no such device, or its peak memory cannot be told.
    """
    chosen = choose_device(device)
    if chosen.type == "cuda":
        return CudaRunner(chosen)
    if chosen.type != "cpu" and device != "auto":
        raise UsageError(f"The peak memory of {device!r} cannot be told: choose cpu or cuda")
    return CpuRunner()
