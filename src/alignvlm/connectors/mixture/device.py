"""Where the fused kernels can run, said without importing them."""

from __future__ import annotations

from importlib.util import find_spec

import torch


def fused_problem(device: torch.device) -> str | None:
    """Why `fused.py` cannot run on a device, as a part of a sentence; None where it can."""
    if device.type != "cuda":
        return f"the device is {device.type} and fused needs CUDA"
    if find_spec("triton") is None:
        return 'triton is not installed: pip install "alignvlm[fused]"'
    return None
