"""The training loop: steps that depend on their number alone, exact resume, one log line a step.

A step's loss is the sum over everything that is supervised in it, divided by how much that is,
over all micro-batches and processes: one micro-batch of eight samples and eight of one give the
same gradient.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alignvlm.errors import ConfigurationError, TrainingError
from alignvlm.files import write_atomically
from alignvlm.training import checkpoint as checkpoints
from alignvlm.training.health import collapse_warning
from alignvlm.training.meter import Meter, Sums, peak_flops, peak_memory_bytes
from alignvlm.training.optimizer import make_optimizer, trained_parts
from alignvlm.training.processes import Processes, open_processes
from alignvlm.training.quarantine import Quarantine
from alignvlm.training.run_folder import write_provenance, write_trained_parts
from alignvlm.training.schedule import TrainConfig, differences, learning_rate_at
from alignvlm.training.task import Loss, MicroBatch, Task
from alignvlm.training.tracking import Tracker

__all__ = ["Evaluate", "train"]

Evaluate = Callable[[nn.Module, int], dict[str, float]]
"""Scores of a model under training after so many steps; every process calls it, in eval mode."""

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
    processes = open_processes(config)
    with processes.together():
        if processes.is_main:
            run_folder.mkdir(parents=True, exist_ok=True)
            _check_same_configuration(run_folder, config)
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
        if not self._trained():
            raise ConfigurationError(
                "Nothing is trained: every part of the model is frozen; set a learning rate, e.g. "
                "rates.connector"
            )
        with processes.together():
            found = self._last_checkpoint()
        self.step = 0 if found is None else found.step
        _check_same_step(folder, processes.gather(self.step))
        processes.prepare(
            _Root(task.module).train(), lambda: make_optimizer(task, self._trained(), config)
        )
        self._names = self._trained()
        if found is not None:
            processes.restore_optimizer(found.optimizer, self._names)

    def _trained(self) -> dict[nn.Parameter, str]:
        """Names of the parameters that train; a layout may put others in their place."""
        named = self._task.module.named_parameters()
        return {parameter: name for name, parameter in named if parameter.requires_grad}

    def advance(
        self, batches: Iterator[MicroBatch], stop: threading.Event
    ) -> tuple[dict[str, float], bool]:
        """Does one step; returns what to log, and whether the run shall end here."""
        sums: defaultdict[str, float] = defaultdict(float)
        seen: list[MicroBatch] = []
        rates = self._set_rates()
        while not (seen and seen[-1].is_last):
            with self._meter.waiting():
                batch = next(batches)
            self._meter.add(batch.counts)
            self._backward(batch, len(seen), sums)
            seen.append(replace(batch, tensors={}))
        sums["stop"] = float(stop.is_set())
        totals, broken = self._add_up(sums, seen)
        loss = totals.pop("loss")
        norm = self._processes.step()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._report_bad_step(loss, norm, seen)
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
        with self._meter.paused():
            scores = self._processes.look(partial(evaluate, self._task.module, self.step))
        self._task.module.train()
        return {f"eval/{name}": score for name, score in scores.items()}

    def save(self) -> None:
        """Writes a checkpoint of whole tensors, whatever the layout they are held in."""
        with self._meter.paused():
            self._save()

    def _save(self) -> None:
        whole, names = self._processes.whole, self._names
        weights = self._kept((name, whole(p)) for p, name in names.items())
        state = self._kept(self._processes.optimizer_tensors(names))
        made = checkpoints.Checkpoint(
            step=self.step, weights=weights, optimizer=state, state={"seed": self._config.seed}
        )
        with self._processes.together():
            if self._processes.is_main:
                checkpoints.save(self.folder, made, keep=self._config.keep)

    def _kept(self, tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
        """Whole tensors, in the memory of the process that writes them and of no other."""
        is_main = self._processes.is_main
        return {name: tensor.cpu() for name, tensor in tensors if is_main}

    def _set_rates(self) -> dict[str, float]:
        """Sets the rates of the step that comes; what to log of them."""
        rate = learning_rate_at(self.step, self._config)
        for group in self._processes.param_groups:
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
        tensors = self._placed(batch.tensors)
        with self._autocast():
            loss: Loss = self._processes.call(partial(self._task.loss, tensors))
        weight = batch.step_weight
        if weight is None:
            weight = sum(self._processes.gather(loss.weight))
        # The processes' gradients are averaged and this wants their sum.
        scaled = loss.total * (share.num_processes / max(1, weight))
        self._processes.backward(scaled, is_last=batch.is_last)
        sums["loss"] += loss.total.item() / max(1, weight)
        for name, (value, count) in loss.metrics.items():
            sums[f"sum/{name}"] += value
            sums[f"weight/{name}"] += count
        if number == 0 and config.inspect_every and self.step % config.inspect_every == 0:
            with self._meter.paused():
                self._inspect(batch, sums)

    def _inspect(self, batch: MicroBatch, sums: dict[str, float]) -> None:
        """Adds the model's health to `sums`, seen on the same batch by all processes.

        What is spread over them must be used by all, and equally often.
        """
        tensors = self._placed(self._processes.largest(batch.tensors))
        with self._autocast():
            found = self._processes.look(partial(self._task.inspect, tensors))
        for name, value in found.items():
            sums[f"sum/{name}"] += value
            sums[f"weight/{name}"] += 1

    def _placed(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(self._processes.device) for name, tensor in tensors.items()}

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self._processes.device.type,
            torch.bfloat16,
            enabled=self._config.precision == "bfloat16",
            # It would keep a copy of every weight that is gathered until the forward pass ends.
            cache_enabled=self._config.sharding == "none",
        )

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

    def _last_checkpoint(self) -> checkpoints.Checkpoint | None:
        """The newest one, its weights in the model that is not laid out yet."""
        found = checkpoints.latest(self.folder)
        if self._processes.is_main:
            checkpoints.drop_leftovers(self.folder)
        if found is not None:
            checkpoints.restore_weights(found.weights, self._trained(), self.folder)
            if self._processes.is_main:  # a kill may have come between a save and this
                checkpoints.drop_old(self.folder, self._config.keep)
        return found


class _Root(nn.Module):
    """What is laid out over processes: everything a step does with the model is called in here."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, function: Callable[[], Any]) -> Any:
        return function()


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
    fixed = {name: value for name, value in ours.items() if name not in _FREE}
    if changed := differences(fixed, theirs):
        raise ConfigurationError(
            f"The run in {run_folder} was started with another {', '.join(changed)}: "
            "give the same values to resume it, or choose another run folder"
        )


def _check_same_step(run_folder: Path, steps: list[int]) -> None:
    if len(set(steps)) > 1:
        rank = next(rank for rank, step in enumerate(steps) if step != steps[0])
        raise ConfigurationError(
            f"Process {rank} would go on from step {steps[rank]} and process 0 from step "
            f"{steps[0]}: {run_folder} must be one folder that all of them see"
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
