"""From a run's configuration to what the loop takes: a task and its settings."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

from alignvlm.data.formats.synth import ENDLESS
from alignvlm.data.mixture import Mixture
from alignvlm.data.sources import open_source
from alignvlm.errors import ConfigurationError
from alignvlm.model.processing import AlignVLMProcessor
from alignvlm.training.batches import MixtureBatches
from alignvlm.training.configuration import RunConfig, check_device
from alignvlm.training.encoding import Encoder
from alignvlm.training.foreign import ForeignEncoder
from alignvlm.training.models import build_model
from alignvlm.training.overrides import to_json
from alignvlm.training.schedule import TrainConfig
from alignvlm.training.vlm import VLMTask

__all__ = ["num_steps", "open_mixture", "open_run", "train_config"]

# A tile costs a vision encoder about what so many tokens cost a language model of its size class:
# 729 patches through 0.4 billion parameters against tokens through 1 to 8 billion.
_TILE_COST_TOKENS = 200.0


def open_run(config: RunConfig, device: str) -> tuple[VLMTask, TrainConfig]:
    """The task and the loop's settings of a run.

    Args:
        config: the resolved recipe.
        device: "cpu" or "cuda", with a number or without.

    Raises:
        ConfigurationError: the configuration cannot run here, or its data are no mixture.
        InputError: data are missing.
        WeightsError: the model cannot be loaded.
    """
    check_device(config, device.partition(":")[0])
    _check_types(config)
    mixture = open_mixture(config)
    sources = (source.fingerprint() for source in mixture.sources)
    settings = train_config(config, mixture.epoch_size, device, sources)
    model, processor = build_model(config.model, config.lora, config.seed)
    encoder: Any
    batches = config.batches
    if isinstance(processor, AlignVLMProcessor):
        encoder = Encoder(processor, batches)
        if processor.placeholders_per_tile is None:  # condensed: lengths are known too late to pack
            batches = replace(batches, pack=False)
    else:
        encoder, batches = ForeignEncoder(processor, batches), replace(batches, pack=False)
    made = MixtureBatches(mixture, encoder, batches, _TILE_COST_TOKENS)
    recipe = json.loads(to_json(config))
    return VLMTask(model, processor, made, config.rates, recipe, config.lora), settings


def open_mixture(config: RunConfig) -> Mixture:
    """The data of a run, mixed and ordered."""
    parts = [
        (open_source(part.source, part.path, part.options), part.weight) for part in config.data
    ]
    return Mixture(parts, config.seed)


def num_steps(config: RunConfig, epoch_size: int) -> int:
    """Optimizer steps of a run; a last step that is not full takes samples of the next epoch.

    Raises:
        ConfigurationError: the data have no end and no number of steps is set.
    """
    if config.num_steps is not None:
        return config.num_steps
    if epoch_size >= ENDLESS:
        raise ConfigurationError(
            "An epoch of data without end never ends: set num_steps, or give each part of the data "
            "a number of samples, e.g. data.0.options.num_pages"
        )
    return max(1, -(-round(config.epochs * epoch_size) // config.batches.num_samples))


def train_config(
    config: RunConfig, epoch_size: int, device: str, sources: Iterable[str] = ()
) -> TrainConfig:
    """The loop's settings.

    Args:
        config: the resolved recipe.
        epoch_size: samples of one pass over the mixture.
        device: where to train.
        sources: fingerprints of what is mixed.
    """
    steps = num_steps(config, epoch_size)
    rates = [rate for rate in asdict(config.rates).values() if rate]
    # What changes no gradient, as the room of a row, may change when a run goes on; so may rates,
    # but not which parts have one.
    samples = {
        "model": _without(asdict(config.model), "attention", "gradient_checkpointing"),
        "data": [asdict(part) for part in config.data],
        "rows": list(sources),
        "batches": _without(asdict(config.batches), "max_tokens", "max_tiles", "pack"),
        "trained": [part for part, rate in asdict(config.rates).items() if rate],
        "lora": config.lora and asdict(config.lora),
    }
    return TrainConfig(
        num_steps=steps,
        batch_size=config.batches.num_samples,
        learning_rate=max(rates, default=0.0),
        warmup_steps=round(config.optimizer.warmup_ratio * steps),
        schedule=config.optimizer.schedule,
        weight_decay=config.optimizer.weight_decay,
        betas=config.optimizer.betas,
        eps=config.optimizer.eps,
        clip_norm=config.optimizer.clip_norm,
        checkpoint_every=config.checkpoint_every,
        keep=config.keep,
        seed=config.seed,
        num_workers=config.num_workers,
        precision=config.precision,
        device=device,
        sharding=config.sharding,
        inspect_every=config.inspect_every,
        trackers=config.trackers,
        data=json.dumps(samples, sort_keys=True, default=str),
    )


def _check_types(config: RunConfig) -> None:
    """What trains is float32: beside frozen weights in bfloat16 only autocast can multiply it."""
    if config.model.dtype == "bfloat16" and config.precision == "float32":
        raise ConfigurationError(
            "model.dtype=bfloat16 needs precision=bfloat16: set it, or model.dtype=float32"
        )


def _without(settings: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names}
