"""Floating-point operations of a training step, by part, from the configuration alone.

Only matrix products and convolutions count, a multiply-add as two operations. A product costs one
forward pass for its output, one for the gradient of its weight if that trains, and one for the
gradient of its input if anything before it trains; a product of two activations (attention) costs
two for its gradients. Attention is counted over the whole square of a text, as torch's counter and
most reports of utilisation do, although a causal kernel skips half of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from alignvlm.connectors.align import Align
from alignvlm.model.configuration import AlignVLMConfig, build_connector
from alignvlm.model.vision import encode
from alignvlm.training.configuration import LoraConfig, Rates
from alignvlm.training.cost.architecture import skeleton, skeleton_of

__all__ = ["Flops", "PartFlops", "adapter_size", "flops"]


@dataclass(frozen=True, kw_only=True)
class PartFlops:
    """Operations of one part of the model.

    Attributes:
        forward: of the forward pass.
        backward: of the gradients.
        recomputed: taken a second time to save memory: layers under gradient checkpointing, and
            ALIGN's logits.
    """

    forward: int = 0
    backward: int = 0
    recomputed: int = 0

    def __add__(self, other: PartFlops) -> PartFlops:
        pairs = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return PartFlops(**pairs)

    def __mul__(self, times: float) -> PartFlops:
        return PartFlops(**{f.name: round(getattr(self, f.name) * times) for f in fields(self)})

    @property
    def total(self) -> int:
        """Everything that is computed."""
        return self.forward + self.backward + self.recomputed

    @property
    def model(self) -> int:
        """What the model needs, however it is computed: what MFU is the share of."""
        return self.forward + self.backward


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Operations of a step, by part; `forward`, `total` and `model` are their sums."""

    vision: PartFlops
    connector: PartFlops
    llm: PartFlops
    head: PartFlops

    def __add__(self, other: Flops) -> Flops:
        theirs = dict(other.parts())
        return Flops(**{name: part + theirs[name] for name, part in self.parts()})

    def __mul__(self, times: float) -> Flops:
        return Flops(**{name: part * times for name, part in self.parts()})

    def parts(self) -> Iterator[tuple[str, PartFlops]]:
        """The parts with their names."""
        return ((field.name, getattr(self, field.name)) for field in fields(self))

    @property
    def forward(self) -> int:
        """Of the forward passes."""
        return sum(part.forward for _, part in self.parts())

    @property
    def total(self) -> int:
        """Everything that is computed."""
        return sum(part.total for _, part in self.parts())

    @property
    def model(self) -> int:
        """Forward and backward without what is recomputed."""
        return sum(part.model for _, part in self.parts())


def flops(
    config: AlignVLMConfig,
    *,
    text_tokens: int,
    visual_tokens: int,
    num_tiles: int,
    sum_squared_lengths: int,
    trained: Rates,
    checkpointing: bool,
    lora: LoraConfig | None = None,
    loss_tokens: int | None = None,
) -> Flops:
    """Operations of forward and backward pass over some samples, a step's say.

    Args:
        config: the model; its FLOPs per tile and token are worked out once and kept.
        text_tokens: of all samples.
        visual_tokens: of all samples.
        num_tiles: T of all samples.
        sum_squared_lengths: sum over the samples of (text + visual tokens)^2; of whole rows where
            attention is computed over rows and masked (the eager one).
        trained: parts whose rate is not None.
        checkpointing: the layers of encoder and language model are recomputed.
        lora: adapters train in place of the language model's own weights.
        loss_tokens: rows that the head is applied to; None: all text tokens.
    """
    per = _unit_costs(config.to_json_string(use_diff=False))
    upstream = trained.vision is not None or trained.connector is not None
    whole_llm = trained.llm is not None and lora is None
    rows = text_tokens if loss_tokens is None else loss_tokens
    width = config.text_config.hidden_size
    head = 2 * rows * width * config.text_config.vocab_size
    return Flops(
        vision=_vision(per, num_tiles, trained.vision is not None, checkpointing),
        connector=_connector(config, num_tiles, trained, whole_llm),
        llm=_llm(
            per,
            text_tokens + visual_tokens,
            sum_squared_lengths,
            trains=whole_llm,
            passes=upstream or trained.llm is not None,
            checkpointing=checkpointing,
            adapters=adapter_size(skeleton(config), lora) if lora is not None else 0,
        ),
        head=PartFlops(forward=head, backward=head * (1 + whole_llm)),
    )


@dataclass(frozen=True, kw_only=True)
class _UnitCosts:
    """Forward FLOPs.

    Attributes:
        tile: products with weights, of one tile.
        tile_entry: those of them whose input are pixels.
        tile_attention: products of activations, of one tile.
        tile_kept: those of `tile` that checkpointing does not repeat.
        tile_share: share of the encoder that the features depend on.
        tile_checkpoints: whether the encoder's layers can be checkpointed.
        token: products with weights, of one token of the language model.
        token_kept: those of them that checkpointing does not repeat.
        square: attention, of one pair of tokens.
    """

    tile: int
    tile_entry: int
    tile_attention: int
    tile_kept: int
    tile_share: float
    tile_checkpoints: bool
    token: int
    token_kept: int
    square: int


@lru_cache(maxsize=8)
def _unit_costs(content: str) -> _UnitCosts:
    model = skeleton_of(content)
    config, vision, llm = model.config, model.model.vision_model, model.model.language_model
    side, text = config.tiling["tile_px"], config.text_config
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        features = encode(vision, torch.empty(1, 3, side, side), None, config.vision_feature_layer)
    counted = {str(op): count for op, count in counter.get_flop_counts()["Global"].items()}
    attention = sum(n for op, n in counted.items() if "bmm" in op or "attention" in op)
    tile_tokens, num_layers = features.shape[1], getattr(vision.config, "num_hidden_layers", 0)
    used = config.vision_feature_layer % (num_layers + 1) if num_layers else 1
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return _UnitCosts(
        tile=sum(counted.values()) - attention,
        tile_entry=_entry(vision, side),
        tile_attention=attention,
        tile_kept=2 * tile_tokens * _last_products(vision),
        tile_share=used / max(1, num_layers),
        tile_checkpoints=bool(vision.supports_gradient_checkpointing),
        token=2 * _weights(llm),
        token_kept=2 * _last_products(llm),
        square=4 * text.num_attention_heads * head_dim * text.num_hidden_layers,
    )


def _vision(per: _UnitCosts, tiles: int, trains: bool, checkpointing: bool) -> PartFlops:
    forward = tiles * (per.tile + per.tile_attention)
    if not trains:
        return PartFlops(forward=forward)
    gradients = 2 * (per.tile + per.tile_attention) - per.tile_entry
    again = per.tile + per.tile_attention - per.tile_entry - per.tile_kept
    return PartFlops(
        forward=forward,
        backward=int(tiles * gradients * per.tile_share),
        recomputed=tiles * again if checkpointing and per.tile_checkpoints else 0,
    )


def _llm(
    per: _UnitCosts,
    tokens: int,
    squares: int,
    *,
    trains: bool,
    passes: bool,
    checkpointing: bool,
    adapters: int,
) -> PartFlops:
    """`trains`: the layers' own weights; `passes`: a gradient goes through the layers."""
    weights, attention = tokens * per.token, squares * per.square
    extra = 2 * tokens * adapters
    if not passes:
        return PartFlops(forward=weights + attention)
    again = weights + attention + extra - tokens * per.token_kept
    return PartFlops(
        forward=weights + attention + extra,
        backward=weights * (1 + trains) + 2 * attention + 2 * extra,
        recomputed=again if checkpointing else 0,
    )


def _connector(config: AlignVLMConfig, tiles: int, trained: Rates, whole_llm: bool) -> PartFlops:
    connector, grid = skeleton(config).model.connector, config.feature_grid
    forward = connector.flops(grid, tiles)
    own, below = trained.connector is not None, trained.vision is not None
    if isinstance(connector, Align):
        num_tokens = tiles * grid[0] * grid[1]
        return _align(connector, num_tokens, forward, own=own, below=below, table=whole_llm)
    of_tile = _connector_gradients(config.to_json_string(use_diff=False), own, below)
    return PartFlops(forward=forward, backward=tiles * of_tile)


@lru_cache(maxsize=32)
def _connector_gradients(content: str, own: bool, below: bool) -> int:
    """FLOPs of a connector's backward pass over one tile, counted on shapes alone."""
    if not (own or below):
        return 0
    config = skeleton_of(content).config
    with torch.device("meta"):
        connector = build_connector(config).requires_grad_(own)
        rows, columns = config.feature_grid
        features = torch.empty(1, rows * columns, connector.vision_dim, requires_grad=below)
        table = torch.empty(config.text_config.vocab_size, connector.text_dim)
        tokens = connector(features, embeddings=table, grid=(rows, columns)).visual_tokens
        formula = {torch.ops.aten.convolution_backward: _convolution_gradients}
        with FlopCounterMode(display=False, custom_mapping=formula) as counter:
            tokens.sum().backward()
    return counter.get_total_flops()


def _convolution_gradients(
    grad: Sequence[int], _x: object, weight: Sequence[int], *arguments: Any, **_: object
) -> int:
    """As much as the forward pass for each gradient; torch's own formula ignores groups."""
    needed = arguments[-1]
    return 2 * prod(weight) * grad[0] * prod(grad[2:]) * (needed[0] + needed[1])


def _align(
    connector: Align, num_tokens: int, forward: int, *, own: bool, below: bool, table: bool
) -> PartFlops:
    """W1 F, W2 h and P E, see `alignvlm.connectors.mixture`."""
    words, width = connector.num_words, connector.text_dim
    first, product = 2 * num_tokens * width * connector.vision_dim, 2 * num_tokens * words * width
    own_table = own and connector.table is not None
    of_table = own_table or (table and connector.table is None)
    if not (own or below or of_table):
        return PartFlops(forward=forward)
    # dP is taken whenever there is a gradient; dh, dW2 and dE if something needs them.
    vocabulary = product * (1 + (own or below) + own + of_table)
    plan = connector.choice.resolve(
        num_tokens, words, torch.device("cpu"), trains=True, has_bias=connector.w2.bias is not None
    )
    again = 0
    if plan.implementation != "eager" and connector.row_mean is None:
        again = product
        if plan.chunk_by == "words":
            again += 4 * words * width**2
    return PartFlops(forward=forward, backward=first * (own + below) + vocabulary, recomputed=again)


def _weights(module: nn.Module) -> int:
    """Weights of the linear layers: multiply-adds of one token."""
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """The layers that gradient checkpointing would recompute, one by one."""
    from alignvlm.model.compat import GradientCheckpointingLayer

    return (m for m in module.modules() if isinstance(m, GradientCheckpointingLayer))


def _last_products(module: nn.Module) -> int:
    """Weights of each layer's last linear layer, which has nothing behind it to recompute it for.

    Checkpointing stops once the last tensor that the backward pass needs is there again, and that
    is this layer's input.
    """
    total = 0
    for layer in _layers(module):
        linear = [m for m in layer.modules() if isinstance(m, nn.Linear)]
        total += linear[-1].weight.numel() if linear else 0
    return total


def _entry(vision: nn.Module, side: int) -> int:
    """FLOPs of the first convolution on one tile, whose input, the pixels, needs no gradient."""
    convolution = next((m for m in vision.modules() if isinstance(m, nn.Conv2d)), None)
    if convolution is None:
        return 0
    with torch.device("meta"):
        out = convolution(torch.empty(1, convolution.in_channels, side, side))
    return 2 * convolution.weight.numel() * out.shape[-1] * out.shape[-2]


def adapter_size(model: nn.Module, lora: LoraConfig) -> int:
    """Weights of the adapters in a model's language model."""
    return sum(
        lora.rank * (m.in_features + m.out_features)
        for name, m in model.named_modules()
        if isinstance(m, nn.Linear)
        and name.rsplit(".", 1)[-1] in lora.targets
        and "language_model" in name
    )
