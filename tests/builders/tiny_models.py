"""Tiny parts of models with random weights: byte-level tokenizers, a Llama, a SigLIP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast, SiglipVisionConfig

from alignvlm.model.chat import CHATML


def byte_tokenizer(
    special: Sequence[str], *, use_regex: bool = True, **roles: Any
) -> PreTrainedTokenizerFast:
    """Every byte is a token, after the special ones, whose `roles` are the tokenizer's options."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*special, *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, **roles)


def chat_tokenizer(*, use_regex: bool = True) -> PreTrainedTokenizerFast:
    """260 tokens: bytes after control tokens as SmolLM2 has them; <|im_end|>, id 2, ends a turn."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<empty_output>"]
    tokenizer = byte_tokenizer(
        special,
        use_regex=use_regex,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<empty_output>"],
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def tiny_llama(**options: Any) -> LlamaConfig:
    """Two layers of four heads, 32 wide, unless `options` say otherwise."""
    defaults: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    return LlamaConfig(**defaults | options)


def tiny_chat_llama(**options: Any) -> LlamaConfig:
    """A Llama for `chat_tokenizer` whose weights are large enough to tell tokens apart."""
    defaults: dict[str, Any] = {
        "vocab_size": 260,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        "initializer_range": 0.3,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    return tiny_llama(**defaults | options)


def tiny_siglip(**options: Any) -> SiglipVisionConfig:
    """Two layers of two heads, 16 wide, with patches of 14 px."""
    defaults: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "patch_size": 14,
        "vision_use_head": False,
    }
    return SiglipVisionConfig(**defaults | options)
