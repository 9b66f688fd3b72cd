"""Tiny random parts: a byte-level tokenizer, a SigLIP of two layers, a Llama of two layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_models import byte_tokenizer, tiny_chat_llama, tiny_siglip
from transformers import LlamaConfig, PreTrainedTokenizerFast, SiglipVisionConfig

from alignvlm.model import AlignVLMConfig, AlignVLMForConditionalGeneration, AlignVLMProcessor
from alignvlm.model.chat import CHATML

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<empty_output>", "<file_sep>"]
IMAGE_TOKEN = "<empty_output>"
TILE_PX = 28
TOKENS_PER_TILE = 4


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Every byte is a token, after the special ones."""
    tokenizer = byte_tokenizer(
        SPECIAL,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<empty_output>", "<file_sep>"],
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def make_vision(**options: Any) -> SiglipVisionConfig:
    return tiny_siglip(**{"num_hidden_layers": 3, "image_size": TILE_PX} | options)


def make_text(**options: Any) -> LlamaConfig:
    defaults = {"vocab_size": 264, "max_position_embeddings": 2048}
    return tiny_chat_llama(**defaults | options)


def make_config(*, tied: bool = True, **options: Any) -> AlignVLMConfig:
    defaults: dict[str, Any] = {
        "vision_config": make_vision(),
        "text_config": make_text(tie_word_embeddings=tied),
        # A gain above 1: with 1 all visual tokens of a random model are nearly the mean embedding.
        "connector": {"name": "align", "gain": 4.0},
        "image_token_id": SPECIAL.index(IMAGE_TOKEN),
    }
    return AlignVLMConfig(**defaults | options)


def make_page(width: int, height: int, seed: int = 0) -> Image.Image:
    """Noise: every tile of it is another."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def ask(text: str, *pages: Image.Image) -> list[dict[str, Any]]:
    """A conversation of one question about pages."""
    images = [{"type": "image", "image": page} for page in pages]
    return [{"role": "user", "content": [*images, {"type": "text", "text": text}]}]


@pytest.fixture(scope="session")
def tiny() -> SimpleNamespace:
    """The helpers of this file, for tests to call."""
    return SimpleNamespace(
        ask=ask,
        config=make_config,
        page=make_page,
        text=make_text,
        tokenizer=make_tokenizer,
        vision=make_vision,
        image_token=IMAGE_TOKEN,
        special=SPECIAL,
        tile_px=TILE_PX,
        tokens_per_tile=TOKENS_PER_TILE,
    )


@pytest.fixture(autouse=True)
def _no_progress_bars() -> Iterator[None]:
    from transformers.utils import logging

    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


@pytest.fixture
def make() -> Callable[..., AlignVLMForConditionalGeneration]:
    """Builds a seeded tiny model from the options of `make_config`."""

    def build(**options: Any) -> AlignVLMForConditionalGeneration:
        torch.manual_seed(0)
        return AlignVLMForConditionalGeneration(make_config(**options)).eval()

    return build


@pytest.fixture(scope="session")
def processor() -> AlignVLMProcessor:
    return AlignVLMProcessor.build(make_tokenizer(), make_config())
