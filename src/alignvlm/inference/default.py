"""The default model, assembled once from its parts into an ordinary Hugging Face folder.

The package ships what this project trained: vision encoder, connector and a LoRA adapter. The
language model comes from a package index (`alignvlm.weights.smollm2`). Both together are written
to the cache, the adapter merged, in a folder named by the hash of the shipped files and of the
language model's source; every later start loads that folder like any other model.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alignvlm.errors import WeightsError
from alignvlm.paths import cache_dir
from alignvlm.weights.cache import ensure_folder, is_complete
from alignvlm.weights.shipped import (
    ADAPTER,
    ADAPTER_CONFIG,
    PARTS,
    SHIPPED_FOLDER,
    merge_lora,
    unfit,
)
from alignvlm.weights.smollm2 import ensure_smollm2, possible_sources

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

__all__ = ["SHIPPED_FOLDER", "default_model_folder", "ensure_default_model", "missing_files"]

SETTINGS: Final = "default.json"
_FILES: Final = (SETTINGS, PARTS, ADAPTER_CONFIG, ADAPTER)

_LAYOUT = 1  # raise it when the same shipped files are to be assembled in another way
_NEEDED_BYTES = 400_000_000


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
        tokenizer = AutoTokenizer.from_pretrained(
            base, local_files_only=True, trust_remote_code=False
        )
    try:
        settings = json.loads((SHIPPED_FOLDER / SETTINGS).read_text(encoding="utf-8"))
        adapter_config = json.loads((SHIPPED_FOLDER / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        parts, adapter = (load_file(SHIPPED_FOLDER / name) for name in (PARTS, ADAPTER))
        merge_lora(llm, adapter, adapter_config)
        model = _build(llm, tokenizer, settings)
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise unfit(f"a file cannot be used ({type(error).__name__})") from error
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
        raise unfit(f"{PARTS} lacks or has too much: {wrong[0]} and {len(wrong) - 1} more")
    if wrong := [name for name, shape in expected.items() if parts[name].shape != shape]:
        raise unfit(f"{PARTS} has {list(parts[wrong[0]].shape)} for {wrong[0]}")
    inner.load_state_dict(parts, strict=False, assign=True)
