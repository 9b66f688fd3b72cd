"""Starts a module as `python -m` does, where torchvision was built for another torch.

The index has torchvision for Linux with CUDA alone. Beside a torch for the CPU its compiled half
cannot be loaded, and then it cannot be imported at all, nor can transformers: two operators that it
describes to torch are unknown. Here they are made known, without a body; nothing calls them.
"""

from __future__ import annotations

import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

import torch

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def mend_torchvision() -> None:
    found = find_spec("torchvision")
    if found is None or found.origin is None:
        return
    try:
        torch.ops.load_library(Path(found.origin).with_name("_C.so"))
    except OSError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", SCHEMA)


if __name__ == "__main__":
    mend_torchvision()
    sys.argv = sys.argv[1:]
    if sys.argv[0].endswith(".py"):
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
