"""The training loop: steps that depend on their number alone, exact resume, one log line a step.

A step's loss is the sum over everything that is supervised in it, divided by how much that is,
over all micro-batches and processes: one micro-batch of eight samples and eight of one give the
same gradient.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alignvlm.errors import ConfigurationError, TrainingError
from alignvlm.training import checkpoint as checkpoints
from alignvlm.training.files import write_atomically
from alignvlm.training.health import collapse_warning
from alignvlm.training.meter import Meter, Sums, peak_flops, peak_memory_bytes
from alignvlm.training.optimizer import make_optimizer, trained_parts
from alignvlm.training.processes import Processes
from alignvlm.training.quarantine import Quarantine
from alignvlm.training.run_folder import write_provenance, write_trained_parts
from alignvlm.training.schedule import TrainConfig, learning_rate_at
from alignvlm.training.task import Loss, MicroBatch, Task
from alignvlm.training.tracking import Tracker

__all__ = ["Evaluate", "train"]

Evaluate = Callable[[nn.Module], dict[str, float]]
"""Scores of a model under training; called on every process, with the model in eval mode."""

# What a run may change when it goes on: none of these changes which samples it sees.
_FREE = {
    "num_workers", "device", "sharding", "checkpoint_every", "keep", "learning_rate", "trackers",
    "inspect_every", "evaluate_every",
}  # fmt: skip


def train(
    task: Task,
    config: TrainConfig,
    run_folder: Path,
    *,
    on_step: Callable[[int], None] | None = None,
    evaluate: Evaluate | None = None,
    max_bad_share: float = 0.01,
) -> int:
    """Train until `config.num_steps`, going on from the newest checkpoint in `run_folder`.

    SIGTERM and SIGINT end the run after the step under way, with a checkpoint.

    Args:
        task: what is trained.
        config: how long and how fast.
        run_folder: holds checkpoints and log; made if it is not there.
        on_step: called with the number of steps done after each of them.
        evaluate: called every `config.evaluate_every` steps and after the last one.
        max_bad_share: the run stops when more samples than this share had to be replaced.

    Returns:
        The number of steps done.

    Raises:
        ConfigurationError: the folder holds a run of another model or configuration.
        TrainingError: a loss or a gradient is not finite, or too many samples are broken.
    """
    processes = Processes(config)
    if processes.is_main:
        run_folder.mkdir(parents=True, exist_ok=True)
        _check_same_configuration(run_folder, config)
    processes.wait()
    run = _Run(task, config, run_folder, processes, max_bad_share)
    tracker = _start(task, config, run, processes)
    try:
        with _StopOnSignal() as stop:
            is_ended = is_collapsed = False
            batches = task.micro_batches(config, run.step, processes.share)
            while run.step < config.num_steps and not is_ended:
                record, is_ended = run.advance(batches, stop)
                if evaluate is not None and _is_due(run.step, config.evaluate_every, config):
                    record |= run.evaluate(evaluate)
                if tracker is not None:
                    tracked = {"step": run.step, **record}
                    is_collapsed = _report(tracker, tracked, is_collapsed)
                if on_step is not None:
                    on_step(run.step)
                if is_ended or _is_due(run.step, config.checkpoint_every, config):
                    run.save()
        if run.step >= config.num_steps:
            task.finish(run_folder, processes.whole, writes=processes.is_main)
    finally:
        if tracker is not None:
            tracker.close()
    return run.step


def _start(task: Task, config: TrainConfig, run: _Run, processes: Processes) -> Tracker | None:
    """Says in the run's folder what begins here; the tracker of the process that writes."""
    if not processes.is_main:
        return None
    recipe = task.recipe() or asdict(config)
    write_provenance(
        run.folder, recipe, sys.argv, step=run.step, num_steps=config.num_steps,
        num_processes=processes.share.num_processes, device=processes.device,
    )  # fmt: skip
    write_trained_parts(run.folder, trained_parts(task, config))
    return Tracker(
        run.folder, name=run.folder.name, num_steps=config.num_steps, first_step=run.step,
        trackers=config.trackers, config=recipe,
    )  # fmt: skip


def _report(tracker: Tracker, record: dict[str, Any], was_collapsed: bool) -> bool:
    """Logs a step; says once that the connector has collapsed, and returns whether it has."""
    tracker.log(record)
    if not any(name.startswith("health/") for name in record):
        return was_collapsed
    sentence = collapse_warning(record)
    if sentence and not was_collapsed:
        tracker.say(f"Step {record['step']}: {sentence}")
    return sentence is not None


class _Run:
    """A run under way: the model as this process holds it, its optimizer, and the step."""

    def __init__(
        self,
        task: Task,
        config: TrainConfig,
        folder: Path,
        processes: Processes,
        max_bad_share: float,
    ) -> None:
        self._task, self._config, self.folder = task, config, folder
        self._meter = Meter()
        self._processes = processes
        self._quarantine = Quarantine(folder, processes.is_main, max_bad_share, config.batch_size)
        self._root = processes.prepare(_Root(task)).train()
        self._names = {
            parameter: name
            for name, parameter in task.module.named_parameters()
            if parameter.requires_grad
        }
        if not self._names:
            raise ConfigurationError(
                "Nothing is trained: every part of the model is frozen; set a learning rate, e.g. "
                "rates.connector"
            )
        self._optimizer = make_optimizer(task, self._names, config)
        self.step = self._restore()

    def advance(
        self, batches: Iterator[MicroBatch], stop: threading.Event
    ) -> tuple[dict[str, float], bool]:
        """Does one step; returns what to log, and whether the run shall end here."""
        sums: defaultdict[str, float] = defaultdict(float)
        seen: list[MicroBatch] = []
        rates = self._set_rates()
        self._optimizer.zero_grad(set_to_none=True)
        while not (seen and seen[-1].is_last):
            with self._meter.waiting():
                batch = next(batches)
            self._meter.add(batch.counts)
            self._backward(batch, len(seen), sums)
            seen.append(replace(batch, tensors={}))
        sums["stop"] = float(stop.is_set())
        totals, broken = self._add_up(sums, seen)
        loss = totals.pop("loss")
        norm = self._clip(loss, seen)
        self._optimizer.step()
        self.step += 1
        self._quarantine.add(self.step, broken)
        is_ended = totals.pop("stop") > 0
        record = {"loss": loss, **_means(totals), **rates, "gradient_norm": norm}
        return record | self._speed(), is_ended

    def _add_up(
        self, sums: dict[str, float], seen: list[MicroBatch]
    ) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Sums and broken samples of all processes."""
        bad = [record for batch in seen for record in batch.quarantined]
        totals: defaultdict[str, float] = defaultdict(float)
        broken: list[dict[str, Any]] = []
        for part, found in self._processes.gather((dict(sums), bad)):
            broken += found
            for name, value in part.items():
                totals[name] += value
        return totals, broken

    def _speed(self) -> dict[str, float]:
        """Rates since the last step, of all processes together."""
        self._meter.end_step()
        sums = sum(self._processes.gather(self._meter.take()), start=Sums(processes=0))
        rates = sums.rates(peak_flops(self._processes.device))
        return rates | {"peak_memory_bytes": float(peak_memory_bytes(self._processes.device))}

    def evaluate(self, evaluate: Evaluate) -> dict[str, float]:
        """Scores of the model as it stands, under names that begin with "eval/"."""
        self._task.module.eval()
        with torch.no_grad(), self._meter.paused():
            scores = evaluate(self._task.module)
        self._task.module.train()
        return {f"eval/{name}": score for name, score in scores.items()}

    def save(self) -> None:
        """Writes a checkpoint of whole tensors, whatever the layout they are held in."""
        with self._meter.paused():
            self._save()

    def _save(self) -> None:
        whole = self._processes.whole
        weights = {name: whole(p.detach()).cpu() for p, name in self._names.items()}
        state = checkpoints.optimizer_tensors(self._optimizer, self._names)
        state = {name: whole(value).cpu() for name, value in state.items()}
        if self._processes.is_main:
            checkpoints.save(
                self.folder,
                checkpoints.Checkpoint(
                    step=self.step, weights=weights, optimizer=state,
                    state={"seed": self._config.seed},
                ),
                keep=self._config.keep,
            )  # fmt: skip
        self._processes.wait()

    def _set_rates(self) -> dict[str, float]:
        """Sets the rates of the step that comes; what to log of them."""
        rate = learning_rate_at(self.step, self._config)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        names = self._names.values()
        parts = {self._task.part(name): self._task.learning_rate_factor(name) for name in names}
        if len(parts) == 1:
            return {"learning_rate": rate}
        return {f"learning_rate/{part}": rate * factor for part, factor in parts.items()}

    def _backward(self, batch: MicroBatch, number: int, sums: dict[str, float]) -> None:
        """Adds the gradient of a micro-batch to the step's, and its figures to `sums`."""
        config, share = self._config, self._processes.share
        place = number * share.num_processes + share.rank
        torch.manual_seed(config.seed * 1_000_003 + self.step + (place << 32))
        device = self._processes.device
        tensors = {name: tensor.to(device) for name, tensor in batch.tensors.items()}
        bf16 = config.precision == "bfloat16"
        looks = number == 0 and config.inspect_every and self.step % config.inspect_every == 0
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss: Loss = self._root(tensors)
        weight = batch.step_weight
        if weight is None:
            weight = sum(self._processes.gather(loss.weight))
        # Data parallelism averages over processes and this wants their sum.
        scaled = loss.total * (share.num_processes / max(1, weight))
        with self._processes.accumulate(self._root, is_last=batch.is_last):
            scaled.backward()
        sums["loss"] += loss.total.item() / max(1, weight)
        for name, (value, count) in loss.metrics.items():
            sums[f"sum/{name}"] += value
            sums[f"weight/{name}"] += count
        if looks:
            autocast = torch.autocast(device.type, torch.bfloat16, enabled=bf16)
            with torch.no_grad(), self._meter.paused(), autocast:
                found = self._root(tensors, inspect=True)
            for name, value in found.items():
                sums[f"sum/{name}"] += value
                sums[f"weight/{name}"] += 1

    def _clip(self, loss: float, seen: list[MicroBatch]) -> float:
        """Bounds the gradient's norm and returns what it was; stops the run if it is no number."""
        norm = nn.utils.clip_grad_norm_(list(self._names), self._config.clip_norm)
        value = self._processes.whole(norm).item()
        if not torch.isfinite(torch.tensor([loss, value])).all():
            self._report_bad_step(loss, value, seen)
        return value

    def _report_bad_step(self, loss: float, norm: float, seen: list[MicroBatch]) -> None:
        path = (
            self.folder / f"bad-step-{self.step + 1}-of-process-{self._processes.share.rank}.json"
        )
        keys = [list(batch.keys) for batch in seen]
        write_atomically(path, json.dumps({"step": self.step + 1, "samples": keys}, indent=1))
        raise TrainingError(
            f"At step {self.step + 1} the loss is {loss:.3g} and the gradient's norm {norm:.3g}: "
            f"its samples are named in {path.name}; run the same command with a learning rate "
            f"below {self._config.learning_rate:.1e}, it goes on from the last checkpoint"
        )

    def _restore(self) -> int:
        found = checkpoints.latest(self.folder)
        if found is None:
            return 0
        missing = sorted(set(self._names.values()) ^ set(found.weights))
        if missing:
            raise ConfigurationError(
                f"The checkpoint in {self.folder} and this model differ in {len(missing)} trained "
                f"tensors (first: {missing[0]}): it is of another model, choose another run folder"
            )
        with torch.no_grad():
            for parameter, name in self._names.items():
                if parameter.shape != found.weights[name].shape:
                    raise ConfigurationError(
                        f"The checkpoint in {self.folder} is of another model, {name} has shape "
                        f"{list(found.weights[name].shape)} there and {list(parameter.shape)} "
                        "here: choose another run folder"
                    )
                parameter.copy_(self._processes.spread(found.weights[name], parameter))
        checkpoints.restore_optimizer(
            self._optimizer, found.optimizer, self._names, self._processes.spread
        )
        return found.step


class _Root(nn.Module):
    """What is wrapped for several processes: everything a step does with the model is inside."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.module = task.module
        self._loss, self._inspect = task.loss, task.inspect

    def forward(self, batch: dict[str, Tensor], inspect: bool = False) -> Any:
        return self._inspect(batch) if inspect else self._loss(batch)


def _means(sums: dict[str, float]) -> dict[str, float]:
    """Sums with their weights as means; plain counts stay what they are."""
    means = {}
    for name, value in sums.items():
        if name.startswith("sum/"):
            weight = sums[f"weight/{name[4:]}"]
            if weight:  # e.g. a batch of blank tiles has no accuracy
                means[name[4:]] = value / weight
        elif not name.startswith("weight/"):
            means[name] = value
    return means


def _is_due(step: int, every: int, config: TrainConfig) -> bool:
    return step == config.num_steps or (every > 0 and step % every == 0)


def _check_same_configuration(run_folder: Path, config: TrainConfig) -> None:
    """Write the run's configuration once; refuse to go on with one that changes the samples."""
    path = run_folder / "config.json"
    ours = json.loads(json.dumps(asdict(config)))
    if not path.is_file():
        write_atomically(path, json.dumps(ours, indent=1))
        return
    try:
        theirs = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ConfigurationError(
            f"{path} is damaged: delete it to go on with the present configuration"
        ) from error
    changed = sorted(k for k in ours if k not in _FREE and ours[k] != theirs.get(k, ours[k]))
    if changed:
        raise ConfigurationError(
            f"The run in {run_folder} was started with another {', '.join(changed)}: "
            "give the same values to resume it, or choose another run folder"
        )


class _StopOnSignal:
    """Turns SIGTERM and SIGINT into an event while the loop runs in the main thread."""

    def __enter__(self) -> threading.Event:
        self._event = threading.Event()
        self._previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, lambda *_: self._event.set())
        return self._event

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
