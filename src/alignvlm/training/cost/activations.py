"""What the backward pass keeps of a row of one of this package's models.

The forward pass is run with tensors that have no values (`abstract`), on one and two layers of
each part. It takes a second or two, whatever the model's size.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from alignvlm.model.configuration import AlignVLMConfig
from alignvlm.model.modeling import AlignVLMForConditionalGeneration
from alignvlm.model.vision import encode
from alignvlm.training.attention import BY_SAMPLE
from alignvlm.training.configuration import RunConfig
from alignvlm.training.cost.abstract import UNMASKED, Kept, Ledger, Setup, adapt, without_values

__all__ = ["Activations", "Row", "activations"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one forward pass sees.

    Attributes:
        num_tiles: T.
        text_tokens: beside the visual ones.
        num_samples: that share the row; attention is masked to each of them.
    """

    num_tiles: int
    text_tokens: int
    num_samples: int = 1


@dataclass(frozen=True, kw_only=True)
class Activations:
    """Bytes of a row that are there at the start of the backward pass.

    Attributes:
        vision, connector, llm: kept by each part.
        recomputed: of the one layer that is recomputed at a time, under gradient checkpointing.
        weight_copies: copies of float32 weights in bfloat16, which autocast makes.
    """

    vision: int = 0
    connector: int = 0
    llm: int = 0
    recomputed: int = 0
    weight_copies: int = 0

    @property
    def total(self) -> int:
        """Of all parts, without the copies of weights."""
        return self.vision + self.connector + self.llm + self.recomputed


def activations(config: AlignVLMConfig, run: RunConfig, row: Row) -> Activations:
    """What a run keeps of a row; kept for the next time it is asked."""
    content = config.to_json_string(use_diff=False)
    return _activations(content, Setup.of(run), row, run.model.gradient_checkpointing)


@lru_cache(maxsize=64)
def _activations(content: str, setup: Setup, row: Row, checkpointing: bool) -> Activations:
    config = AlignVLMConfig.from_dict(json.loads(content))
    depths = _depths(config)
    with FakeTensorMode():
        models = [_abstract_model(_shallow(config, n), setup, row) for n in (1, 2)]
        whole = _kept(models, setup, row, depths)
        if not checkpointing:
            return Activations(**whole.parts, weight_copies=sum(whole.copies.values()))
        for model in models:
            model.activation_checkpointing_enable()
            model.disable_input_require_grads()
        kept = _kept(models, setup, row, depths)
    # Everything beyond the layers' inputs lives for one layer at a time, and so do the copies that
    # a layer makes of its weights.
    inside = {part: (whole.parts[part] - kept.parts[part]) / depths[part] for part in depths}
    return Activations(
        **kept.parts,
        recomputed=int(max(inside.values())),
        weight_copies=sum(kept.copies.values()),
    )


def _kept(
    models: list[AlignVLMForConditionalGeneration], setup: Setup, row: Row, depths: dict[str, int]
) -> Kept:
    """Layers of a part are alike: one and two of them say what all of them keep."""
    one, two = (_run(model, setup, row) for model in models)

    def extrapolated(low: dict[str, int], high: dict[str, int]) -> dict[str, int]:
        return {part: low[part] + (high[part] - low[part]) * (depths[part] - 1) for part in low}

    return Kept(
        parts=extrapolated(one.parts, two.parts), copies=extrapolated(one.copies, two.copies)
    )


def _depths(config: AlignVLMConfig) -> dict[str, int]:
    return {
        "vision": getattr(config.vision_config, "num_hidden_layers", 1),
        "connector": 1,
        "llm": config.text_config.num_hidden_layers,
    }


def _shallow(config: AlignVLMConfig, num_layers: int) -> AlignVLMConfig:
    shallow = copy.deepcopy(config)
    for part in (shallow.vision_config, shallow.text_config):
        if hasattr(part, "num_hidden_layers"):
            part.num_hidden_layers = num_layers
        if getattr(part, "layer_types", None):
            part.layer_types = part.layer_types[:num_layers]
    return shallow


def _run(model: AlignVLMForConditionalGeneration, setup: Setup, row: Row) -> Kept:
    ledger = Ledger(model)
    with ledger.watching(autocast=setup.autocast):
        out = _forward(model, row, ledger, setup)
    found = ledger.kept()
    del out  # until here it held the graph
    return found


def _abstract_model(
    config: AlignVLMConfig, setup: Setup, row: Row
) -> AlignVLMForConditionalGeneration:
    """As the run would hold it: dtypes, what is frozen, adapters, attention."""
    # Starting values need values; on the meta device nobody asks for them.
    with torch.device("meta"):
        model = AlignVLMForConditionalGeneration(copy.deepcopy(config))
        if setup.lora is not None:
            adapt(model.model.language_model, setup.lora)
    model.set_attn_implementation(_attention(setup, row))
    without_values(model, setup)
    # It looks for values that are not numbers, and these tensors have none.
    setattr(model.model.connector, "check_features", lambda *_: None)  # noqa: B010
    return model.train()


def _attention(setup: Setup, row: Row) -> str:
    """The implementation that keeps what the run's will keep.

    Flash attention keeps what torch's fused one keeps without a mask: queries, keys, values,
    output. Samples that share a row share a mask in the eager one alone.
    """
    if setup.attention == "eager":
        return "eager"
    return BY_SAMPLE if _goes_by_sample(setup, row) else UNMASKED


def _goes_by_sample(setup: Setup, row: Row) -> bool:
    return row.num_samples > 1 and setup.attention == "sdpa"


def _forward(
    model: AlignVLMForConditionalGeneration, row: Row, ledger: Ledger, setup: Setup
) -> Any:
    """The row's way through the three parts; its tokens come tile after tile, then the text."""
    inner, config = model.model, model.config
    side = config.tiling["tile_px"]
    ledger.part = "vision"
    features = encode(
        inner.vision_model,
        torch.empty(row.num_tiles, 3, side, side),
        None,
        config.vision_feature_layer,
    )
    ledger.part = "connector"
    tokens = inner.connector(
        features, embeddings=inner.text_embeddings(), grid=config.feature_grid
    ).visual_tokens
    ledger.part = "llm"
    text = inner.get_input_embeddings()(torch.zeros(1, row.text_tokens, dtype=torch.long))
    visual = tokens.flatten(0, 1)[None].to(text.dtype)
    embeds = torch.cat((visual, text), dim=1)
    length, mask = embeds.shape[1], None
    if row.num_samples > 1 and setup.attention == "eager":
        mask = torch.ones(1, 1, length, length, dtype=torch.bool)
    borders = {}
    if _goes_by_sample(setup, row):
        # Attention pads them as on a CPU: not at all where they are multiples of 32, as in recipes.
        pieces = torch.empty(length, device="meta").tensor_split(row.num_samples)
        borders["sample_lengths"] = [len(piece) for piece in pieces]
    return inner.language_model(
        inputs_embeds=embeds, attention_mask=mask, use_cache=False, **borders
    )
