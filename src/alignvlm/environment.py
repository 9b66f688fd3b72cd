"""Where a measurement was made or a model trained: commit, machine, threads and versions."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import alignvlm
from alignvlm.memory import total_bytes

__all__ = ["commit", "environment"]

_PACKAGES = ("torch", "transformers", "accelerate", "peft", "tokenizers", "numpy", "pillow",
             "faker", "rapidfuzz", "rapidocr", "onnxruntime")  # fmt: skip


def environment() -> dict[str, Any]:
    """Facts to print beside every number."""
    return {
        "commit": commit(),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "memory_gb": round((total_bytes() or 0) / 1e9, 1),
        },
        "versions": {
            "alignvlm": alignvlm.__version__,
            "python": platform.python_version(),
            **{name: found for name in _PACKAGES if (found := _version(name))},
        },
    }


def commit() -> str:
    """The commit of the checkout, "-dirty" behind it if files differ; "none" outside of one.

    A repository that merely surrounds an installation, e.g. one with an ignored `.venv`, says
    nothing about this code and gives "none" as well.
    """
    folder, name = Path(__file__).parent, Path(__file__).name
    try:
        _git(folder, "ls-files", "--error-unmatch", name)
        found = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--", ":/src")
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return f"{found}-dirty" if changed else found


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"
