"""One process or several: who does what, and how they wait for each other.

Accelerate finds the other processes, whoever started them (`accelerate launch`, `torchrun`). They
talk over gloo on the CPU, also beside GPUs: one that is done first may have to wait for hours,
which NCCL takes for a fault. torch is imported only where there are several.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from alignvlm.errors import AlignVLMError, InputError

__all__ = ["Processes", "RepeatedError", "open_processes"]

T = TypeVar("T")

_PATIENCE = timedelta(days=7)


class RepeatedError(AlignVLMError):
    """What ended another process, which says it itself."""


@dataclass(frozen=True)
class Processes:
    """This process among those of a run.

    Attributes:
        rank: its number.
        num_processes: how many there are.
        device: the one that is this process's own; None: the user's choice stands.
    """

    rank: int = 0
    num_processes: int = 1
    device: str | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes what all of them share."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """What every process passes, in their order; all processes, and each waits for all.

        Raises:
            InputError: another process has ended; a RepeatedError in all but the main one.
        """
        if self.num_processes == 1:
            return [value]
        import torch.distributed

        gathered: list[T] = [value] * self.num_processes
        try:
            torch.distributed.all_gather_object(gathered, value)
        except RuntimeError as error:
            kind = InputError if self.is_main else RepeatedError
            raise kind("A process of this run has ended: the same command goes on") from error
        return gathered

    @contextmanager
    def together(self) -> Iterator[None]:
        """What ends one process in this block ends all of them; all processes.

        Raises:
            AlignVLMError: this process's own, in the first that has one.
            RepeatedError: in the others.
        """
        failure: AlignVLMError | None = None
        try:
            yield
        except AlignVLMError as error:
            failure = error
        found = self.gather(failure and (str(failure), failure.exit_code))
        first = next((rank for rank, text in enumerate(found) if text is not None), None)
        if first is None:
            return
        if failure is not None and first == self.rank:
            raise failure
        text, exit_code = found[first] or ("", 1)
        repeated = RepeatedError(text)
        repeated.exit_code = exit_code
        raise repeated


def open_processes(device: str = "auto") -> Processes:
    """This process among those that a launcher has started; alone where none has.

    Args:
        device: what the user asked for; a bare "auto" or "cuda" becomes each process's own GPU.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Processes()
    import torch
    from accelerate import PartialState

    on_cpu = device == "cpu" or not torch.cuda.is_available()
    state = PartialState(cpu=on_cpu, backend="gloo", timeout=_PATIENCE)
    own = str(state.device) if device in ("auto", "cuda") else None
    return Processes(state.process_index, state.num_processes, own)
