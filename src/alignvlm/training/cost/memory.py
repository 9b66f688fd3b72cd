"""Memory of one GPU at the fullest moment of a step, by part, without touching a GPU.

What is added up, in bytes:

- weights: what trains in float32, what is frozen in `model.dtype`, or four bits and a float32
  scale for every 64 of them (QLoRA);
- gradients and optimizer: 4 and 8 a trained parameter (AdamW's two moments in float32), and 4 more
  under "zero3": DeepSpeed's optimizer has float32 weights of its own, whatever the model's are;
- activations: of one row, see `activations`; the row is as full as `batches` allows;
- workspace: what lives for a moment: blocks of logits in ALIGN and in the loss, which take turns;
  the layer that is being recomputed; under sharding, the layers that are gathered; and in the
  optimizer's step, when the activations are gone, one number a trained parameter.

Weights, gradients and optimizer are divided by the GPUs under "fsdp2" and "zero3". What torch's
allocator and libraries take beyond tensors is the plan's reserve, not counted here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from alignvlm.connectors.align import Align
from alignvlm.model.configuration import AlignVLMConfig
from alignvlm.training.configuration import RunConfig
from alignvlm.training.cost.abstract import PARTS
from alignvlm.training.cost.activations import Activations, Row, activations
from alignvlm.training.cost.architecture import skeleton
from alignvlm.training.cost.operations import adapter_size
from alignvlm.training.vlm import part_of

__all__ = [
    "Memory",
    "Parameters",
    "assembled",
    "count_parameters",
    "fullest_row",
    "held_states",
    "memory",
]

_FOUR_BITS = 0.5 + 4 / 64  # bytes of a weight in NF4 with its share of a float32 scale
_ROW_SCRATCH = 1 << 25  # elements of ALIGN's float32 scratch on a GPU, see mixture/rows.py


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Of one part: how many train, how many do not, and how many of those are in four bits."""

    trained: int = 0
    frozen: int = 0
    quantized: int = 0


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one GPU.

    Attributes:
        weights, gradients, optimizer, activations: by part.
        workspace: by what it is for.
    """

    weights: dict[str, int]
    gradients: dict[str, int]
    optimizer: dict[str, int]
    activations: dict[str, int]
    workspace: dict[str, int]

    @property
    def total(self) -> int:
        """At the fullest moment."""
        return self.states + max(self.backward, self.workspace.get("optimizer step", 0))

    @property
    def states(self) -> int:
        """Weights, gradients and optimizer, which are there all the time."""
        return sum(sum(g.values()) for g in (self.weights, self.gradients, self.optimizer))

    @property
    def backward(self) -> int:
        """What the backward pass holds beside the states."""
        short = dict(self.workspace)
        short.pop("optimizer step", None)
        larger = max(short.pop("ALIGN", 0), short.pop("loss", 0))
        return sum(self.activations.values()) + sum(short.values()) + larger


def count_parameters(model: nn.Module, config: Any, run: RunConfig) -> dict[str, Parameters]:
    """Parameters of each part of a model that may be on the meta device, adapters included."""
    counts = {part: {"trained": 0, "frozen": 0, "quantized": 0} for part in PARTS}
    linear = {m.weight for m in model.modules() if isinstance(m, nn.Linear)}
    for name, parameter in model.named_parameters():
        part = part_of(name)
        trains = getattr(run.rates, part) is not None and not (part == "llm" and run.lora)
        counts[part]["trained" if trains else "frozen"] += parameter.numel()
        in_four_bits = run.lora is not None and run.lora.quantize and part == "llm"
        if in_four_bits and parameter in linear and "embed" not in name and "lm_head" not in name:
            counts[part]["quantized"] += parameter.numel()
    if run.lora is not None:
        counts["llm"]["trained"] += adapter_size(model, run.lora)
    return {part: Parameters(**numbers) for part, numbers in counts.items()}


def fullest_row(config: AlignVLMConfig, run: RunConfig) -> Row:
    """The largest row that `batches` lets through: full of tiles, then of text."""
    batches, per_tile = run.batches, config.tokens_per_tile
    tiles, text = batches.max_tiles, batches.max_text_tokens
    if not batches.pack:
        tiles = min(tiles, config.tiling["max_tiles"] + config.tiling["thumbnail"])
    room = batches.max_tokens - (0 if batches.pack else min(text, batches.max_tokens // 2))
    tiles = max(1, min(tiles, room // per_tile))
    left = max(1, batches.max_tokens - tiles * per_tile)
    return Row(
        num_tiles=tiles,
        text_tokens=left if batches.pack else min(left, text),
        num_samples=2 if batches.pack else 1,
    )


def held_states(
    parameters: dict[str, Parameters], run: RunConfig, num_gpus: int
) -> dict[str, dict[str, int]]:
    """Weights, gradients and optimizer of each part on one GPU."""
    share = num_gpus if run.sharding != "none" else 1
    frozen_bytes = {"float32": 4, "bfloat16": 2}[run.model.dtype]
    of_optimizer = 12 if run.sharding == "zero3" else 8
    weights = {
        part: p.trained * 4 + (p.frozen - p.quantized) * frozen_bytes + p.quantized * _FOUR_BITS
        for part, p in parameters.items()
    }
    return {
        "weights": {part: int(size / share) for part, size in weights.items()},
        "gradients": {part: p.trained * 4 // share for part, p in parameters.items()},
        "optimizer": {part: p.trained * of_optimizer // share for part, p in parameters.items()},
    }


def memory(config: AlignVLMConfig, run: RunConfig, num_gpus: int) -> Memory:
    """The memory of one of `num_gpus` GPUs, on its fullest row."""
    row = fullest_row(config, run)
    in_turn = {"ALIGN": _align(config, run, row), "loss": _loss(config, run, row)}
    kept = activations(config, run, row)
    return assembled(skeleton(config), config, run, num_gpus, kept, in_turn)


def assembled(
    model: nn.Module,
    config: Any,
    run: RunConfig,
    num_gpus: int,
    kept: Activations,
    in_turn: dict[str, int],
) -> Memory:
    """The memory of one of `num_gpus` GPUs from what is known of its parts.

    Args:
        model: on the meta device.
        config: of the model.
        run: the run.
        num_gpus: that share it.
        kept: of a row.
        in_turn: bytes of workspace that are never needed at the same time.
    """
    held = held_states(count_parameters(model, config, run), run, num_gpus)
    workspace = {
        **in_turn,
        "recomputed layer": kept.recomputed,
        "optimizer step": sum(held["gradients"].values()),  # one number a trained parameter
        "bfloat16 weights": kept.weight_copies,
    }
    if run.sharding != "none":
        workspace["gathered weights"] = _gathered(model, run)
    return Memory(
        **held,
        activations={part: getattr(kept, part) for part in PARTS},
        workspace=workspace,
    )


def _compute_bytes(run: RunConfig) -> int:
    return 2 if "bfloat16" in (run.precision, run.model.dtype) else 4


def _align(config: AlignVLMConfig, run: RunConfig, row: Row) -> int:
    """Blocks of logits and of their gradients, and the gradients of W2 and E before they are added.

    See `alignvlm.connectors.mixture.choice` for the blocks' sizes.
    """
    connector = skeleton(config).model.connector
    if not isinstance(connector, Align):
        return 0
    rows, columns = config.feature_grid
    num_tokens, size = row.num_tiles * rows * columns, _compute_bytes(run)
    words, width = connector.num_words, connector.text_dim
    plan = connector.choice.resolve(
        num_tokens, words, torch.device("cuda"), trains=True, has_bias=connector.w2.bias is not None
    )
    whole_llm = run.rates.llm is not None and run.lora is None
    tables = (run.rates.connector is not None) + (whole_llm and connector.table is None)
    # Summed in the compute dtype, then cast to float32 one after the other.
    gradients = tables * words * width * size + (words * width * 4 if tables and size < 4 else 0)
    if plan.implementation == "eager" or connector.row_mean is not None:
        return 2 * num_tokens * words * 4 + gradients
    chunk = int(plan.chunk_size or 1)
    across = num_tokens if plan.chunk_by == "words" else words
    block = chunk * across
    scratch = 3 * 4 * min(block, max(_ROW_SCRATCH, across))
    if plan.chunk_by == "words":
        # h in two dtypes, its gradient in float32, dF' with the centre's columns; W2's statistics.
        scratch += num_tokens * width * (4 + 3 * size) + 2 * 4 * width**2
    return 2 * block * size + scratch + gradients


def _loss(config: AlignVLMConfig, run: RunConfig, row: Row) -> int:
    """Torch's chunked linear cross-entropy: a block of logits, and gradients taken with the loss.

    The hidden states are float32 where the embeddings are, and the head is taken in their dtype.
    """
    text = config.text_config
    num = max(row.text_tokens, run.batches.max_text_tokens)  # a row of text alone is possible
    width, words = text.hidden_size, text.vocab_size
    whole_llm = run.rates.llm is not None and run.lora is None
    size = 4 if whole_llm or run.model.dtype == "float32" else 2
    chunk = max(1, (1 << max(0, -(-num // -(-words // width)) - 1).bit_length()) // 2)
    logits = chunk * words * (4 + (2 if size == 2 else 0))
    states = 2 * num * width * size
    return logits + states + (words * width * size if whole_llm else 0)


def _gathered(model: Any, run: RunConfig) -> int:
    """Under sharding: a layer with its gradient and the next one, and all that is in no layer.

    Embeddings, head and connector stay gathered from the forward to the backward pass, and their
    gradients are whole before they are shared out.
    """
    from alignvlm.model.compat import GradientCheckpointingLayer

    frozen_bytes = {"float32": 4, "bfloat16": 2}[run.model.dtype]

    def trains(name: str) -> bool:
        part = part_of(name)
        return getattr(run.rates, part) is not None and not (part == "llm" and run.lora)

    sizes = {
        id(p): p.numel() * (4 if trains(name) else frozen_bytes)
        for name, p in model.named_parameters()
    }
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    largest = max((sum(sizes[id(p)] for p in layer.parameters()) for layer in layers), default=0)
    inside = {id(p) for layer in layers for p in layer.parameters()}
    outside = [(name, p) for name, p in model.named_parameters() if id(p) not in inside]
    gradients = sum(4 * p.numel() for name, p in outside if trains(name))
    return 3 * largest + sum(sizes[id(p)] for _, p in outside) + gradients
