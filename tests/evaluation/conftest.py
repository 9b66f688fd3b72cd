"""A tiny random model that can read and answer, in a folder.

What is heavy is imported where it is used: scorers, benchmarks and reports are tested without it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


def make_llm(seed: int) -> LlamaForCausalLM:
    import torch
    from tiny_models import tiny_chat_llama
    from transformers import LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(tiny_chat_llama()).eval()


def save_model(folder: Path) -> None:
    """Encoder of one tile of 128 px, ALIGN over characters, Llama of two layers."""
    from tiny_models import chat_tokenizer

    from alignvlm.model import AlignVLM, AlignVLMProcessor, DocumentEncoder, DocumentEncoderConfig
    from alignvlm.model.characters import character_tokens

    tokenizer, llm = chat_tokenizer(use_regex=False), make_llm(0)
    model = AlignVLM.build(
        vision=DocumentEncoder(DocumentEncoderConfig(tile_px=128, hidden_size=32)),
        llm=llm,
        connector={
            "name": "align",
            "gain": 4.0,
            "vocabulary": list(character_tokens(tokenizer).values()),
        },
        tiling={"layout": "canvas", "max_tiles": 1},
        condense={"prune": True, "merge": "spell"},
        tokenizer=tokenizer,
    )
    model.save_pretrained(folder)
    AlignVLMProcessor.build(tokenizer, model.config).save_pretrained(folder)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `save_model` writes."""
    folder = tmp_path_factory.mktemp("model")
    save_model(folder)
    return folder


@pytest.fixture(scope="session")
def untuned() -> LlamaForCausalLM:
    return make_llm(1)


@pytest.fixture(autouse=True)
def _no_progress_bars() -> None:
    if "transformers" in sys.modules:
        from transformers.utils import logging

        logging.disable_progress_bar()
