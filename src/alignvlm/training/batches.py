"""Micro-batches of a mixture: planned from lengths, made in worker processes.

Everything is a function of the step: a step's samples are known from its number, their lengths
from their text and image headers, their rows from the lengths, and each process's rows from the
costs. Two loaders work one after the other, a planner a step ahead of the makers of rows, so that
the time of decoding is spread over the workers row by row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch.utils.data import DataLoader, Dataset

from alignvlm.data.sample import Sample
from alignvlm.errors import (
    AlignVLMError,
    ConfigurationError,
    MissingDependencyError,
    TrainingError,
)
from alignvlm.training.configuration import BatchConfig
from alignvlm.training.encoding import Example, Measured, SampleEncoder, TooLongError
from alignvlm.training.packing import collate, counts, pack, share_out
from alignvlm.training.task import MicroBatch, Share
from alignvlm.training.workers import worker_options

__all__ = ["MixtureBatches", "Samples"]

_MAX_ATTEMPTS = 50

# No other sample would do better.
_FINAL = (ConfigurationError, MissingDependencyError)


class Samples(Protocol):
    """A mixture as the planner sees it: `alignvlm.data.mixture.Mixture`."""

    def read(self, position: int, attempt: int = 0) -> Sample:
        """The sample at a position, or the n-th one that may stand in for it."""
        ...

    def where(self, position: int, attempt: int = 0) -> tuple[str, str]:
        """Names of the source and the row, for messages."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Item:
    """A sample of a row: which one it is, and its text."""

    position: int
    attempt: int
    measured: Measured


@dataclass(frozen=True, kw_only=True)
class _RowPlan:
    """What a worker makes one micro-batch of."""

    items: tuple[_Item, ...]
    is_last: bool
    step_weight: int
    quarantined: tuple[dict[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class _Failure:
    """What ends the run, on its way out of a worker: torch would add that worker's traceback."""

    reason: str


class MixtureBatches:
    """The micro-batches of a run.

    Args:
        samples: the mixture.
        encoder: of the model.
        batches: samples a step, room of a row.
        tile_cost: what a tile costs the encoder, in tokens of the language model; for sharing rows
            among processes evenly.
    """

    def __init__(
        self,
        samples: Samples,
        encoder: SampleEncoder,
        batches: BatchConfig,
        tile_cost: float = 0.0,
    ) -> None:
        self._planner = _Planner(samples, encoder, batches, tile_cost)
        self._maker = _Maker(samples, encoder, batches)

    def __call__(
        self, num_steps: int, first_step: int, share: Share, num_workers: int
    ) -> Iterator[MicroBatch]:
        """See `Task.micro_batches`."""
        self._planner.share = share
        plans = DataLoader(
            self._planner,
            batch_size=None,
            sampler=range(first_step, num_steps),
            **worker_options(min(1, num_workers)),
        )
        rows = _RowSampler(plans)
        made = DataLoader(self._maker, batch_size=None, sampler=rows, **worker_options(num_workers))
        for micro_batch in made:
            yield _checked(micro_batch)


class _RowSampler:
    """Hands the planner's rows on to the makers, one by one."""

    def __init__(self, plans: DataLoader) -> None:
        self._plans = plans

    def __iter__(self) -> Iterator[_RowPlan]:
        for rows in self._plans:
            yield from _checked(rows)


class _Planner(Dataset):
    """A step to this process's rows."""

    share = Share()

    def __init__(
        self, samples: Samples, encoder: SampleEncoder, batches: BatchConfig, tile_cost: float
    ) -> None:
        self._samples, self._encoder, self._batches = samples, encoder, batches
        self._tile_cost = tile_cost

    def __getitem__(self, step: int) -> list[_RowPlan] | _Failure:
        try:
            return self._plan(step)
        except AlignVLMError as error:
            return _Failure(reason=str(error))

    def _plan(self, step: int) -> list[_RowPlan]:
        size = self._batches.num_samples
        quarantined: list[dict[str, Any]] = []
        items = [
            self._measure(position, quarantined)
            for position in range(step * size, (step + 1) * size)
        ]
        sizes = [item.measured for item in items]
        if self._batches.pack:
            rows = pack(sizes, self._batches.max_tokens, self._batches.max_tiles)
        else:
            rows = [[index] for index in range(len(items))]
        costs = [
            sum(sizes[i].num_tokens + self._tile_cost * sizes[i].num_tiles for i in row)
            for row in rows
        ]
        mine = share_out(costs, self.share.num_processes)[self.share.rank]
        weight = sum(size.num_supervised for size in sizes)
        return [
            _RowPlan(
                items=tuple(items[i] for i in rows[index]) if index >= 0 else (),
                is_last=number == len(mine) - 1,
                step_weight=weight,
                quarantined=tuple(quarantined) if number == 0 else (),
            )
            for number, index in enumerate(mine)
        ]

    def _measure(self, position: int, quarantined: list[dict[str, Any]]) -> _Item:
        for attempt in range(_MAX_ATTEMPTS):
            try:
                sample = self._samples.read(position, attempt)
                measured = self._encoder.measure(sample)
                return _Item(position=position, attempt=attempt, measured=measured)
            except _FINAL:
                raise
            except Exception as error:  # strangers' data, read by strangers' code
                quarantined.append(_record(self._samples, position, attempt, error))
        raise TrainingError(
            f"{_MAX_ATTEMPTS} samples one after the other cannot be used (last: "
            f"{quarantined[-1]['reason']}): repair the data, see alignvlm data check"
        )


class _Maker(Dataset):
    """A row's plan to its tensors."""

    def __init__(self, samples: Samples, encoder: SampleEncoder, batches: BatchConfig) -> None:
        self._samples, self._encoder, self._batches = samples, encoder, batches

    def __getitem__(self, plan: _RowPlan) -> MicroBatch | _Failure:
        try:
            return self._micro_batch(plan)
        except AlignVLMError as error:
            return _Failure(reason=str(error))

    def _micro_batch(self, plan: _RowPlan) -> MicroBatch:
        quarantined = list(plan.quarantined)
        sizes = [item.measured for item in plan.items]
        room = [
            max(0, self._batches.max_tokens - sum(size.num_tokens for size in sizes)),
            max(0, self._batches.max_tiles - sum(size.num_tiles for size in sizes)),
        ]
        examples: list[Example] = []
        keys: list[str] = []
        for item in plan.items:
            found = self._make(item, room, quarantined)
            if found is not None:
                keys.append(found[0])
                examples.append(found[1])
        tensors = self._tensors(examples)
        return MicroBatch(
            tensors=tensors,
            is_last=plan.is_last,
            step_weight=plan.step_weight,
            counts=counts(examples, tensors["input_ids"].shape[1]),
            keys=tuple(keys),
            quarantined=tuple(quarantined),
        )

    def _tensors(self, examples: list[Example]) -> dict[str, Any]:
        if self._batches.pack:
            return collate(examples)
        if not examples:
            row = collate(())
            return {name: row[name] for name in ("input_ids", "labels")}
        (example,) = examples
        one_row = {"input_ids", "labels"}
        return {
            name: tensor[None] if name in one_row else tensor
            for name, tensor in example.tensors.items()
        }

    def _make(
        self, item: _Item, room: list[int], quarantined: list[dict[str, Any]]
    ) -> tuple[str, Example] | None:
        """The sample, or where its images turn out damaged the next one that fits in its place."""
        size = item.measured
        for attempt in range(item.attempt, item.attempt + _MAX_ATTEMPTS):
            try:
                sample = self._samples.read(item.position, attempt)
                measured = size if attempt == item.attempt else self._encoder.measure(sample)
                tokens = measured.num_tokens - size.num_tokens
                tiles = measured.num_tiles - size.num_tiles
                if tokens > room[0] or tiles > room[1]:
                    continue
                example = self._encoder.encode(sample, measured)
                room[0] -= tokens
                room[1] -= tiles
                return "/".join(_where(self._samples, item.position, attempt)), example
            except _FINAL:
                raise
            except Exception as error:  # strangers' data, read by strangers' code
                quarantined.append(_record(self._samples, item.position, attempt, error))
        return None


def _record(samples: Samples, position: int, attempt: int, error: Exception) -> dict[str, Any]:
    source, key = _where(samples, position, attempt)
    kind = "too_long" if isinstance(error, TooLongError) else "broken"
    reason = str(error) if isinstance(error, AlignVLMError) else f"{type(error).__name__}: {error}"
    return {"source": source, "key": key, "reason": reason, "kind": kind}


def _where(samples: Samples, position: int, attempt: int) -> tuple[str, str]:
    try:
        return samples.where(position, attempt)
    except Exception:  # what cannot be read may be what cannot be named
        return "unknown", f"position {position}, attempt {attempt}"


def _checked(made: Any) -> Any:
    """What a worker made, unless it is the end of the run."""
    if isinstance(made, _Failure):
        raise TrainingError(made.reason)
    return made
