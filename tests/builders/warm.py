"""Processes that start warm: forks of one that has imported the libraries and run nothing.

A fresh interpreter imports torch and transformers for five seconds before it does anything. The
standard library's fork server does it once for all processes of the tests in this one. What they
are given is pickled as for a spawned process, and nothing of the tests' own process is in them.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

__all__ = ["CONTEXT", "start"]

# What cannot be imported is left out by the server.
_PRELOADED = (
    "accelerate",
    "alignvlm.analysis.compare.scoring",
    "alignvlm.analysis.runtime",
    "alignvlm.data.formats",
    "alignvlm.synth",
    "alignvlm.training.loop",
    "alignvlm.training.runs",
    "alignvlm.training.vlm",
    "faker",
    "peft",
    "pytest",
    "torch.distributed.fsdp",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.models.siglip.modeling_siglip",
)

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(list(_PRELOADED))


def start(
    function: Callable[..., object],
    *args: Any,
    stderr: Path,
    env: Mapping[str, str] | None = None,
    finalize: bool = False,
) -> BaseProcess:
    """A process that calls a function of a module, under way.

    Its status is 0, that of a SystemExit, or 1 after another exception.

    Args:
        function: found by its name.
        args: pickled.
        stderr: file for what it says.
        env: beside this process's environment.
        finalize: end as a command does, the interpreter and the libraries' threads included, which
            takes half a second.
    """
    whole = {**os.environ, **(env or {})}
    process = CONTEXT.Process(target=_call, args=(function, args, stderr, whole, finalize))
    process.start()
    return process


def _call(
    function: Callable[..., object], args: tuple[Any, ...], stderr: Path, env: dict[str, str],
    finalize: bool,
) -> None:  # fmt: skip
    gc.freeze()  # or each collection would copy every page of what was imported
    os.environ.clear()
    os.environ.update(env)
    with stderr.open("wb") as file:
        os.dup2(file.fileno(), 2)
    status = _status_of(function, args)
    sys.stderr.flush()
    if finalize:
        ctypes.pythonapi.Py_Exit(status)
    sys.exit(status)


def _status_of(function: Callable[..., object], args: tuple[Any, ...]) -> int:
    try:
        function(*args)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
