"""A run folder that explains itself: what was run, with what, where, and how to go on."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import Any

import torch

from alignvlm.environment import environment
from alignvlm.files import read_lines, to_line, write_atomically
from alignvlm.privacy import without_private

__all__ = [
    "TrainedPart",
    "clean_command",
    "write_provenance",
    "write_trained_parts",
]

FILES = {
    "README.md": "this page",
    "recipe.json": "the resolved recipe: every setting, defaults included",
    "config.json": "what the loop was given; a run goes on only with the same",
    "environment.json": "versions, commit, machine, device and seed of the latest start",
    "starts.jsonl": "one line for each start: when, the command, the step it went on from",
    "trained_parts.json": "which parts of the model train, their parameters and learning rates",
    "log.jsonl": "one line a step: loss, rates, speed, memory, the connector's health",
    "quarantine.jsonl": "samples that could not be used: source, key, reason, step",
    "step-*/": "checkpoints: trained weights, the optimizer's state, the step; whole if it holds "
    "`complete.json`",
    "bad-step-*.json": "samples of a step whose loss or gradient was no number",
    "report.html": "curves and tables of all this in one page, for a browser",
    "model/": "the trained model, once the last step is done",
    "tensorboard/, wandb/, run_id": "of the trackers, where the recipe names some",
}
"""Every file that a run may leave, and what it is."""

_SECRET_NAMES = {"token", "key", "apikey", "secret", "password", "passwd", "auth", "credentials"}
_PLAIN = re.compile(r"(?:[\w@%+=:,./~-]|\*\*\*)+", re.ASCII)


_README = Template("""# Run `$name`$of

Written by alignvlm when the run started. Some of these files come only when there is something to
put into them:

$listed

## Going on

The run goes on from its newest whole checkpoint, and sees the samples it would have seen without a
break, when the same command is given again in the same folder:

```console
$$ $command
```

${launched}SIGTERM and Ctrl-C end it after the step under way, with a checkpoint.

## The result

In this folder:

```console
$$ alignvlm ask page.png "What is the total?" --model ./model
```

```python
from alignvlm import AlignVLM, AlignVLMProcessor

model = AlignVLM.from_pretrained("model")
processor = AlignVLMProcessor.from_pretrained("model")
```

A model of another kind is loaded by transformers' own `AutoModelForImageTextToText`.
""")


@dataclass(frozen=True, kw_only=True)
class TrainedPart:
    """One row of the table of what trains.

    Attributes:
        part: of the model, e.g. "connector".
        num_parameters: in all.
        num_trained: of those, the ones that move.
        learning_rate: the peak, None for a frozen part.
        num_decayed: of the trained ones, those under weight decay.
    """

    part: str
    num_parameters: int
    num_trained: int
    learning_rate: float | None = None
    num_decayed: int = 0


def write_provenance(
    run_folder: Path,
    config_json: Mapping[str, Any],
    command: Sequence[str],
    *,
    step: int = 0,
    num_steps: int | None = None,
    num_processes: int = 1,
    device: str | torch.device = "cpu",
) -> None:
    """Write README.md, recipe.json and environment.json, and add a line to starts.jsonl.

    Each file is whole or absent at any instant. To be called once for each start, by the main
    process, before the first step.

    Args:
        run_folder: made if it is not there.
        config_json: the resolved recipe.
        command: the arguments of the command line, `sys.argv`; secrets and home folders in it are
            not written.
        step: done by the checkpoint that this start goes on from.
        num_steps: of the whole run.
        num_processes: that train together.
        device: where this process trains.
    """
    run_folder.mkdir(parents=True, exist_ok=True)
    line = clean_command(command)
    facts = {
        **environment(),
        "device": _device_name(torch.device(device)),
        "processes": num_processes,
        "seed": config_json.get("seed"),
    }
    start = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "step": step,
        "num_steps": num_steps,
        "command": line,
        "commit": facts["commit"],
        "device": facts["device"],
        "processes": num_processes,
        "versions": facts["versions"],
    }
    path = run_folder / "starts.jsonl"
    starts = [*read_lines(path), start]
    write_atomically(path, "".join(to_line(record) for record in starts))
    _write_json(run_folder / "recipe.json", config_json)
    _write_json(run_folder / "environment.json", facts)
    name = run_folder.resolve().name
    write_atomically(run_folder / "README.md", _readme(name, config_json, line, num_processes))


def write_trained_parts(run_folder: Path, parts: Sequence[TrainedPart]) -> None:
    """Write trained_parts.json, which the report shows as a table."""
    _write_json(run_folder / "trained_parts.json", [asdict(part) for part in parts])


def clean_command(command: Sequence[str]) -> str:
    """A command line that may be shown: the program without its folder, no secret, no home.

    An option is taken for a secret if a word of its name is one, e.g. `--hub-token`.
    """
    cleaned: list[str] = []
    is_secret = False
    for place, argument in enumerate(command):
        name, equals, _ = argument.partition("=")
        if place == 0:
            cleaned += _program(Path(argument))
        elif is_secret and not argument.startswith("-"):
            cleaned.append("***")
        elif equals and _names_secret(name):
            cleaned.append(f"{name}=***")
        else:
            cleaned.append(without_private(argument))
        is_secret = argument.startswith("-") and not equals and _names_secret(argument)
    # A tilde keeps its meaning only without quotes.
    return " ".join(part if _PLAIN.fullmatch(part) else shlex.quote(part) for part in cleaned)


def _program(path: Path) -> list[str]:
    return ["python", "-m", path.parent.name] if path.name == "__main__.py" else [path.name]


def _names_secret(name: str) -> bool:
    return bool(_SECRET_NAMES & set(re.split(r"[-_.]", name.lower())))


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _write_json(path: Path, content: Any) -> None:
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _readme(name: str, config: Mapping[str, Any], command: str, num_processes: int) -> str:
    recipe = config.get("recipe")
    several = f"It ran in {num_processes} processes, which accelerate launch or torchrun start.\n"
    return _README.substitute(
        name=name,
        of=f", recipe `{recipe}`" if isinstance(recipe, str) else "",
        listed="\n".join(f"- `{file}`: {what}" for file, what in FILES.items()),
        command=command,
        launched=several if num_processes > 1 else "",
    )
