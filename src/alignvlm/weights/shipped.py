"""What this package ships of the default model: its vision encoder, connector and LoRA adapter."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alignvlm.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "ADAPTER", "ADAPTER_CONFIG", "PARTS", "SHIPPED_FOLDER", "add_adapter", "merge_lora", "unfit",
    "vision_weights",
]  # fmt: skip

SHIPPED_FOLDER: Final = Path(__file__).parent / "default"

PARTS: Final = "vision_connector.safetensors"
ADAPTER: Final = "adapter_model.safetensors"
ADAPTER_CONFIG: Final = "adapter_config.json"

_VISION = "vision_model."
_LORA_KEY = re.compile(r"base_model\.model\.(?P<matrix>.+)\.lora_(?P<half>[AB])\.weight")
# Settings of peft that change what an adapter means; merging W + (alpha / r) B A knows none.
_UNKNOWN_TO_US = (
    "use_rslora", "use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern", "modules_to_save",
)  # fmt: skip


def vision_weights() -> dict[str, Tensor]:
    """The default model's document encoder, float32 tensors under its own names.

    Raises:
        WeightsError: this installation lacks the file.
    """
    parts = _tensors(PARTS)
    prefix = len(_VISION)
    return {name[prefix:]: t.float() for name, t in parts.items() if name.startswith(_VISION)}


def add_adapter(language_model: nn.Module) -> None:
    """Merge the default model's answer adapter into SmolLM2-135M-Instruct, in place.

    Raises:
        WeightsError: this installation lacks the files, or they are for another model.
    """
    try:
        config = json.loads((SHIPPED_FOLDER / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise unfit(f"{ADAPTER_CONFIG} cannot be read") from error
    merge_lora(language_model, _tensors(ADAPTER), config)


def merge_lora(model: nn.Module, tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Add a LoRA adapter in peft's format to the matrices it was trained for, in place.

    W <- W + (alpha / r) B A, added in float32 and rounded once to W's type.

    Args:
        model: the bare language model.
        tensors: `base_model.model.<matrix>.lora_A.weight` [r, in] and `lora_B` [out, r].
        config: the contents of `adapter_config.json`.

    Raises:
        WeightsError: the adapter is of another kind or for another model.
    """
    if unknown := [name for name in _UNKNOWN_TO_US if config.get(name)]:
        raise unfit(f"{ADAPTER_CONFIG} sets {', '.join(unknown)}")
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _LORA_KEY.fullmatch(key)
        if match is None:
            raise unfit(f"{ADAPTER} holds {key}")
        halves.setdefault(match["matrix"], {})[match["half"]] = tensor
    scale = config["lora_alpha"] / config["r"]
    matrices = dict(model.named_parameters())
    for name, half in halves.items():
        weight = matrices.get(f"{name}.weight")
        if weight is None or half.keys() != {"A", "B"}:
            raise unfit(f"{ADAPTER} has no matching pair for {name}")
        delta = half["B"].float() @ half["A"].float()
        if delta.shape != weight.shape:
            raise unfit(f"{ADAPTER} has {list(delta.shape)} for {name}")
        weight.data = (weight.data.float() + scale * delta).to(weight.dtype)


def unfit(what: str) -> WeightsError:
    """The shipped files cannot be used, and why."""
    return WeightsError(
        f"The default model's files in {SHIPPED_FOLDER} do not fit this version, {what}: "
        "run `pip install --force-reinstall --no-deps alignvlm`"
    )


def _tensors(name: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(SHIPPED_FOLDER / name)
    except (OSError, SafetensorError) as error:
        raise unfit(f"{name} cannot be read") from error
