"""A default model in miniature: the files that the package ships, with random numbers in them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from tiny_models import chat_tokenizer, tiny_chat_llama
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from alignvlm.inference import default
from alignvlm.model import AlignVLMConfig, DocumentEncoder, DocumentEncoderConfig
from alignvlm.model.configuration import build_connector

RANK, ALPHA = 4, 8
CONTEXT = 300


def save_base(folder: Path) -> None:
    """A language model of two layers whose tokens are bytes."""
    tokenizer = chat_tokenizer()
    tokenizer.save_pretrained(folder)
    config = tiny_chat_llama(vocab_size=len(tokenizer), max_position_embeddings=CONTEXT)
    torch.manual_seed(1)
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder)


def settings(base: Path) -> dict[str, Any]:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base)
    words = [tokenizer.encode(char)[0] for char in "\n abcdefgh0123456789.$"]
    return {
        "connector": {"name": "align", "vocabulary": words, "gain": 6.0},
        "tiling": {"layout": "canvas", "thumbnail": False, "max_tiles": 4},
        "condense": {"prune": True, "merge": "none"},
        "vision_config": {"tile_px": 32, "hidden_size": 16, "num_context_layers": 1},
    }


def parts_of(values: dict[str, Any], base: Path) -> dict[str, Tensor]:
    config = AlignVLMConfig(
        vision_config=DocumentEncoderConfig(**values["vision_config"]),
        text_config=LlamaConfig.from_pretrained(base),
        **{name: values[name] for name in ("connector", "tiling", "condense")},
    )
    torch.manual_seed(2)
    modules = {
        "vision_model": DocumentEncoder(config.vision_config),
        "connector": build_connector(config),
    }
    return {
        f"{prefix}.{name}": tensor.contiguous()
        for prefix, module in modules.items()
        for name, tensor in module.state_dict().items()
    }


def adapter_of(base: Path) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    llm = LlamaForCausalLM.from_pretrained(base)
    tensors = {}
    for name, weight in llm.named_parameters():
        if name.endswith(("q_proj.weight", "down_proj.weight")):
            key = f"base_model.model.{name.removesuffix('.weight')}"
            rows, columns = weight.shape
            tensors[f"{key}.lora_A.weight"] = torch.randn(RANK, columns, generator=generator)
            tensors[f"{key}.lora_B.weight"] = torch.randn(rows, RANK, generator=generator) * 0.1
    return tensors


@dataclass(frozen=True)
class Shipped:
    """Where the miniature's parts lie."""

    base: Path
    folder: Path
    cache: Path

    def save(self, **contents: Any) -> None:
        """Replace files: `settings` and `adapter_config` JSON values, `parts` and `adapter`."""
        names = {
            "settings": default.SETTINGS,
            "parts": default.PARTS,
            "adapter": default.ADAPTER,
            "adapter_config": default.ADAPTER_CONFIG,
        }
        for kind, content in contents.items():
            path = self.folder / names[kind]
            if kind in ("parts", "adapter"):
                save_file(content, path)
            else:
                path.write_text(json.dumps(content))


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    save_base(folder)
    return folder


def use(made: Shipped, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(default, "SHIPPED_FOLDER", made.folder)
    patch.setattr(default, "ensure_smollm2", lambda progress: made.base)
    patch.setattr(default, "_NEEDED_BYTES", 10_000_000)
    patch.setenv("ALIGNVLM_CACHE", str(made.cache))


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> Shipped:
    """The miniature's files, and a cache in which it is assembled; tests get copies."""
    folder = tmp_path_factory.mktemp("original")
    made = Shipped(base=base_folder, folder=folder / "shipped", cache=folder / "cache")
    made.folder.mkdir()
    values = settings(base_folder)
    made.save(
        settings=values,
        parts=parts_of(values, base_folder),
        adapter=adapter_of(base_folder),
        adapter_config={"r": RANK, "lora_alpha": ALPHA, "peft_type": "LORA", "bias": "none"},
    )
    with pytest.MonkeyPatch.context() as patch:
        use(made, patch)
        default.ensure_default_model(progress=False)
    return made


@pytest.fixture
def shipped(original: Shipped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shipped:
    """This test's own shipped files and empty cache."""
    made = Shipped(base=original.base, folder=tmp_path / "shipped", cache=tmp_path / "cache")
    shutil.copytree(original.folder, made.folder)
    use(made, monkeypatch)
    return made


@pytest.fixture
def model_folder(shipped: Shipped, original: Shipped) -> Path:
    """The miniature assembled, in this test's own cache."""
    shutil.copytree(original.cache, shipped.cache)
    return default.default_model_folder()


@pytest.fixture
def page_path(tmp_path: Path) -> Path:
    path = tmp_path / "page.png"
    draw_page().save(path)
    return path


def draw_page(colour: str = "black") -> Image.Image:
    image = Image.new("RGB", (60, 30), "white")
    ImageDraw.Draw(image).text((4, 8), "a 7", fill=colour)
    return image
