"""Where a model runs, and in which number format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignvlm.errors import UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["DEVICES", "choose_device", "choose_dtype", "cpu_features", "describe"]

DEVICES = ("auto", "cpu", "cuda", "mps")

# Instructions that multiply bfloat16 directly; without them it is converted back and forth, and
# float32 is faster. The names are those of `torch.cpu.get_capabilities`, x86 then Arm.
_BFLOAT16_FEATURES = ("avx512_bf16", "amx_bf16", "bf16")
_NAMED_FEATURES = ("avx2", "avx512_f", "avx512_vnni", *_BFLOAT16_FEATURES)


def choose_device(name: str = "auto") -> torch.device:
    """The device to run on; "auto" takes a CUDA GPU, then Apple's, then the CPU.

    Raises:
        UsageError: there is no such device, or this machine has none.
    """
    import torch

    kind = name.partition(":")[0]
    if kind not in DEVICES:
        raise UsageError(f"There is no device {name!r}: choose one of {', '.join(DEVICES)}")
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if kind == "auto":
        return torch.device(next(device for device, is_here in present.items() if is_here))
    if not present[kind]:
        here = ", ".join(device for device, is_here in present.items() if is_here)
        raise UsageError(f"This machine or its torch has no device {name!r}: choose auto or {here}")
    try:
        return torch.device(name)
    except RuntimeError:
        raise UsageError(f"{name!r} is no device: write it like cuda or cuda:1") from None


def choose_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it natively, else float32."""
    import torch

    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and bool(set(cpu_features()) & set(_BFLOAT16_FEATURES))
    return torch.bfloat16 if native else torch.float32


def cpu_features() -> list[str]:
    """The CPU's features that matter for speed, by torch's names."""
    import torch

    found = torch.cpu.get_capabilities()
    return [name for name in _NAMED_FEATURES if found.get(name)]


def describe(device: torch.device, dtype: torch.dtype) -> str:
    """For people: "cpu (2 threads, bfloat16)"."""
    import torch

    name = str(dtype).removeprefix("torch.")
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)}, {name})"
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"cpu ({threads} {'thread' if threads == 1 else 'threads'}, {name})"
    return f"{device} ({name})"
