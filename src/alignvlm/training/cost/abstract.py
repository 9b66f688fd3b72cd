"""Models whose tensors have no values, and what a forward pass through them would keep.

torch's own code runs, on tensors of the real shapes and dtypes that hold no memory, and says what
it would keep; so encoders, attention implementations, adapters, frozen parts and autocast need no
formulas here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AttentionInterface

from alignvlm.model.compat import sdpa_attention_forward
from alignvlm.training.configuration import LoraConfig, RunConfig
from alignvlm.training.vlm import part_of

__all__ = ["PARTS", "UNMASKED", "Kept", "Ledger", "Setup", "adapt", "without_values"]

PARTS = ("vision", "connector", "llm")

UNMASKED = "alignvlm_unmasked"
"""torch's attention without a mask."""

# transformers makes no mask for an implementation whose mask it does not know. For those that it
# knows it makes one while tensors have no values, even where a causal kernel would need none.
AttentionInterface.register(UNMASKED, sdpa_attention_forward)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What of a run decides which tensors are kept."""

    dtype: torch.dtype
    attention: str
    trained: frozenset[str]
    lora: LoraConfig | None
    autocast: bool

    @classmethod
    def of(cls, run: RunConfig) -> Setup:
        """Of a run."""
        rates = {part: getattr(run.rates, part) for part in PARTS}
        return cls(
            dtype=getattr(torch, run.model.dtype),
            attention=run.model.attention,
            trained=frozenset(part for part, rate in rates.items() if rate is not None),
            lora=run.lora,
            autocast=run.precision == "bfloat16",
        )

    def trains(self, name: str) -> bool:
        """Whether the parameter of this name moves."""
        part = part_of(name)
        if part == "llm" and self.lora is not None:
            return "lora_" in name
        return part in self.trained


def without_values(model: nn.Module, setup: Setup) -> None:
    """Gives a model on the meta device parameters as the run would hold them, in place.

    They have the run's dtypes, are frozen where it freezes them, and are on a CPU by name. To be
    called under a `FakeTensorMode`, or they take real memory.
    """
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


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Bytes by part: of activations, and of weights in another dtype."""

    parts: dict[str, int]
    copies: dict[str, int]


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


def adapt(language_model: nn.Module, lora: LoraConfig) -> None:
    """Puts adapters into a language model, in place."""
    for parent in list(language_model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear) and name in lora.targets:
                setattr(parent, name, _Adapted(layer, lora))


class _Saved:
    """A tensor in the graph; when the graph lets go of it, so does everyone."""

    def __init__(self, part: str, tensor: Tensor) -> None:
        self.part, self.tensor = part, tensor


class Ledger(TorchDispatchMode):
    """Who keeps what for the backward pass, and which tensors are a parameter in another dtype."""

    part = ""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._parameters = {p.untyped_storage()._cdata for p in model.parameters()}
        self._copies: dict[int, Any] = {}
        self._saved: WeakSet[_Saved] = WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        casts = func is torch.ops.aten._to_copy.default
        if casts and args[0].untyped_storage()._cdata in self._parameters:
            storage = out.untyped_storage()
            self._copies[storage._cdata] = storage
        return out

    @contextmanager
    def watching(self, *, autocast: bool) -> Iterator[None]:
        """What is computed in this block is written down."""
        with (
            torch.autograd.graph.saved_tensors_hooks(self.pack, self.unpack),
            torch.autocast("cpu", torch.bfloat16, enabled=autocast),
            self,
        ):
            yield

    def pack(self, tensor: Tensor) -> _Saved:
        """Called for every tensor that the graph takes."""
        saved = _Saved(self.part, tensor)
        self._saved.add(saved)
        return saved

    def unpack(self, saved: _Saved) -> Tensor:
        """Called when the backward pass needs it."""
        return saved.tensor

    def kept(self) -> Kept:
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
        return Kept(parts=parts, copies=copies)
