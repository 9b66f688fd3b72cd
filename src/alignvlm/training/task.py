"""What the loop trains, and what it is fed with: tasks, micro-batches, losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from alignvlm.training.workers import worker_options

__all__ = ["IndexedTask", "Loss", "MicroBatch", "Share", "Source", "Task"]


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which part of every step a process takes.

    Attributes:
        rank: this process.
        num_processes: all of them; what they take together is the same for any number.
    """

    rank: int = 0
    num_processes: int = 1


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """What one forward and backward pass sees.

    Attributes:
        tensors: the arguments of `Task.loss`.
        is_last: whether the optimizer steps after it.
        step_weight: what the weights of the whole step add up to, over all processes, as planned:
            a sample that is damaged counts as much as it promised, whatever stands in for it. None
            where a process has a single micro-batch a step: then they are asked.
        counts: what the meter adds up, by names of `alignvlm.training.meter.Sums`.
        keys: names of the samples, for the report of a step that went wrong.
        quarantined: samples that could not be used, see `alignvlm.training.quarantine`.
    """

    tensors: dict[str, Tensor]
    is_last: bool
    step_weight: int | None = None
    counts: Mapping[str, float] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    quarantined: tuple[dict[str, Any], ...] = ()


class Loss(NamedTuple):
    """The loss of a micro-batch, not yet divided by anything.

    Attributes:
        total: sum over what is supervised, a scalar with a gradient.
        weight: how many things that are; the step's loss is the sum of the totals over the sum of
            the weights, over all micro-batches and processes.
        metrics: further (sum, weight) pairs to log as means.
    """

    total: Tensor
    weight: int
    metrics: dict[str, tuple[float, float]]


class Task(ABC):
    """What is trained: modules, where the samples come from, and a loss."""

    @property
    @abstractmethod
    def module(self) -> nn.Module:
        """Holds every trained parameter."""

    @abstractmethod
    def micro_batches(self, config: Any, first_step: int, share: Share) -> Iterator[MicroBatch]:
        """This process's micro-batches of the steps from `first_step` (counted from 0) on.

        All processes get equally many for every step. They depend on the step alone, never on
        what was asked for before.

        Args:
            config: the run's `TrainConfig`.
            first_step: the first step that is wanted.
            share: which process this is.
        """

    @abstractmethod
    def loss(self, batch: dict[str, Tensor]) -> Loss:
        """The loss of one micro-batch."""

    def learning_rate_factor(self, name: str) -> float:
        """Factor on the learning rate of the parameter called `name`; the same within a part."""
        return 1.0

    def part(self, name: str) -> str:
        """The part of the model that the parameter called `name` belongs to, for tables."""
        return name.partition(".")[0]

    def recipe(self) -> dict[str, Any]:
        """The resolved recipe as JSON values; empty: the loop's settings are all there is."""
        return {}

    def inspect(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """What else to log now and then, without a gradient; nothing in most tasks."""
        return {}

    def finish(  # noqa: B027, most tasks have nothing to write
        self, run_folder: Path, whole: Callable[[Tensor], Tensor], *, writes: bool
    ) -> None:
        """Writes what the run was for once its last step is done; nothing in most tasks.

        Args:
            run_folder: of the run.
            whole: gathers a tensor that is spread over processes; all of them must call it alike.
            writes: whether this process writes files.
        """


class Source(ABC):
    """Samples, each a function of its index alone; copied to the worker processes."""

    @abstractmethod
    def sample(self, index: int) -> Any:
        """The sample at `index`, the same one whenever it is asked for."""

    @abstractmethod
    def collate(self, samples: list[Any]) -> dict[str, Tensor]:
        """Samples to a batch of tensors, of the same shapes at every step where that is possible.

        Shapes that vary make the memory of a CPU run grow from step to step.
        """


class IndexedTask(Task):
    """A task whose samples are a function of their index: one micro-batch a step and process."""

    @property
    @abstractmethod
    def source(self) -> Source:
        """Where the samples come from."""

    def micro_batches(self, config: Any, first_step: int, share: Share) -> Iterator[MicroBatch]:
        """See `Task.micro_batches`; a step has `config.batch_size` samples."""
        size, source = config.batch_size, self.source
        loader = DataLoader(
            _Samples(source, config.num_steps * size),
            batch_sampler=[
                list(range(step * size + share.rank, (step + 1) * size, share.num_processes))
                for step in range(first_step, config.num_steps)
            ],
            collate_fn=source.collate,
            **worker_options(config.num_workers),
        )
        for tensors in loader:
            yield MicroBatch(tensors=tensors, is_last=True)


class _Samples(Dataset):
    """A source as torch's loader wants it."""

    def __init__(self, source: Source, num_samples: int) -> None:
        self._source = source
        self._num_samples = num_samples

    def __len__(self) -> int:
        return self._num_samples

    def __getitem__(self, index: int) -> Any:
        return self._source.sample(index)
