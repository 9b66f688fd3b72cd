"""What the benchmark scripts share: seconds, memory, where they ran, and tables."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from alignvlm.analysis.web import write_atomically
from alignvlm.environment import environment

Rows = list[dict[str, Any]]


def seconds(call: Callable[[], object], device: str) -> float:
    """Wall time of one call, with nothing pending on the device before and after."""
    _wait(device)
    started = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - started


class Memory:
    """The peak of the memory in use above what was in use on entry, in bytes.

    On the CPU it is the process's resident set, whose high-water mark Linux resets on request.
    """

    extra_bytes: int = 0

    def __init__(self, device: str) -> None:
        self._device = device

    def __enter__(self) -> Memory:
        _wait(self._device)
        if self._device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            Path("/proc/self/clear_refs").write_text("5")
            self._before = _status_bytes("VmRSS")
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        _wait(self._device)
        cuda = self._device == "cuda"
        peak = torch.cuda.max_memory_allocated() if cuda else _status_bytes("VmHWM")
        self.extra_bytes = peak - self._before


def facts(device: str) -> dict[str, Any]:
    """Machine, versions and commit."""
    found = environment()
    if device == "cuda":
        found["machine"]["gpu"] = torch.cuda.get_device_name()
    return found


def table(rows: Rows) -> str:
    """Rows as Markdown, numbers to three digits."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [" | ".join(names), " | ".join("---" for _ in names)]
    lines += [" | ".join(_cell(row.get(name, "")) for name in names) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def write(path: Path, where: dict[str, Any], sections: dict[str, Rows]) -> None:
    """`path`.json and `path`.md."""
    content = {"environment": where, **sections}
    lines = "\n".join(f"- {name}: {value}" for name, value in where.items())
    parts = [f"## {name}\n\n{table(rows)}" for name, rows in sections.items()]
    page = "\n\n".join([f"# {path.stem}", lines, *parts]) + "\n"
    write_atomically(path.with_suffix(".json"), (json.dumps(content, indent=1) + "\n").encode())
    write_atomically(path.with_suffix(".md"), page.encode())


def read(path: Path) -> dict[str, Rows]:
    """The sections that `write` wrote."""
    content = json.loads(path.with_suffix(".json").read_text("utf-8"))
    del content["environment"]
    return content


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
