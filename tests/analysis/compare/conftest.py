"""A recipe of tiny random models in folders, whose comparison takes seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from alignvlm.analysis.compare import Comparison, Sigma
from alignvlm.errors import MissingDependencyError
from alignvlm.model.chat import CHATML
from alignvlm.synth import find_fonts
from alignvlm.training.configuration import (
    BatchConfig,
    DataPart,
    LoraConfig,
    ModelConfig,
    OptimizerConfig,
    Rates,
    RunConfig,
)

# By their paths other processes find them too.
sys.path.append(str(Path(__file__).parent))

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<empty_output>"]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, and a few merges, so that a token can be several letters."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "l"), ("t", "o"), ("to", "t"), ("tot", "al"), ("Ġ", "p")]
    words = [*SPECIAL, *alphabet, *("".join(pair) for pair in merges)]
    vocabulary = {token: index for index, token in enumerate(words)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<empty_output>"],
    )  # fmt: skip
    tokenizer.chat_template = CHATML
    return tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture(scope="session", autouse=True)
def fonts() -> None:
    """Every test here draws pages of both splits."""
    try:
        find_fonts("train")
        find_fonts("heldout")
    except MissingDependencyError:
        pytest.skip("no fonts on this machine: bash scripts/get_fonts.sh")


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Folders of a vision encoder with tiles of 28 px and of a language model."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(1)
    vision = SiglipVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        image_size=28, patch_size=7, vision_use_head=False,
    )  # fmt: skip
    SiglipVisionModel(vision).save_pretrained(folder / "vision")
    text = LlamaConfig(
        vocab_size=268, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
        max_position_embeddings=512, initializer_range=0.3, bos_token_id=None,
        eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(text).save_pretrained(folder / "llm")
    make_tokenizer().save_pretrained(folder / "llm")
    return str(folder / "vision"), str(folder / "llm")


@pytest.fixture(scope="session")
def recipe(parts: tuple[str, str]) -> RunConfig:
    vision, llm = parts
    return RunConfig(
        recipe="tiny",
        model=ModelConfig(
            vision=vision, llm=llm, connector={"name": "align", "gain": 4.0},
            tiling={"layout": "canvas", "thumbnail": False, "max_tiles": 1},
        ),
        rates=Rates(vision=1e-3, connector=1e-2, llm=1e-3),
        data=(DataPart(source="synth", options={"kinds": ["note"]}),),
        batches=BatchConfig(num_samples=2, max_tokens=512, max_tiles=2, max_text_tokens=400),
        optimizer=OptimizerConfig(),
        lora=LoraConfig(rank=2, alpha=4, targets=("q_proj", "v_proj")),
        precision="float32",
        num_workers=0,
        checkpoint_every=1,
        inspect_every=0,
    )  # fmt: skip


@pytest.fixture
def comparison(recipe: RunConfig) -> Callable[..., Comparison]:
    """Makes comparisons of two connectors, two budgets, two seeds and two rates."""

    def make(**options: Any) -> Comparison:
        defaults: dict[str, Any] = {
            "recipe": recipe, "variants": ("align", "mlp"), "budgets": (2, 4), "num_seeds": 2,
            "rates": (1e-3, 1e-2), "num_pages": 3, "num_validation": 2,
            "sigmas": (Sigma(value=3.0), Sigma(value=1.0, relative=True)),
        }  # fmt: skip
        return Comparison(**defaults | options)

    return make


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "compared"
