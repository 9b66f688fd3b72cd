"""A whole model small enough to train in seconds, on samples that are drawn, not read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast, SiglipVisionConfig

from alignvlm.data.sample import ImageSource, Sample
from alignvlm.errors import InputError
from alignvlm.model import AlignVLMConfig, AlignVLMForConditionalGeneration, AlignVLMProcessor
from alignvlm.model.chat import CHATML
from alignvlm.training.batches import MixtureBatches
from alignvlm.training.configuration import BatchConfig, Rates
from alignvlm.training.encoding import Encoder
from alignvlm.training.processes import layers_of
from alignvlm.training.schedule import TrainConfig
from alignvlm.training.task import Share
from alignvlm.training.vlm import VLMTask

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<empty_output>"]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Every byte is a token, after the special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<empty_output>"],
    )  # fmt: skip
    tokenizer.chat_template = CHATML
    return tokenizer


def make_model(
    connector: str = "align",
    condense: dict[str, Any] | None = None,
    tie_word_embeddings: bool = True,
    **options: Any,
) -> AlignVLMForConditionalGeneration:
    torch.manual_seed(0)
    config = AlignVLMConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            image_size=28, patch_size=14, vision_use_head=False,
        ),
        text_config=LlamaConfig(
            vocab_size=264, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2,
            tie_word_embeddings=tie_word_embeddings, max_position_embeddings=4096,
            initializer_range=0.3, bos_token_id=None, eos_token_id=2, pad_token_id=0,
        ),
        connector={"name": connector, **({"gain": 4.0} if connector == "align" else {}), **options},
        condense=condense,
        tiling={"max_tiles": 4},
        image_token_id=3,
    )  # fmt: skip
    model = AlignVLMForConditionalGeneration(config)
    return model


@dataclass(frozen=True)
class Drawn(ImageSource):
    """Noise of a size; a damaged one says so only when it is decoded."""

    width: int
    height: int
    seed: int
    damaged: bool = False

    @property
    def name(self) -> str:
        return f"image {self.seed}"

    def size(self) -> tuple[int, int]:
        return self.width, self.height

    def load(self) -> Image.Image:
        if self.damaged:
            raise InputError(f"{self.name} is damaged: replace it")
        rng = np.random.default_rng(self.seed)
        return Image.fromarray(rng.integers(0, 255, (self.height, self.width, 3), dtype=np.uint8))


@dataclass(frozen=True)
class DrawnSamples:
    """A mixture of questions with no, one or two images, and of rows that cannot be used.

    `alternate`: one image, none, one, none, ..., and equally long questions.
    """

    broken: frozenset[int] = frozenset()
    damaged: frozenset[int] = frozenset()
    alternate: bool = False

    def where(self, position: int, attempt: int = 0) -> tuple[str, str]:
        return "drawn", f"row {position}.{attempt}"

    def read(self, position: int, attempt: int = 0) -> Sample:
        if position in self.broken and attempt == 0:
            raise InputError(f"Row {position} is broken: repair it")
        rng = np.random.default_rng([position, attempt])
        num_images = (position + 1) % 2 if self.alternate else int(rng.integers(0, 3))
        images = tuple(
            Drawn(int(rng.integers(10, 80)), int(rng.integers(10, 80)), int(rng.integers(1 << 30)),
                  damaged=position in self.damaged and attempt == 0)
            for _ in range(num_images)
        )  # fmt: skip
        length = 5 if self.alternate else int(rng.integers(1, 30))
        text = "".join(chr(rng.integers(97, 123)) for _ in range(length))
        content = [{"type": "image"}] * num_images + [{"type": "text", "text": text + "?"}]
        messages = [
            {"role": "user", "content": content},
            {"role": "assistant", "content": [{"type": "text", "text": text[::-1][:8]}]},
        ]
        return Sample(key=f"drawn:{position}", messages=messages, images=images)


def make_task(
    samples: Any = None,
    model: AlignVLMForConditionalGeneration | None = None,
    rates: Rates | None = None,
    **batches: Any,
) -> VLMTask:
    model = model or make_model()
    processor = AlignVLMProcessor.build(make_tokenizer(), model.config)
    config = BatchConfig(
        **{"num_samples": 4, "max_tokens": 256, "max_tiles": 12, "max_text_tokens": 100} | batches
    )
    encoder = Encoder(processor, config)
    return VLMTask(
        model, processor, MixtureBatches(samples or DrawnSamples(), encoder, config),
        rates or Rates(vision=1e-3, connector=2e-3, llm=1e-3),
    )  # fmt: skip


def config(**options: Any) -> TrainConfig:
    defaults: dict[str, Any] = {
        "num_steps": 6, "batch_size": 4, "learning_rate": 2e-3, "warmup_steps": 2,
        "checkpoint_every": 3, "num_workers": 0, "precision": "float32",
    }  # fmt: skip
    return TrainConfig(**defaults | options)


def evaluate(model: torch.nn.Module, step: int) -> dict[str, float]:
    """The largest logit of a question about a grey image."""
    (row, *_) = make_task(DrawnSamples(alternate=True), num_samples=1).micro_batches(
        config(num_steps=1, batch_size=1), 0, Share()
    )
    tensors = {name: row.tensors[name] for name in ("input_ids", "pixel_values", "tile_grids")}
    return {"logit": model(**tensors).logits.max().item()}


def gradients(task: VLMTask, micro: Sequence[Any]) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradient of one step's micro-batches, as the loop adds them up."""
    task.module.zero_grad()
    total = 0.0
    for batch in micro:
        loss = task.loss(batch.tensors)
        (loss.total / batch.step_weight).backward()
        total += loss.total.item() / batch.step_weight
    return total, {
        name: p.grad.clone() for name, p in task.module.named_parameters() if p.grad is not None
    }


def way(task: VLMTask, tensors: dict[str, torch.Tensor]) -> tuple[list[str], list[str]]:
    """The layers that FSDP2 gathers one by one, as forward and backward pass come by them."""
    forward: list[str] = []
    backward: list[str] = []
    names = {layer: name for name, layer in task.module.named_modules()}
    hooks = [
        hook
        for layer in layers_of(task.module)
        for name in [names[layer]]
        for hook in (
            layer.register_forward_pre_hook(lambda *_, name=name: forward.append(name)),
            layer.register_full_backward_hook(lambda *_, name=name: backward.append(name)),
        )
    ]
    try:
        task.loss(tensors).total.backward()
    finally:
        for hook in hooks:
            hook.remove()
    task.module.zero_grad()
    return forward, backward
