"""What a model of another maker costs: its own code, run on tensors that have no values.

Its processor makes the tensors of a blank page and a text, so that patches, tiles and visual tokens
are the model's own. Whole numbers among them keep their values, from which models work out
positions and masks; pixels and weights have none. It takes some seconds, whatever the model's size.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from transformers import AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel

from alignvlm.data.images import DrawnImage
from alignvlm.data.sample import Sample
from alignvlm.errors import ConfigurationError
from alignvlm.model.compat import GradientCheckpointingLayer
from alignvlm.model.splice import IGNORED_LABEL
from alignvlm.training.configuration import RunConfig
from alignvlm.training.cost.abstract import PARTS, UNMASKED, Kept, Ledger, Setup, without_values
from alignvlm.training.cost.abstract import adapt as add_adapters
from alignvlm.training.cost.activations import Activations
from alignvlm.training.cost.architecture import processor_of
from alignvlm.training.cost.memory import Memory, assembled
from alignvlm.training.cost.operations import Flops, PartFlops
from alignvlm.training.encoding import Example
from alignvlm.training.foreign import ForeignEncoder
from alignvlm.training.models import language_model_of
from alignvlm.training.vlm import part_of

__all__ = ["ForeignModel"]

_HEAD = "head"
_MANY_TOKENS = 10**9
_PIECE = " a"


class ForeignModel:
    """The costs of a run of another maker's model.

    Args:
        config: of the model.
        run: the run.

    Raises:
        ConfigurationError: transformers does not know it as an image-text-to-text model, or its
            processor is not on this machine.
    """

    def __init__(self, config: PreTrainedConfig, run: RunConfig) -> None:
        self._config, self._run = config, run
        self._setup = Setup.of(run)
        self.skeleton = self._on_meta()
        limits = replace(run.batches, max_text_tokens=_MANY_TOKENS, max_tokens=_MANY_TOKENS)
        self._encoder = ForeignEncoder(processor_of(run.model), limits)

    def measure(self, width: int, height: int) -> tuple[int, int]:
        """One image, and its visual tokens among the text; as `samples.Measure`."""
        return 1, self._example((width, height), 1).measured.num_visual_tokens

    def flops(self, page_px: tuple[int, int], text_tokens: float, num_images: int = 1) -> Flops:
        """Of forward and backward pass over one sample."""
        example = self._example(page_px, text_tokens, num_images)
        counted = self._operations(example)
        parts = {
            part: PartFlops(
                forward=counted.forward[part],
                backward=counted.backward[part],
                recomputed=counted.recomputed[part],
            )
            for part in (*PARTS, _HEAD)
        }
        return Flops(**parts)

    def memory(self, page_px: tuple[int, int], num_gpus: int) -> Memory:
        """Of one GPU, on a page and as much text as the run lets in."""
        text_tokens = self._run.batches.max_text_tokens
        example = self._example(page_px, text_tokens)
        words = self.skeleton.get_output_embeddings().weight.shape[0]
        size = 2 if self._setup.autocast or self._setup.dtype == torch.bfloat16 else 4
        # Gradients of the logits that are learned from, in float32 and as they were, then of all.
        loss = words * (text_tokens * (4 + size) + example.measured.num_tokens * size)
        kept = self._activations(example)
        return assembled(self.skeleton, self._config, self._run, num_gpus, kept, {"loss": loss})

    @property
    def takes_adapters(self) -> bool:
        """Whether its language model is where adapters are put."""
        return hasattr(self.skeleton.base_model, "language_model")

    def _activations(self, example: Example) -> Activations:
        """What the backward pass keeps of one sample, of its loss too."""
        whole = self._kept(example, checkpointing=False)
        if not self._run.model.gradient_checkpointing:
            return Activations(**whole.parts, weight_copies=sum(whole.copies.values()))
        kept = self._kept(example, checkpointing=True)
        depths = Counter(
            part_of(name)
            for name, module in self.skeleton.named_modules()
            if isinstance(module, GradientCheckpointingLayer)
        )
        inside = [(whole.parts[p] - kept.parts[p]) / max(1, depths[p]) for p in PARTS]
        return Activations(
            **kept.parts, recomputed=int(max(inside)), weight_copies=sum(kept.copies.values())
        )

    def _example(
        self, page_px: tuple[int, int], text_tokens: float, num_images: int = 1
    ) -> Example:
        """Blank pages and an answer, about as many tokens of text as asked for."""
        page = DrawnImage(Image.new("RGB", page_px, "white"), "a blank page")

        def sample(pieces: int) -> Sample:
            question = [{"type": "image"}] * num_images + [{"type": "text", "text": "What?"}]
            answer = [{"type": "text", "text": _PIECE * pieces}]
            return Sample(
                key="a blank page",
                messages=[
                    {"role": "user", "content": question},
                    {"role": "assistant", "content": answer},
                ],
                images=(page,) * num_images,
            )

        short, long = (self._encoder.measure(sample(n)).num_tokens for n in (1, 65))
        pieces = 1 + max(0, round((text_tokens - short) * 64 / (long - short)))
        chosen = sample(pieces)
        return self._encoder.encode(chosen, self._encoder.measure(chosen))

    def _on_meta(self) -> PreTrainedModel:
        try:
            with torch.device("meta"):
                return AutoModelForImageTextToText.from_config(self._config)
        except ValueError as error:
            raise ConfigurationError(
                f"model.pretrained is a {self._config.model_type!r}, which transformers does not "
                "know as an image-text-to-text model: choose one that it does"
            ) from error

    def _model(self, mode: FakeTensorMode, checkpointing: bool) -> PreTrainedModel:
        """As the run would hold it, without values."""
        model = copy.deepcopy(self.skeleton)
        if self._setup.lora is not None:
            with torch.device("meta"):
                add_adapters(language_model_of(model), self._setup.lora)
        model.set_attn_implementation("eager" if self._setup.attention == "eager" else UNMASKED)
        with mode:
            without_values(model, self._setup)
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
            model.disable_input_require_grads()
        return model.train()

    def _operations(self, example: Example) -> _Operations:
        """FLOPs of the forward and the backward pass."""
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        model = self._model(mode, self._run.model.gradient_checkpointing)
        counted = _Operations()
        with sdpa_kernel(SDPBackend.MATH):  # the CPU's fused attention has no formula
            counted.run(model, lambda: _loss(model, example, mode))
        return counted

    def _kept(self, example: Example, *, checkpointing: bool) -> Kept:
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        model = self._model(mode, checkpointing)
        ledger = Ledger(model)

        def enter(part: str) -> None:
            ledger.part = "llm" if part == _HEAD else part

        with _at_each_module(model, enter), ledger.watching(autocast=self._setup.autocast):
            loss = _loss(model, example, mode)
        found = ledger.kept()
        del loss  # until here it held the graph
        return found


class _Operations(TorchDispatchMode):
    """FLOPs by part, by the formulas of torch's counter."""

    def __init__(self) -> None:
        super().__init__()
        self.forward: Counter[str] = Counter()
        self.backward: Counter[str] = Counter()
        self.recomputed: Counter[str] = Counter()
        self._part, self._goes_back = "", False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func._overloadpacket):
            self._pass()[self._part] += formula(*args, **(kwargs or {}), out_val=out)
        return out

    def _pass(self) -> Counter[str]:
        if not self._goes_back:
            return self.forward
        # Only what is computed again records a graph while the backward pass runs.
        return self.recomputed if torch.is_grad_enabled() else self.backward

    def enter(self, part: str) -> None:
        """Says whose the next operations are."""
        self._part = part

    def run(self, model: PreTrainedModel, loss: Callable[[], Tensor]) -> None:
        """Counts a loss and its gradients."""

        def unpack(held: tuple[str, Tensor]) -> Tensor:  # the backward pass goes on from here
            self.enter(held[0])
            return held[1]

        with (
            _at_each_module(model, self.enter),
            torch.autograd.graph.saved_tensors_hooks(lambda t: (self._part, t), unpack),
            self,
        ):
            found = loss()
            self._goes_back = True
            found.backward()


@contextmanager
def _at_each_module(model: nn.Module, enter: Callable[[str], None]) -> Iterator[None]:
    """Calls `enter` with the part of each module as it begins."""
    hooks = []
    for name, module in model.named_modules():
        part = _HEAD if name.endswith("lm_head") else part_of(name)
        hooks.append(module.register_forward_pre_hook(lambda *_, part=part: enter(part)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _loss(model: PreTrainedModel, example: Example, mode: FakeTensorMode) -> Tensor:
    """As `VLMTask` computes it for these models."""
    one_row = ("input_ids", "labels")
    row = {name: value[None] if name in one_row else value
           for name, value in example.tensors.items()}  # fmt: skip
    targets = row.pop("labels")[:, 1:]
    inputs = {name: mode.from_tensor(value) if value.is_floating_point() else value
              for name, value in row.items()}  # fmt: skip
    logits = model(**inputs, use_cache=False).logits
    learned = (targets != IGNORED_LABEL).nonzero(as_tuple=True)
    return functional.cross_entropy(
        logits[:, :-1][learned].float(), targets[learned], reduction="sum"
    )
