"""Where else a run can be watched: tensorboard, trackio and wandb, by name and offline.

None of them is asked over a network unless the user has set that up: wandb runs online only with
`WANDB_API_KEY` or `WANDB_MODE` in the environment, trackio with its own variables
(`TRACKIO_SPACE_ID`, `TRACKIO_SERVER_URL`).
"""

from __future__ import annotations

import os
import sys
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from alignvlm.errors import ConfigurationError, MissingDependencyError
from alignvlm.files import write_atomically

__all__ = ["PROJECT", "Backend", "available", "check_names", "open_backend"]

PROJECT = "alignvlm"
"""What runs are filed under in trackio and wandb."""


class Backend(ABC):
    """One place beside the JSONL file that shows a run's numbers."""

    @abstractmethod
    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Show the numbers of a step."""

    @abstractmethod
    def close(self) -> None:
        """Write out what is still held back."""


class _Tensorboard(Backend):
    """Event files in `<run folder>/tensorboard`; a resumed run hides what came after its start."""

    def __init__(self, run_folder: Path, config: Mapping[str, Any], first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = str(run_folder / "tensorboard")
        self._writer = SummaryWriter(folder, purge_step=first_step + 1 if first_step else None)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Trackio(Backend):
    """Trackio's own database on this machine; `trackio show` draws it."""

    def __init__(self, run_folder: Path, config: Mapping[str, Any], first_step: int) -> None:
        import trackio

        name = f"{run_folder.resolve().name}-{_run_id(run_folder)}"
        with redirect_stdout(sys.stderr):  # standard output is for results
            self._run = trackio.init(
                project=PROJECT, name=name, config=dict(config), resume="allow"
            )

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        with redirect_stdout(sys.stderr):
            self._run.finish()


class _Wandb(Backend):
    """`<run folder>/wandb`; `wandb sync` sends it later where there was no key."""

    def __init__(self, run_folder: Path, config: Mapping[str, Any], first_step: int) -> None:
        import wandb

        configured = os.environ.get("WANDB_MODE")
        online = "online" if os.environ.get("WANDB_API_KEY") else "offline"
        self._run = wandb.init(
            project=PROJECT,
            name=run_folder.resolve().name,
            id=_run_id(run_folder),
            dir=str(run_folder),
            config=dict(config),
            resume="allow",
            mode=configured or online,
            settings={"console": "off"},  # it would copy the progress bar, line by line
        )

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        self._run.finish()


_BACKENDS: dict[str, Callable[[Path, Mapping[str, Any], int], Backend]] = {
    "tensorboard": _Tensorboard,
    "trackio": _Trackio,
    "wandb": _Wandb,
}


def available() -> tuple[str, ...]:
    """Names that a recipe may list under `trackers`."""
    return tuple(_BACKENDS)


def check_names(names: Sequence[str]) -> None:
    """See that all trackers exist.

    Raises:
        ConfigurationError: there is none of that name.
    """
    if unknown := [name for name in names if name not in _BACKENDS]:
        raise ConfigurationError(
            f"There is no tracker {unknown[0]!r}: choose among {', '.join(_BACKENDS)}; log.jsonl "
            "is always written"
        )


def open_backend(
    name: str, run_folder: Path, config: Mapping[str, Any], first_step: int
) -> Backend:
    """Start one tracker.

    Args:
        name: of the tracker.
        run_folder: what it writes lies in here, except for trackio's database.
        config: the resolved recipe, shown beside the curves.
        first_step: steps done by the checkpoint the run goes on from.

    Raises:
        ConfigurationError: there is no such tracker.
        MissingDependencyError: its package is not installed.
        Exception: whatever the tracker itself raises.
    """
    check_names([name])
    try:
        return _BACKENDS[name](run_folder, config, first_step)
    except ImportError as error:
        raise MissingDependencyError(name, "show the run there", extra="trackers") from error


def _run_id(run_folder: Path) -> str:
    """What the run is called in a tracker's database, the same for every start of the run."""
    path = run_folder / "run_id"
    if not path.is_file() or not path.read_text("utf-8").strip():
        write_atomically(path, uuid.uuid4().hex[:8] + "\n")
    return path.read_text("utf-8").strip()
