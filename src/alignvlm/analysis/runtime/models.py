"""Whole VLMs with random weights: one encoder and one language model, a connector at a time.

Speed and memory do not depend on what weights say, so random ones do. All models share the encoder
and the language model, which makes them differ in nothing but the connector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedModel

from alignvlm.analysis.runtime.workloads import Workload
from alignvlm.connectors import available
from alignvlm.model import build
from alignvlm.model.compat import no_init_weights
from alignvlm.model.configuration import AlignVLMConfig, tile_side
from alignvlm.model.modeling import AlignVLMForConditionalGeneration

__all__ = [
    "Parts",
    "Variants",
    "assemble",
    "choose_variants",
    "prefill_flops",
    "prompt_ids",
    "random_pages",
    "random_parts",
    "with_connector",
]

SEED = 0
NUM_PRUNED_WORDS = 3400
"""Words that Table 4 of the paper keeps, "3.4K"."""

_STD = 0.02
# Noise is drawn once and repeated: drawing billions of numbers would take longer than measuring.
# A prime length, so that no two rows of a matrix are the same.
_BLOCK = 1_048_573

Variants = Mapping[str, dict[str, Any]]
"""What a connector is called in the results -> its entry in a configuration."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
    """What all models share."""

    config: AlignVLMConfig
    vision: PreTrainedModel
    llm: PreTrainedModel


def choose_variants(names: Sequence[str] | None, vocab_size: int) -> dict[str, dict[str, Any]]:
    """The connectors to measure: those named, or all that are registered and the pruned ALIGN.

    Args:
        names: of `alignvlm.connectors.available()`, or "align_pruned".
        vocab_size: V, of which the pruned ALIGN keeps `NUM_PRUNED_WORDS` words at most.
    """
    if names is None:
        registered = available()
        names = [*registered, "align_pruned"] if "align" in registered else registered
    variants = {}
    for name in names:
        if name == "align_pruned":
            num_words = min(NUM_PRUNED_WORDS, vocab_size)
            variants[name] = _pruned(num_words)
        else:
            variants[name] = {"name": name}
    return variants


def _pruned(num_words: int) -> dict[str, Any]:
    """ALIGN as `alignvlm.connectors.prune` leaves it, over the first so many words.

    Which words they are makes no difference to the cost.
    """
    words = list(range(num_words))
    return {"name": "align", "vocabulary": words, "full_statistics": True, "own_table": True}


def random_parts(config: AlignVLMConfig, device: torch.device, dtype: torch.dtype) -> Parts:
    """Encoder and language model, matrices normal(0, 0.02), norms the identity; always the same."""
    with no_init_weights(), torch.device(device):
        vision = AutoModel.from_config(config.vision_config, dtype=dtype)
        llm = AutoModelForCausalLM.from_config(config.text_config, dtype=dtype)
    llm.tie_weights()  # a step of the initialisation that was left out
    generator = torch.Generator().manual_seed(SEED)
    noise = torch.randn(_BLOCK, generator=generator).mul_(_STD).to(device, dtype)
    for model in (vision, llm):
        _fill(model, noise)
    return Parts(config=config, vision=vision, llm=llm)


@torch.no_grad()
def _fill(model: nn.Module, noise: Tensor) -> None:
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        for piece in parameter.view(-1).split(len(noise)):
            piece.copy_(noise[: len(piece)])


def with_connector(config: AlignVLMConfig, connector: dict[str, Any]) -> AlignVLMConfig:
    """The same model with another connector.

    Raises:
        ConfigurationError: the connector does not fit the model.
    """
    changed = AlignVLMConfig(
        vision_config=config.vision_config,
        text_config=config.text_config,
        connector=connector,
        image_token_id=config.image_token_id,
        vision_feature_layer=config.vision_feature_layer,
    )
    _ = changed.tokens_per_tile  # builds the connector, without memory
    return changed


def assemble(parts: Parts, connector: dict[str, Any]) -> AlignVLMForConditionalGeneration:
    """The whole model around a fresh connector, the same for the same parts and options."""
    torch.manual_seed(SEED)
    return build.assemble(with_connector(parts.config, connector), parts.vision, parts.llm)


def random_pages(workload: Workload, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Pixel values [T, 3, S, S] of each sample, the same on every device."""
    side = tile_side(workload.config.vision_config)
    generator = torch.Generator().manual_seed(SEED)
    shape = (workload.num_samples, workload.num_tiles, 3, side, side)
    return list(torch.randn(shape, generator=generator).to(device, dtype))


def prompt_ids(model: AlignVLMForConditionalGeneration, workload: Workload) -> Tensor:
    """int64 [1, M]: placeholders for the visual tokens of this connector, then the same text."""
    image_token = model.config.image_token_id
    generator = torch.Generator().manual_seed(SEED)
    text = torch.randint(
        workload.vocab_size - 1, (workload.num_prompt_tokens,), generator=generator
    )
    text += text >= image_token
    num_visual = workload.num_tiles * model.config.tokens_per_tile
    ids = torch.cat((torch.full((num_visual,), image_token), text))
    return ids[None].to(model.lm_head.weight.device)


def prefill_flops(model: AlignVLMForConditionalGeneration, workload: Workload) -> int:
    """Floating-point operations of the matrix products up to the first new token.

    A multiply-add counts as two. Attention counts 4 L^2 times its width in the encoder and half of
    that, the causal half, in the language model; the LM head is applied to the last position.
    """
    config: Any = model.config
    rows, columns = config.feature_grid
    num_tiles, num_patches = workload.num_tiles, rows * columns
    vision, text = config.vision_config, config.text_config
    layer = 4 * num_patches**2 * vision.hidden_size
    encoder = 2 * num_patches * _matrix_size(model.model.vision_model)
    encoder += layer * vision.num_hidden_layers
    length = num_tiles * config.tokens_per_tile + workload.num_prompt_tokens
    head_dim = text.head_dim or text.hidden_size // text.num_attention_heads
    language = 2 * length * _matrix_size(model.model.language_model)
    language += 2 * length**2 * text.num_attention_heads * head_dim * text.num_hidden_layers
    language += 2 * model.lm_head.weight.numel()
    connector = model.model.connector.flops((rows, columns), num_tiles)
    return int(num_tiles * encoder + connector + language)


def _matrix_size(model: nn.Module) -> int:
    """Numbers in the matrices that every position is multiplied by; tables are looked up."""
    kinds = (nn.Linear, nn.Conv2d)
    return sum(part.weight.numel() for part in model.modules() if isinstance(part, kinds))
