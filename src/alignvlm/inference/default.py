"""The default model, assembled once from its parts into an ordinary Hugging Face folder.

The package ships what this project trained: vision encoder, connector and a LoRA adapter. The
language model comes from a package index (`alignvlm.weights.smollm2`). Both together are written
to the cache, the adapter merged, in a folder named by the hash of the shipped files and of the
language model's source; every later start loads that folder like any other model.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alignvlm.errors import WeightsError
from alignvlm.paths import cache_dir
from alignvlm.weights.cache import ensure_folder, is_complete
from alignvlm.weights.smollm2 import ensure_smollm2, possible_sources

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

__all__ = ["SHIPPED_FOLDER", "default_model_folder", "ensure_default_model", "missing_files"]

SHIPPED_FOLDER: Final = Path(__file__).parents[1] / "weights" / "default"

PARTS: Final = "vision_connector.safetensors"
ADAPTER: Final = "adapter_model.safetensors"
ADAPTER_CONFIG: Final = "adapter_config.json"
SETTINGS: Final = "default.json"
_FILES: Final = (SETTINGS, PARTS, ADAPTER_CONFIG, ADAPTER)

_LAYOUT = 1  # raise it when the same shipped files are to be assembled in another way
_NEEDED_BYTES = 400_000_000
_LORA_KEY = re.compile(r"base_model\.model\.(?P<matrix>.+)\.lora_(?P<half>[AB])\.weight")
# Settings of peft that change what an adapter means; merging W + (alpha / r) B A knows none.
_UNKNOWN_TO_US = (
    "use_rslora", "use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern", "modules_to_save",
)  # fmt: skip


def ensure_default_model(progress: bool = True) -> Path:
    """The default model's folder in the cache, assembled if it is not there and whole.

    Args:
        progress: show a bar on stderr while the language model is converted, on a terminal.

    Raises:
        WeightsError: the package's weights are missing or do not fit, the language model cannot
            be found, or the disk is full or not writable.
    """
    folder = default_model_folder()
    if is_complete(folder):
        return folder
    base = ensure_smollm2(progress)
    folder = default_model_folder()  # only now is it certain where the language model came from
    return ensure_folder(folder.name, lambda empty: _assemble(empty, base), _NEEDED_BYTES)


def default_model_folder() -> Path:
    """Where `ensure_default_model` puts the model; it need not be there yet.

    Raises:
        WeightsError: the package's weights are missing.
    """
    if missing := missing_files():
        raise WeightsError(
            f"This installation has no default model, {SHIPPED_FOLDER} lacks {', '.join(missing)}: "
            "run `pip install --force-reinstall --no-deps alignvlm`, or name a model with --model"
        )
    shipped = hashlib.sha256(f"layout {_LAYOUT}".encode())
    for name in _FILES:
        shipped.update((SHIPPED_FOLDER / name).read_bytes())
    folders = []
    for source in possible_sources():
        digest = shipped.copy()
        digest.update(source.encode())
        folders.append(cache_dir() / f"default-{digest.hexdigest()[:16]}")
    return next((folder for folder in folders if folder.exists()), folders[0])


def missing_files() -> list[str]:
    """Names of the shipped files that this installation lacks."""
    return [name for name in _FILES if not (SHIPPED_FOLDER / name).is_file()]


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
        raise _unfit(f"{ADAPTER_CONFIG} sets {', '.join(unknown)}")
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _LORA_KEY.fullmatch(key)
        if match is None:
            raise _unfit(f"{ADAPTER} holds {key}")
        halves.setdefault(match["matrix"], {})[match["half"]] = tensor
    scale = config["lora_alpha"] / config["r"]
    matrices = dict(model.named_parameters())
    for name, half in halves.items():
        weight = matrices.get(f"{name}.weight")
        if weight is None or half.keys() != {"A", "B"}:
            raise _unfit(f"{ADAPTER} has no matching pair for {name}")
        delta = half["B"].float() @ half["A"].float()
        if delta.shape != weight.shape:
            raise _unfit(f"{ADAPTER} has {list(delta.shape)} for {name}")
        weight.data = (weight.data.float() + scale * delta).to(weight.dtype)


def _assemble(folder: Path, base: Path) -> None:
    """Write the whole model, around the language model in `base`, into an empty folder."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from transformers import AutoTokenizer, LlamaForCausalLM

    from alignvlm.model.compat import quiet
    from alignvlm.model.processing import AlignVLMProcessor

    with quiet():
        llm = LlamaForCausalLM.from_pretrained(base, dtype=torch.bfloat16, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    try:
        settings = json.loads((SHIPPED_FOLDER / SETTINGS).read_text(encoding="utf-8"))
        adapter_config = json.loads((SHIPPED_FOLDER / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        parts, adapter = (load_file(SHIPPED_FOLDER / name) for name in (PARTS, ADAPTER))
        merge_lora(llm, adapter, adapter_config)
        model = _build(llm, tokenizer, settings)
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise _unfit(f"a file cannot be used ({type(error).__name__})") from error
    _load_parts(model, parts)
    with quiet():
        model.save_pretrained(folder)
        AlignVLMProcessor.build(tokenizer, model.config).save_pretrained(folder)


def _build(llm: Any, tokenizer: Any, settings: dict[str, Any]) -> PreTrainedModel:
    """The model around the merged language model; encoder and connector still to be loaded."""
    from alignvlm.model.build import assemble
    from alignvlm.model.chat import choose_image_token
    from alignvlm.model.configuration import AlignVLMConfig
    from alignvlm.model.document_encoder import DocumentEncoder, DocumentEncoderConfig

    encoder = DocumentEncoder(DocumentEncoderConfig(**settings["vision_config"]))
    config = AlignVLMConfig(
        vision_config=encoder.config,
        text_config=llm.config,
        connector=settings["connector"],
        tiling=settings["tiling"],
        condense=settings["condense"],
        image_token_id=tokenizer.convert_tokens_to_ids(choose_image_token(tokenizer)),
    )
    return assemble(config, encoder, llm)


def _load_parts(model: PreTrainedModel, parts: dict[str, Tensor]) -> None:
    """Load encoder and connector, every tensor of both, in the type they are shipped in."""
    inner = model.model
    expected = {
        name: tensor.shape
        for name, tensor in inner.state_dict().items()
        if name.partition(".")[0] in {"vision_model", "connector"}
    }
    if wrong := sorted(expected.keys() ^ parts.keys()):
        raise _unfit(f"{PARTS} lacks or has too much: {wrong[0]} and {len(wrong) - 1} more")
    if wrong := [name for name, shape in expected.items() if parts[name].shape != shape]:
        raise _unfit(f"{PARTS} has {list(parts[wrong[0]].shape)} for {wrong[0]}")
    inner.load_state_dict(parts, strict=False, assign=True)


def _unfit(what: str) -> WeightsError:
    return WeightsError(
        f"The default model's files in {SHIPPED_FOLDER} do not fit this version, {what}: "
        "run `pip install --force-reinstall --no-deps alignvlm`"
    )
