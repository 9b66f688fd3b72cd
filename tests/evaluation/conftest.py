"""A tiny random model that can read and answer, in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from alignvlm.model import AlignVLM, AlignVLMProcessor, DocumentEncoder, DocumentEncoderConfig
from alignvlm.model.characters import character_tokens
from alignvlm.model.chat import CHATML

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<empty_output>"]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Every byte is a token, after the special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<empty_output>"],
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def make_llm(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoder of one tile of 128 px, ALIGN over characters, Llama of two layers."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer, llm = make_tokenizer(), make_llm(0)
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
    return folder


@pytest.fixture(scope="session")
def untuned() -> LlamaForCausalLM:
    return make_llm(1)


@pytest.fixture(autouse=True)
def _no_progress_bars() -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()
