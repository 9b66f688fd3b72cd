"""Checkpoints: a folder that is whole or absent; tensors in safetensors, the rest in JSON."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from alignvlm.errors import ConfigurationError, TrainingError, WeightsError
from alignvlm.weights.cache import atomic_folder, is_complete

_FOLDER = re.compile(r"step-(\d{8})")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a run needs to go on as if it had never stopped.

    Attributes:
        step: optimizer steps done.
        weights: trained tensors by name.
        optimizer: AdamW's state, one entry `<parameter name>/<state name>` each.
        state: JSON values of the run (samples seen and the like).
    """

    step: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]


def save(run_folder: Path, checkpoint: Checkpoint, *, keep: int = 2) -> Path:
    """Write `step-<n>` under `run_folder`, then drop all but the newest `keep`.

    The folder is written under another name and renamed when every byte is on disk, so a kill at
    any instant leaves the previous checkpoint untouched.

    Raises:
        TrainingError: the disk is full or not writable; older checkpoints are as they were.
    """
    target = run_folder / f"step-{checkpoint.step:08d}"
    drop_leftovers(run_folder)
    try:
        with atomic_folder(target) as folder:
            _write(folder, checkpoint)
    except (OSError, SafetensorError, WeightsError) as error:
        cause = error.__cause__ if isinstance(error, WeightsError) else error
        raise TrainingError(
            f"The checkpoint of step {checkpoint.step} cannot be written to {run_folder} "
            f"({getattr(cause, 'strerror', None) or cause}): free some space and run the same "
            "command again, it goes on from the checkpoint before"
        ) from error
    drop_old(run_folder, keep)
    return target


def drop_leftovers(run_folder: Path) -> None:
    """Remove what a kill left of a checkpoint, or of the trained model, that was being written."""
    for leftover in run_folder.glob(".*.part"):
        shutil.rmtree(leftover, ignore_errors=True)


def drop_old(run_folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` whole checkpoints; what is newer than they are stays."""
    kept = [folder for folder in _folders(run_folder) if is_complete(folder)][-keep:]
    for old in _folders(run_folder):
        if kept and old < kept[0]:  # whole or, where a kill cut this very loop short, not
            shutil.rmtree(old, ignore_errors=True)


def _write(folder: Path, checkpoint: Checkpoint) -> None:
    save_file(_contiguous(checkpoint.weights), folder / "weights.safetensors")
    save_file(_contiguous(checkpoint.optimizer), folder / "optimizer.safetensors")
    (folder / "state.json").write_text(
        json.dumps({"step": checkpoint.step, **checkpoint.state}, indent=1), "utf-8"
    )


def latest(run_folder: Path) -> Checkpoint | None:
    """Load the newest whole checkpoint of a run, or None when there is none.

    Raises:
        WeightsError: the newest whole folder cannot be read.
    """
    whole = [folder for folder in _folders(run_folder) if is_complete(folder)]
    if not whole:
        return None
    folder = whole[-1]
    try:
        state = json.loads((folder / "state.json").read_text("utf-8"))
        return Checkpoint(
            step=state.pop("step"),
            weights=load_file(folder / "weights.safetensors"),
            optimizer=load_file(folder / "optimizer.safetensors"),
            state=state,
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise WeightsError(
            f"The checkpoint {folder} cannot be read ({type(error).__name__}): "
            "delete the folder to go on from the one before it."
        ) from error


def restore_weights(
    weights: Mapping[str, Tensor], names: Mapping[nn.Parameter, str], run_folder: Path
) -> None:
    """Copies a checkpoint's weights into a model that is whole.

    Args:
        weights: of the checkpoint.
        names: of the trained parameters.
        run_folder: for messages.

    Raises:
        ConfigurationError: the checkpoint is of another model.
    """
    missing = sorted(set(names.values()) ^ set(weights))
    if missing:
        raise ConfigurationError(
            f"The checkpoint in {run_folder} and this model differ in {len(missing)} trained "
            f"tensors (first: {missing[0]}): it is of another model, choose another run folder"
        )
    for parameter, name in names.items():
        if parameter.shape != weights[name].shape:
            raise ConfigurationError(
                f"The checkpoint in {run_folder} is of another model, {name} has shape "
                f"{list(weights[name].shape)} there and {list(parameter.shape)} here: choose "
                "another run folder"
            )
    with torch.no_grad():
        for parameter, name in names.items():
            parameter.copy_(weights[name])


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, names: Mapping[nn.Parameter, str]
) -> dict[str, Tensor]:
    """AdamW's state as named tensors; `names` maps each parameter to its name."""
    tensors = {}
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            tensors[f"{names[parameter]}/{key}"] = torch.as_tensor(value)
    return tensors


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    tensors: dict[str, Tensor],
    names: Mapping[nn.Parameter, str],
    spread: Callable[[Tensor, Tensor], Tensor],
) -> None:
    """Inverse of `optimizer_tensors`; `spread` lays a whole tensor out as its parameter is."""
    parameters = {name: parameter for parameter, name in names.items()}
    for entry, value in tensors.items():
        name, _, key = entry.rpartition("/")
        parameter = parameters[name]
        if key == "step":  # AdamW keeps its counter on the CPU unless it is fused
            placed = value.to(parameter.device) if optimizer.defaults["fused"] else value
        else:
            placed = spread(value, parameter)
        optimizer.state[parameter][key] = placed


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As safetensors takes them; copied only where a tensor is a part of a larger one."""
    made = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    return {
        name: tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
        for name, tensor in made.items()
    }


def _folders(run_folder: Path) -> list[Path]:
    if not run_folder.is_dir():
        return []
    found = (entry for entry in os.scandir(run_folder) if _FOLDER.fullmatch(entry.name))
    return sorted(Path(entry.path) for entry in found)
