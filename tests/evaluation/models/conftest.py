"""Folders with small random models of other makers, and prompts about drawn pages."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from tiny_models import chat_tokenizer, tiny_chat_llama
from transformers import (
    CLIPVisionConfig,
    LlamaForCausalLM,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
)

from alignvlm.data.images import DrawnImage
from alignvlm.evaluation.question import Prompt
from alignvlm.model import AlignVLM, AlignVLMProcessor, DocumentEncoder, DocumentEncoderConfig


def _named(name: str, path: Path) -> Any:
    """A file of the tests as a module of this name."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


server = _named("endpoint_server", Path(__file__).with_name("endpoint_server.py")).server

BUILDERS = Path(__file__).parents[2] / "training" / "foreign_vlm.py"


@pytest.fixture(scope="session")
def own_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AlignVLM in miniature, as the default model is built: pages condense to what they hold."""
    tokenizer = chat_tokenizer()
    torch.manual_seed(1)
    llm = LlamaForCausalLM(tiny_chat_llama(max_position_embeddings=300))
    words = [tokenizer.encode(char)[0] for char in "\n abcdefgh0123456789.$"]
    model = AlignVLM.build(
        vision=DocumentEncoder(
            DocumentEncoderConfig(tile_px=32, hidden_size=16, num_context_layers=1)
        ),
        llm=llm,
        connector={"name": "align", "vocabulary": words, "gain": 6.0},
        tiling={"layout": "canvas", "thumbnail": False, "max_tiles": 4},
        condense={"prune": True, "merge": "average"},
        tokenizer=tokenizer,
    )
    folder = tmp_path_factory.mktemp("own")
    model.save_pretrained(folder)
    AlignVLMProcessor.build(tokenizer, model.config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def foreign_models() -> dict[str, tuple[Any, Any]]:
    """Model and processor by name, weights large enough that tokens differ in likelihood."""
    module = _named("evaluated_foreign_vlm", BUILDERS)
    made = {name: build() for name, build in module.MODELS.items()}
    made["llava_next"] = llava_next(module)
    for model, _ in made.values():
        generator = torch.Generator().manual_seed(5)
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "norm" not in name:
                torch.nn.init.normal_(weight, std=0.25, generator=generator)
            elif "gate" in name and weight.ndim == 1:
                torch.nn.init.constant_(weight, 0.7)  # Mllama starts without seeing its images
    return made


def llava_next(made: Any) -> tuple[Any, Any]:
    """Its images have different numbers of tiles, so that pixels are padded in a batch."""
    tokenizer = made.make_tokenizer(["<pad>", "<s>", "</s>", "<image>"], "</s>", "<s>", True)
    size, grids = {"height": 28, "width": 28}, [[28, 56], [56, 28], [56, 56]]
    processor = LlavaNextProcessor(
        LlavaNextImageProcessor(size={"shortest_edge": 28}, crop_size=size,
                                image_grid_pinpoints=grids),
        tokenizer, patch_size=14, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=made.VICUNA.replace("IMAGE", "<image>"),
    )  # fmt: skip
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            image_size=28, patch_size=14,
        ),
        text_config=made._llama(), image_token_index=3, image_grid_pinpoints=grids,
    )  # fmt: skip
    return LlavaNextForConditionalGeneration(config), processor


@pytest.fixture(scope="session")
def foreign_folders(
    foreign_models: dict[str, tuple[Any, Any]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The models as `save_pretrained` writes them."""
    folders = {}
    for name, (model, processor) in foreign_models.items():
        folders[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(folders[name])
        processor.save_pretrained(folders[name])
    return folders


@pytest.fixture
def without_videos(
    foreign_models: dict[str, tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Qwen2-VL's processor without its video half, which needs torchvision."""
    from alignvlm.evaluation.models import foreign

    original, made = foreign.AutoProcessor.from_pretrained, foreign_models["qwen2_vl"][1]

    def load(folder: Path, **options: Any) -> Any:
        return made if "qwen2_vl" in Path(folder).name else original(folder, **options)

    monkeypatch.setattr(foreign.AutoProcessor, "from_pretrained", load)
    yield


def drawn(number: int, size: tuple[int, int] | None = None) -> DrawnImage:
    """A page of its own size and content for each number."""
    width, height = size or (30 + 9 * number, 44 - 5 * (number % 4))
    image = Image.new("RGB", (width, height), (250 - 30 * (number % 5), 240, 230))
    ImageDraw.Draw(image).text((2, 4), f"a{number} b\n{number * 7}", fill="black")
    return DrawnImage(image, f"page {number}")


@pytest.fixture(scope="session")
def make_prompt() -> Callable[..., Prompt]:
    """Prompts as benchmarks put them: images first, then the question."""

    def make(
        number: int = 0,
        text: str | None = None,
        *,
        num_images: int = 1,
        most: int = 10,
        **rest: Any,
    ) -> Prompt:
        asked = "What is it" + "?" * (3 * number + 1) if text is None else text
        parts = [{"type": "image"}] * num_images + [{"type": "text", "text": asked}]
        images = tuple(drawn(number + 3 * place) for place in range(num_images))
        return Prompt(
            question_id=f"q{number}",
            parts=tuple(parts),
            images=images,
            max_new_tokens=most,
            **rest,
        )

    return make
