"""What the backward pass keeps of a row: the forward pass run with tensors that have no values.

torch's own code runs, on tensors of the real shapes and dtypes that hold no memory, and says what
it would keep; so encoders, attention implementations, adapters, frozen parts and autocast need no
formulas here. It takes a second or two, whatever the model's size.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from alignvlm.model.configuration import AlignVLMConfig
from alignvlm.model.modeling import AlignVLMForConditionalGeneration
from alignvlm.model.vision import encode
from alignvlm.training.configuration import LoraConfig, RunConfig
from alignvlm.training.vlm import part_of

__all__ = ["PARTS", "Activations", "Row", "activations"]


PARTS = ("vision", "connector", "llm")

_UNMASKED = "alignvlm_unmasked"


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
    rates = {"vision": run.rates.vision, "connector": run.rates.connector, "llm": run.rates.llm}
    setup = _Setup(
        dtype=getattr(torch, run.model.dtype),
        attention=run.model.attention,
        trained=frozenset(part for part, rate in rates.items() if rate is not None),
        lora=run.lora,
        autocast=run.precision == "bfloat16",
    )
    content = config.to_json_string(use_diff=False)
    return _activations(content, setup, row, run.model.gradient_checkpointing)


@dataclass(frozen=True, kw_only=True)
class _Setup:
    """What of a run decides which tensors are kept."""

    dtype: torch.dtype
    attention: str
    trained: frozenset[str]
    lora: LoraConfig | None
    autocast: bool

    def trains(self, name: str) -> bool:
        """Whether the parameter of this name moves."""
        part = part_of(name)
        if part == "llm" and self.lora is not None:
            return "lora_" in name
        return part in self.trained


@lru_cache(maxsize=64)
def _activations(content: str, setup: _Setup, row: Row, checkpointing: bool) -> Activations:
    config = AlignVLMConfig.from_dict(json.loads(content))
    whole = _kept(config, setup, row, checkpointing=False)
    if not checkpointing:
        return Activations(**whole.parts, weight_copies=sum(whole.copies.values()))
    kept = _kept(config, setup, row, checkpointing=True)
    # Everything beyond the layers' inputs lives for one layer at a time, and so do the copies that
    # a layer makes of its weights.
    depths = _depths(config)
    inside = {part: (whole.parts[part] - kept.parts[part]) / depths[part] for part in depths}
    return Activations(
        **kept.parts,
        recomputed=int(max(inside.values())),
        weight_copies=sum(kept.copies.values()),
    )


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """Bytes by part: of activations, and of weights in another dtype."""

    parts: dict[str, int]
    copies: dict[str, int]


def _kept(config: AlignVLMConfig, setup: _Setup, row: Row, *, checkpointing: bool) -> _Kept:
    """Layers of a part are alike: one and two of them say what all of them keep."""
    one, two = (_run(_shallow(config, n), setup, row, checkpointing) for n in (1, 2))
    depths = _depths(config)

    def extrapolated(low: dict[str, int], high: dict[str, int]) -> dict[str, int]:
        return {part: low[part] + (high[part] - low[part]) * (depths[part] - 1) for part in low}

    return _Kept(
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


class _Adapted(nn.Module):
    """A frozen linear layer with a low-rank one beside it, as peft computes it."""

    def __init__(self, base: nn.Linear, lora: LoraConfig) -> None:
        super().__init__()
        self.base = base
        self.lora_down = nn.Linear(base.in_features, lora.rank, bias=False, dtype=torch.float32)
        self.lora_up = nn.Linear(lora.rank, base.out_features, bias=False, dtype=torch.float32)
        self.dropout = nn.Dropout(lora.dropout) if lora.dropout else nn.Identity()
        self.scale = lora.alpha / lora.rank

    def forward(self, x: Tensor) -> Tensor:
        wide = self.dropout(x.to(self.lora_down.weight.dtype))
        return self.base(x) + self.lora_up(self.lora_down(wide)) * self.scale


def _adapt(language_model: nn.Module, lora: LoraConfig) -> None:
    """Puts adapters into a language model, in place."""
    for parent in list(language_model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear) and name in lora.targets:
                setattr(parent, name, _Adapted(layer, lora))


class _Saved:
    """A tensor in the graph; when the graph lets go of it, so does everyone."""

    def __init__(self, part: str, tensor: Tensor) -> None:
        self.part, self.tensor = part, tensor


class _Ledger(TorchDispatchMode):
    """Who keeps what for the backward pass, and which tensors are a parameter in another dtype."""

    def __init__(self, parameters: set[int]) -> None:
        super().__init__()
        self.part = ""
        self._parameters = parameters
        self._copies: dict[int, Any] = {}
        self._saved: WeakSet[_Saved] = WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        casts = func is torch.ops.aten._to_copy.default
        if casts and args[0].untyped_storage()._cdata in self._parameters:
            storage = out.untyped_storage()
            self._copies[storage._cdata] = storage
        return out

    def pack(self, tensor: Tensor) -> _Saved:
        saved = _Saved(self.part, tensor)
        self._saved.add(saved)
        return saved

    def unpack(self, saved: _Saved) -> Tensor:
        return saved.tensor

    def kept(self) -> _Kept:
        """Of storages that the graph holds now, each under one part."""
        seen = set(self._parameters)
        parts = dict.fromkeys(PARTS, 0)
        copies = dict.fromkeys(PARTS, 0)
        for saved in sorted(self._saved, key=lambda saved: PARTS.index(saved.part)):
            storage = saved.tensor.untyped_storage()
            if storage._cdata not in seen:
                seen.add(storage._cdata)
                owner = copies if storage._cdata in self._copies else parts
                owner[saved.part] += storage.nbytes()
        return _Kept(parts=parts, copies=copies)


def _run(config: AlignVLMConfig, setup: _Setup, row: Row, checkpointing: bool) -> _Kept:
    with FakeTensorMode():
        model = _abstract_model(config, setup, row)
        if checkpointing:
            model.activation_checkpointing_enable()
            model.disable_input_require_grads()
        ledger = _Ledger({p.untyped_storage()._cdata for p in model.parameters()})
        with (
            torch.autograd.graph.saved_tensors_hooks(ledger.pack, ledger.unpack),
            torch.autocast("cpu", torch.bfloat16, enabled=setup.autocast),
            ledger,
        ):
            out = _forward(model, row, ledger, masked=_needs_mask(setup, row))
        found = ledger.kept()
        del out  # until here it held the graph
    return found


def _abstract_model(
    config: AlignVLMConfig, setup: _Setup, row: Row
) -> AlignVLMForConditionalGeneration:
    """As the run would hold it: dtypes, what is frozen, adapters, attention."""
    # Starting values need values; on the meta device nobody asks for them.
    with torch.device("meta"):
        model = AlignVLMForConditionalGeneration(copy.deepcopy(config))
        if setup.lora is not None:
            _adapt(model.model.language_model, setup.lora)
    model.set_attn_implementation(_attention(setup, row))
    made: dict[int, Any] = {}
    for path, module in model.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in made:  # E and the head may be one
                trains = setup.trains(f"{path}.{name}")
                dtype = torch.float32 if trains else setup.dtype
                empty = torch.empty(parameter.shape, dtype=dtype, device="cpu")
                made[id(parameter)] = nn.Parameter(empty, requires_grad=trains), parameter
            setattr(module, name, made[id(parameter)][0])
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu"))
    # It looks for values that are not numbers, and these tensors have none.
    setattr(model.model.connector, "check_features", lambda *_: None)  # noqa: B010
    return model.train()


def _attention(setup: _Setup, row: Row) -> str:
    """The implementation that keeps what the run's will keep.

    Flash attention keeps what torch's fused one keeps without a mask: queries, keys, values,
    output. A mask is needed where samples share a row, and then by torch's alone.
    """
    if setup.attention == "eager":
        return "eager"
    return "sdpa" if _needs_mask(setup, row) else _UNMASKED


def _needs_mask(setup: _Setup, row: Row) -> bool:
    return row.num_samples > 1 and not setup.attention.startswith("flash")


# transformers makes no mask for an implementation whose mask it does not know. For those that it
# knows it makes one while tensors have no values, even where a causal kernel would need none.
AttentionInterface.register(_UNMASKED, sdpa_attention_forward)


def _forward(
    model: AlignVLMForConditionalGeneration, row: Row, ledger: _Ledger, *, masked: bool
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
    if masked:
        mask = torch.ones(1, 1, length, length, dtype=torch.bool)
    return inner.language_model(inputs_embeds=embeds, attention_mask=mask, use_cache=False)
