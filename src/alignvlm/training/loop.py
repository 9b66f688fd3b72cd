"""The training loop: deterministic samples by index, exact resume, one log line a step."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from alignvlm.errors import ConfigurationError, TrainingError
from alignvlm.training import checkpoint as checkpoints
from alignvlm.training.tracking import Tracker, write_atomically


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long, how fast and on what to train.

    Attributes:
        num_steps: optimizer steps in all.
        batch_size: samples a step.
        learning_rate: peak; reached after `warmup_steps`, then cosine to zero.
        weight_decay: of matrices; norms, biases and ALIGN's gain and bias are never decayed.
        clip_norm: largest global norm of the gradient.
        checkpoint_every: steps between checkpoints; one is always written at the end.
        seed: of the samples and of everything random in the model.
        num_workers: processes that make samples; the result does not depend on it.
        precision: "float32" or "bfloat16" (autocast; weights stay float32).
        device: where to train.
        data: what else the samples depend on, e.g. a folder; written down so that a run cannot go
            on with another one.
    """

    num_steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int = 50
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    clip_norm: float = 1.0
    checkpoint_every: int = 100
    keep: int = 2
    seed: int = 0
    num_workers: int = 1
    precision: str = "bfloat16"
    device: str = "cpu"
    data: str | None = None


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


class Task(ABC):
    """What is trained: modules, where the samples come from, and a loss."""

    @property
    @abstractmethod
    def module(self) -> nn.Module:
        """Holds every trained parameter."""

    @property
    @abstractmethod
    def source(self) -> Source:
        """Where the samples come from."""

    @abstractmethod
    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Scalar loss and what else to log."""

    def learning_rate_factor(self, name: str) -> float:
        """Factor on the learning rate of the parameter called `name`."""
        return 1.0


# What a run may change when it goes on: none of these changes which samples it sees.
_FREE = {"num_workers", "device", "checkpoint_every", "keep", "learning_rate"}


def train(
    task: Task,
    config: TrainConfig,
    run_folder: Path,
    *,
    on_step: Callable[[int], None] | None = None,
) -> int:
    """Train until `config.num_steps`, going on from the newest checkpoint in `run_folder`.

    SIGTERM and SIGINT end the run after the step under way, with a checkpoint.

    Args:
        task: what is trained.
        config: how long and how fast.
        run_folder: holds checkpoints and log; made if it is not there.
        on_step: called with the number of steps done after each of them.

    Returns:
        The number of steps done.

    Raises:
        ConfigurationError: the folder holds a run of another model or configuration.
        TrainingError: a loss or a gradient is not finite.
    """
    run_folder.mkdir(parents=True, exist_ok=True)
    _check_same_configuration(run_folder, config)
    device = torch.device(config.device)
    module = task.module.to(device).train()
    names = {
        parameter: name for name, parameter in module.named_parameters() if parameter.requires_grad
    }
    optimizer = _optimizer(task, names, config)
    step = _restore(module, optimizer, names, run_folder)
    tracker = Tracker(run_folder, name=run_folder.name, num_steps=config.num_steps, first_step=step)
    try:
        with _StopOnSignal() as stop:
            batches = _batches(task.source, config, step)
            while step < config.num_steps and not stop.is_set():
                record = _step(task, next(batches), optimizer, step, config)
                step += 1
                tracker.log({"step": step, **record})
                if on_step is not None:
                    on_step(step)
                due = step % config.checkpoint_every == 0 or step == config.num_steps
                if due or stop.is_set():
                    _save(run_folder, module, optimizer, names, step, config)
    finally:
        tracker.close()
    return step


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then half a cosine down to zero at `num_steps`."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    span = max(1, config.num_steps - config.warmup_steps)
    return (
        config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - config.warmup_steps) / span))
    )


def _step(
    task: Task,
    batch: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    step: int,
    config: TrainConfig,
) -> dict[str, float]:
    started = time.perf_counter()
    torch.manual_seed(config.seed * 1_000_003 + step)
    rate = learning_rate_at(step, config)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    device_type = torch.device(config.device).type
    batch = {name: tensor.to(config.device) for name, tensor in batch.items()}
    with torch.autocast(device_type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        loss, metrics = task.loss(batch)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, config.clip_norm)
    if not (torch.isfinite(loss) and torch.isfinite(norm)):
        raise TrainingError(
            f"At step {step + 1} the loss is {loss.item():.3g} and the gradient's norm "
            f"{norm.item():.3g}: run the same command with a learning rate below "
            f"{config.learning_rate:.1e}, it goes on from the last checkpoint"
        )
    optimizer.step()
    return {
        "loss": loss.item(),
        **metrics,
        "learning_rate": rate,
        "gradient_norm": norm.item(),
        "step_s": time.perf_counter() - started,
    }


def _optimizer(
    task: Task, names: dict[nn.Parameter, str], config: TrainConfig
) -> torch.optim.AdamW:
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter, name in names.items():
        key = (task.learning_rate_factor(name), parameter.ndim > 1)
        groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "factor": factor,
                "weight_decay": config.weight_decay if is_matrix else 0.0,
            }
            for (factor, is_matrix), parameters in groups.items()
        ],
        lr=config.learning_rate,
        betas=config.betas,
    )


class _Samples(Dataset):
    """A source as torch's loader wants it."""

    def __init__(self, source: Source, num_samples: int) -> None:
        self._source = source
        self._num_samples = num_samples

    def __len__(self) -> int:
        return self._num_samples

    def __getitem__(self, index: int) -> Any:
        return self._source.sample(index)


def _batches(source: Source, config: TrainConfig, first_step: int) -> Iterator[dict[str, Tensor]]:
    num_samples = config.num_steps * config.batch_size
    loader = DataLoader(
        _Samples(source, num_samples),
        batch_size=config.batch_size,
        sampler=range(first_step * config.batch_size, num_samples),
        collate_fn=source.collate,
        num_workers=config.num_workers,
        worker_init_fn=_leave_signals_to_the_parent,
        # Threads of the parent are not safe to fork from once torch has used them.
        multiprocessing_context="spawn" if config.num_workers else None,
    )
    return iter(loader)


def _leave_signals_to_the_parent(_worker: int) -> None:
    """A signal for the whole process group must not end workers before the checkpoint is made."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _restore(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    names: dict[nn.Parameter, str],
    run_folder: Path,
) -> int:
    found = checkpoints.latest(run_folder)
    if found is None:
        return 0
    module.load_state_dict(found.weights, strict=False)
    missing = set(names.values()) - set(found.weights)
    if missing:
        raise ConfigurationError(
            f"The checkpoint in {run_folder} lacks {len(missing)} trained tensors "
            f"(first: {sorted(missing)[0]}): it is of another model, choose another run folder."
        )
    checkpoints.restore_optimizer(optimizer, found.optimizer, names)
    return found.step


def _save(
    run_folder: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    names: dict[nn.Parameter, str],
    step: int,
    config: TrainConfig,
) -> None:
    trained = set(names.values())
    weights = {name: value for name, value in module.state_dict().items() if name in trained}
    checkpoints.save(
        run_folder,
        checkpoints.Checkpoint(
            step=step,
            weights=weights,
            optimizer=checkpoints.optimizer_tensors(optimizer, names),
            state={"seed": config.seed},
        ),
        keep=config.keep,
    )


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
    changed = sorted(k for k in ours if k not in _FREE and ours[k] != theirs.get(k))
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
