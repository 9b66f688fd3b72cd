"""What a run is, as data: a recipe returns a `RunConfig`, `--set` changes one field of it.

Defaults stand here once, each followed by where it is from, in the form that recipes have; a recipe
states what differs from them and why. Nothing here imports torch, so that a command can check its
configuration at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from alignvlm.errors import ConfigurationError

__all__ = [
    "BatchConfig",
    "DataPart",
    "LoraConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Rates",
    "RunConfig",
    "check_device",
]

_PARTS = ("vision", "llm")
TRACKERS = ("trackio", "tensorboard", "wandb")


def _check(holds: bool, name: str, value: object, rule: str) -> None:
    if not holds:
        raise ConfigurationError(f"{name} must be {rule}, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The model a run starts from: a preset, a saved model, or an encoder and a language model.

    Attributes:
        preset: a name of `alignvlm.model.presets.PRESETS`.
        pretrained: folder or Hub id of an AlignVLM model, e.g. what the stage before has saved, or
            of any other image-text-to-text model of transformers. Beside a preset it gives the
            weights, and the preset says what they are: a run can then be planned without them.
        vision, llm: Hub ids or folders, or the parts that come from the package index:
            "document-encoder" and "smollm2-135m".
        connector: name and options, see `alignvlm.connectors.registry`.
        tiling: fields of `alignvlm.imaging.tiling.Tiling`.
        vision_options: fields of the document encoder's configuration.
        tuned: "vision", "llm" or both: where they are the parts from the package index, they start
            as the default model's: an encoder that reads characters, a language model that answers
            from a page's text. Parts of other models are not touched.
        vision_feature_layer: as in `AlignVLMConfig`.
        random_weights: real shapes, no weights: for measuring speed without a hub.
        dtype: of the frozen weights. What trains is held in float32: a step of 1e-5 of a weight
            vanishes in bfloat16's 8 bits.
        attention: what transformers calls the attention implementation.
        gradient_checkpointing: recompute the layers' activations in the backward pass.
    """

    preset: str | None = None
    pretrained: str | None = None
    vision: str | None = None
    llm: str | None = None
    connector: Mapping[str, Any] = field(
        default_factory=lambda: {"name": "align"},  # "ALIGN Module" (3.1)
    )
    tiling: Mapping[str, Any] = field(default_factory=dict)
    vision_options: Mapping[str, Any] = field(default_factory=dict)
    tuned: tuple[str, ...] = ()
    vision_feature_layer: int = -1  # not stated: as in Ovis, whose head ALIGN extends
    random_weights: bool = False  # not stated: a run starts from trained parts
    dtype: Literal["float32", "bfloat16"] = "float32"
    # not stated: what is frozen stays as exact as what trains; bfloat16 saves memory
    attention: Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3"] = "sdpa"
    # not stated: torch's own, the same on every device; the others need a package or more memory
    gradient_checkpointing: bool = False
    # not stated: it costs a third more operations; recipes of large models switch it on

    def __post_init__(self) -> None:
        parts = [name for name in _PARTS if getattr(self, name) is not None]
        for other in ("preset", "pretrained"):
            if parts and getattr(self, other) is not None:
                raise ConfigurationError(
                    f"model.{other} and model.{parts[0]} contradict each other: set "
                    f"model.{other}=none to choose encoder and language model yourself, or leave "
                    f"out model.{parts[0]}"
                )
        if len(parts) == 1:
            missing = "llm" if parts == ["vision"] else "vision"
            raise ConfigurationError(
                f"model.{parts[0]} is set and model.{missing} is not: name both, or a preset"
            )
        if not parts and self.preset is None and self.pretrained is None:
            raise ConfigurationError(
                "The run has no model to start from: set model.preset, model.pretrained, or both "
                "model.vision and model.llm"
            )
        for part in self.tuned:
            _check(part in _PARTS, "model.tuned", part, f"one of {', '.join(_PARTS)}")
        if not isinstance(self.connector.get("name"), str):
            raise ConfigurationError(
                "model.connector has no name: set model.connector.name, e.g. to align"
            )


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Peak learning rate of each part; None freezes it."""

    vision: float | None = None
    connector: float | None = None
    llm: float | None = None

    def __post_init__(self) -> None:
        rates = {"vision": self.vision, "connector": self.connector, "llm": self.llm}
        for part, rate in rates.items():
            _check(
                rate is None or 0 < rate < 1,
                f"rates.{part}",
                rate,
                "a learning rate above 0 and below 1, or none to freeze the part",
            )
        if all(rate is None for rate in rates.values()):
            raise ConfigurationError(
                "Nothing would train, all three rates are none: set at least one of rates.vision, "
                "rates.connector and rates.llm"
            )


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters in place of the language model's own weights.

    Attributes:
        rank, alpha: of the adapters, scaled by alpha / rank.
        dropout: on the adapters' inputs.
        targets: names of the layers that get one.
        quantize: the frozen weights are held in four bits (QLoRA); needs bitsandbytes and a GPU.
    """

    rank: int = 16  # not stated: the paper has no adapters; the default model's
    alpha: int = 32  # not stated: the paper has no adapters; the default model's
    dropout: float = 0.0  # not stated: the paper has no adapters; PEFT's default
    targets: tuple[str, ...] = (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    )  # fmt: skip
    # not stated: all linear layers of a Llama, MS-Swift's default "all-linear" and QLoRA's advice
    quantize: bool = False  # not stated: it needs a GPU and a package, and rounds the weights

    def __post_init__(self) -> None:
        _check(self.rank >= 1, "lora.rank", self.rank, "at least 1")
        _check(self.alpha >= 1, "lora.alpha", self.alpha, "at least 1")
        _check(0 <= self.dropout < 1, "lora.dropout", self.dropout, "from 0 to below 1")
        _check(bool(self.targets), "lora.targets", self.targets, "at least one name of a layer")


@dataclass(frozen=True, kw_only=True)
class DataPart:
    """One source of a mixture.

    Attributes:
        source: a name of `alignvlm.data.sources.SOURCES`.
        path: file or folder; the page generator needs none.
        weight: share of the samples relative to the other parts; None: every sample once an epoch.
        options: of the source.
    """

    source: str
    path: str | None = None
    weight: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        weight = self.weight
        _check(bool(self.source), "data source", self.source, "the name of a source")
        _check(weight is None or 0 < weight < math.inf, "data weight", weight, "a number above 0")


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """What an optimizer step sees, and how it is cut into pieces that fit a device.

    A step always sees the same samples, however many processes share it and however they are
    packed. As long as every sample fits into a row, `max_tokens` and `max_tiles` change the speed
    and the memory, not the gradient; one that does not fit is left out or shrunk, see `too_long`.

    Attributes:
        num_samples: of a step, over all processes.
        max_tokens: of one packed row, text and visual tokens together.
        max_tiles: of one packed row.
        max_text_tokens: of a sample, visual tokens not counted.
        too_long: what becomes of a sample beyond one of the limits: "error", "skip", or
            "fewer_tiles", which shrinks its images until it fits into a row and skips it if its
            text alone is too long.
        pack: several samples in one row; else one row a sample.
    """

    num_samples: int
    max_tokens: int = 8192  # not stated: eight tiles of 729 tokens and the longest text
    max_tiles: int = 16  # not stated: of small tiles more fit into a row than of SigLIP's
    max_text_tokens: int = 2048  # "Text Max Length 2048" (Table 6, Stage-2 and Stage-3)
    too_long: Literal["error", "skip", "fewer_tiles"] = "skip"
    # not stated: MS-Swift's default, "delete"; nothing is cut, and what is left out is named
    pack: bool = True  # not stated: rows without padding; each sample learns what it would alone

    def __post_init__(self) -> None:
        for name in ("num_samples", "max_tokens", "max_tiles", "max_text_tokens"):
            value = getattr(self, name)
            _check(value >= 1, f"batches.{name}", value, "at least 1")
        if self.max_text_tokens > self.max_tokens:
            raise ConfigurationError(
                f"batches.max_text_tokens is {self.max_text_tokens} and a row holds "
                f"{self.max_tokens} tokens (batches.max_tokens): raise the second or lower the "
                "first"
            )


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW and the schedule of its learning rate; norms, biases, gains are never decayed.

    What a recipe does not say is the same for adapters, which MS-Swift trains by these values too.

    Attributes:
        warmup_ratio: share of the steps in which the rate rises from zero.
        schedule: how it falls afterwards, to zero at the last step.
        clip_norm: largest global norm of the gradient.
    """

    betas: tuple[float, float] = (0.9, 0.95)  # not stated: MS-Swift's default
    eps: float = 1e-8  # not stated: MS-Swift's default
    weight_decay: float = 0.1  # not stated: MS-Swift's default
    clip_norm: float = 1.0  # not stated: MS-Swift's default
    warmup_ratio: float = 0.03
    # not stated: MS-Swift's default is none; LLaVA-NeXT's 3 % keep a fresh part's first steps small
    schedule: Literal["cosine", "linear", "constant"] = "cosine"  # not stated: MS-Swift's default

    def __post_init__(self) -> None:
        betas, warmup = self.betas, self.warmup_ratio
        inside = all(0 <= beta < 1 for beta in betas)
        _check(inside, "optimizer.betas", betas, "from 0 to below 1")
        _check(0 < self.eps < math.inf, "optimizer.eps", self.eps, "above 0")
        decays = 0 <= self.weight_decay < math.inf
        _check(decays, "optimizer.weight_decay", self.weight_decay, "0 or above")
        _check(0 < self.clip_norm < math.inf, "optimizer.clip_norm", self.clip_norm, "above 0")
        _check(0 <= warmup < 1, "optimizer.warmup_ratio", warmup, "from 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run.

    Attributes:
        recipe: the name it was made by.
        epochs: passes over the mixture; a part of one is allowed.
        num_steps: instead of `epochs`.
        precision: "bfloat16" computes under autocast, weights keep their dtype.
        sharding: "fsdp2" and "zero3" spread weights, gradients and optimizer over processes.
        inspect_every: steps between looks at the connector's health, 0: never.
        max_bad_share: the run stops when more than this share of the samples had to be replaced.
        trackers: "trackio", "tensorboard", "wandb" beside the JSONL that is always written.
    """

    recipe: str
    model: ModelConfig
    rates: Rates
    data: tuple[DataPart, ...]
    batches: BatchConfig
    optimizer: OptimizerConfig = OptimizerConfig()
    lora: LoraConfig | None = None
    epochs: float = 1.0  # "Epochs 1" (Table 6, Stage-1 and Stage-2)
    num_steps: int | None = None
    precision: Literal["float32", "bfloat16"] = "bfloat16"  # not stated: MS-Swift's default
    sharding: Literal["none", "fsdp2", "zero3"] = "none"  # not stated: one process has all there is
    seed: int = 0  # not stated: any will do, and every repetition has the same
    num_workers: int = 4  # not stated: a GPU's share of the cores of a usual machine
    checkpoint_every: int = 500  # not stated: a kill costs at most so many steps
    keep: int = 2  # not stated: one to go on from, and the one before if a disk has damaged it
    inspect_every: int = 50  # not stated: a look costs a row's forward pass, 1 % of the time
    max_bad_share: float = 0.01
    # not stated: web data have some broken rows; more than 1 % look like a wrong path or format
    trackers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.data:
            raise ConfigurationError(
                "The run has no data: set data.0.source and data.0.path, see docs/data.md"
            )
        if len({part.weight is None for part in self.data}) > 1:
            raise ConfigurationError(
                "Some parts of the data have a weight and some have none: give all of them one, "
                "or none"
            )
        if self.lora is not None and self.rates.llm is None:
            raise ConfigurationError(
                "lora adapts the language model and rates.llm is none: set rates.llm, or lora=none"
            )
        if self.lora is not None and self.lora.quantize and self.sharding != "none":
            raise ConfigurationError(
                f"lora.quantize holds the language model in four bits, which sharding="
                f"{self.sharding} cannot spread: set sharding=none or lora.quantize=false"
            )
        at_least = {"num_steps": 1, "num_workers": 0, "checkpoint_every": 1, "keep": 1,
                    "inspect_every": 0}  # fmt: skip
        for name, least in at_least.items():
            value = getattr(self, name)
            _check(value is None or value >= least, name, value, f"at least {least}")
        _check(0 < self.epochs < math.inf, "epochs", self.epochs, "a number above 0")
        share = self.max_bad_share
        _check(0 <= share <= 1, "max_bad_share", share, "from 0 to 1")
        for tracker in self.trackers:
            known = tracker in TRACKERS
            _check(known, "trackers", tracker, f"one of {', '.join(TRACKERS)}")


def check_device(config: RunConfig, device: str) -> None:
    """Raises a ConfigurationError if a run cannot be on this kind of device, "cpu" or "cuda"."""
    if device == "cpu" and config.sharding == "zero3":
        raise ConfigurationError(
            "sharding=zero3 is DeepSpeed's and needs a GPU: set sharding=fsdp2, which runs on "
            "CPUs too, or sharding=none"
        )
    if device == "cpu" and config.lora is not None and config.lora.quantize:
        raise ConfigurationError(
            "lora.quantize needs bitsandbytes and a GPU: set lora.quantize=false"
        )
    if device == "cpu" and config.model.attention.startswith("flash"):
        raise ConfigurationError(
            f"model.attention={config.model.attention} needs a GPU: set model.attention=sdpa"
        )
