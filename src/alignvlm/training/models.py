"""From a `ModelConfig` to a model with weights and its processor."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from alignvlm.errors import ConfigurationError, MissingDependencyError
from alignvlm.hints import did_you_mean
from alignvlm.model.build import AlignVLM
from alignvlm.model.document_encoder import DocumentEncoder, DocumentEncoderConfig
from alignvlm.model.foreign import load_foreign_model, load_foreign_part
from alignvlm.model.modeling import AlignVLMForConditionalGeneration
from alignvlm.model.presets import find_preset
from alignvlm.model.processing import AlignVLMProcessor
from alignvlm.training.configuration import LoraConfig, ModelConfig
from alignvlm.weights.shipped import add_adapter, vision_weights

__all__ = [
    "DOCUMENT_ENCODER",
    "SMOLLM2",
    "build_model",
    "language_model_of",
    "merged_state",
    "save_merged",
]

DOCUMENT_ENCODER = "document-encoder"
SMOLLM2 = "smollm2-135m"

# Modules beside the language model, as patterns that quantization passes over.
_NOT_LLM = (r".*(vision|visual|image_encoder|connector|projector|merger|aligner|qformer)[^.]*",)


def build_model(
    config: ModelConfig, lora: LoraConfig | None = None, seed: int = 0
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """The model that a run starts from, and the processor that belongs to it.

    Args:
        config: which model.
        lora: adapters to put into its language model.
        seed: of everything that starts at random: the connector, adapters, the document encoder's
            new layers.

    Raises:
        ConfigurationError: the parts do not fit.
        WeightsError: something cannot be loaded.
        MissingDependencyError: LoRA or QLoRA without its package.
    """
    _check(config)
    torch.manual_seed(seed)
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.dtype]
    if config.pretrained is not None:
        model, processor = _pretrained(config.pretrained, dtype, lora)
        _check_same(config, model)
    elif lora is not None and lora.quantize:
        raise ConfigurationError(
            "lora.quantize reads the weights of a saved model in four bits: set model.pretrained "
            "to one, or lora.quantize=false"
        )
    else:
        model, processor = _fresh(config, dtype)
    _set_up(model, config)
    if lora is not None:
        torch.manual_seed(seed)  # the same adapters whatever the connector has drawn
        _add_lora(model, lora)
    return model, processor


def _check(config: ModelConfig) -> None:
    """Settings that would be passed over."""
    if config.random_weights and config.preset is None:
        raise ConfigurationError(
            "model.random_weights needs model.preset, whose shapes are known: set it, or leave "
            "model.random_weights out"
        )
    if config.vision_options and config.vision != DOCUMENT_ENCODER:
        raise ConfigurationError(
            f"model.vision_options are for {DOCUMENT_ENCODER} alone: set model.vision_options={{}} "
            f"or model.vision={DOCUMENT_ENCODER}"
        )
    known = [
        name for name in vars(DocumentEncoderConfig)["__annotations__"] if name != "model_type"
    ]
    for name in config.vision_options:
        if name not in known:
            raise ConfigurationError(
                f"model.vision_options has no {name!r}{did_you_mean(name, known)}: choose among "
                f"{', '.join(known)}"
            )


def _set_up(model: PreTrainedModel, config: ModelConfig) -> None:
    """Chooses the attention and whether activations are recomputed."""
    try:
        model.set_attn_implementation(config.attention)
        if config.gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
            # transformers makes every input require a gradient, for reentrant checkpoints: a
            # frozen encoder would then run backward for nothing.
            model.disable_input_require_grads()
    except (ValueError, ImportError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ConfigurationError(
            f"A model of type {model.config.model_type!r} takes no model.attention="
            f"{config.attention} with model.gradient_checkpointing="
            f"{str(config.gradient_checkpointing).lower()} here ({reason}): set "
            "model.attention=sdpa or model.gradient_checkpointing=false"
        ) from error


def _check_same(config: ModelConfig, model: PreTrainedModel) -> None:
    """Raises ConfigurationError where a run asks for what the saved model has otherwise."""
    default = ModelConfig(pretrained=config.pretrained)
    asked = {f"tiling.{name}": value for name, value in config.tiling.items()}
    if config.preset is not None or config.connector != default.connector:
        asked |= {f"connector.{name}": value for name, value in config.connector.items()}
    if config.preset is not None or config.vision_feature_layer != default.vision_feature_layer:
        asked["vision_feature_layer"] = config.vision_feature_layer
    for setting, value in asked.items():
        group, _, name = setting.partition(".")
        found = getattr(model.config, group, None)
        if name:
            found = found.get(name) if isinstance(found, dict) else None
        if json.dumps(found) != json.dumps(value):
            raise ConfigurationError(
                f"The model in {config.pretrained} has model.{setting}={json.dumps(found)} and "
                f"the run asks for {json.dumps(value)}: set what the model has, or start from "
                "another one"
            )


def _fresh(
    config: ModelConfig, dtype: torch.dtype
) -> tuple[AlignVLMForConditionalGeneration, AlignVLMProcessor]:
    """An AlignVLM model with a connector that has learned nothing yet."""
    vision: Any = config.vision
    llm: Any = config.llm
    tokenizer: PreTrainedTokenizerBase | str | None = None
    image_token_id = None
    if config.preset is not None:
        preset = find_preset(config.preset)
        vision, llm = vision or preset.vision, llm or preset.llm
        if config.random_weights:
            whole = preset.config()
            vision, llm, image_token_id = (
                whole.vision_config,
                whole.text_config,
                whole.image_token_id,
            )
    if vision == DOCUMENT_ENCODER:
        vision = _document_encoder(config.vision_options, "vision" in config.tuned)
    if llm == SMOLLM2:
        from alignvlm.weights.smollm2 import load_smollm2

        llm, tokenizer = load_smollm2(torch.float32)
        if "llm" in config.tuned:
            add_adapter(llm)
    builder: Any = AlignVLM
    model = builder.build(
        vision=vision,
        llm=llm,
        connector=dict(config.connector),
        tiling=dict(config.tiling) or None,
        vision_feature_layer=config.vision_feature_layer,
        tokenizer=tokenizer,
        image_token_id=image_token_id,
        dtype=dtype,
    ).to(dtype)
    if tokenizer is None:
        tokenizer = _spare_tokenizer() if config.random_weights else str(llm)
    return model, AlignVLMProcessor.build(tokenizer, model.config)


def _document_encoder(options: Any, tuned: bool) -> DocumentEncoder:
    from alignvlm.weights.ppocr import load_trunk

    encoder = DocumentEncoder(DocumentEncoderConfig(**options))
    if not tuned:
        load_trunk(encoder.trunk)
        return encoder
    weights, parts = vision_weights(), encoder.state_dict()
    other = [name for name in parts if weights[name].shape != parts[name].shape]
    if other:
        raise ConfigurationError(
            f"model.tuned names vision, and with model.vision_options its {other[0]} is "
            f"{list(parts[other[0]].shape)}, not {list(weights[other[0]].shape)} as trained: "
            "take 192 of hidden_size for every 8 x 4 px of a cell, and leave the layers alone"
        )
    encoder.load_state_dict(weights)
    return encoder


def _spare_tokenizer() -> PreTrainedTokenizerBase:
    """Llama 3's control tokens over bytes: enough for a model of random weights."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    control = {
        128_000: "<|begin_of_text|>", 128_001: "<|end_of_text|>",
        128_002: "<|reserved_special_token_0|>", 128_006: "<|start_header_id|>",
        128_007: "<|end_header_id|>", 128_009: "<|eot_id|>",
    }  # fmt: skip
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {char: number for number, char in enumerate(alphabet)}
    core = Tokenizer(models.BPE(vocab=vocabulary | {t: i for i, t in control.items()}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=control[128_000],
        eos_token=control[128_009],
        additional_special_tokens=list(control.values()),
    )


def _pretrained(
    source: str, dtype: torch.dtype, lora: LoraConfig | None
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A saved model of any kind, with its own processor."""
    options: dict[str, Any] = {"dtype": dtype}
    if lora is not None and lora.quantize:
        options["quantization_config"] = _four_bits()
    model = load_foreign_model(source, **options)
    processor = load_foreign_part(AutoProcessor, source, "processor files")
    return model, processor


def _four_bits() -> Any:
    """Four bits for the language model's matrices; encoder and connector stay as they are."""
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("bitsandbytes", "hold weights in four bits") from error
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=["lm_head", *_NOT_LLM],
    )


def _add_lora(model: PreTrainedModel, lora: LoraConfig) -> None:
    """Freezes the language model and puts adapters into its layers, in place."""
    try:
        from peft import LoraConfig as PeftConfig
        from peft import inject_adapter_in_model
    except ImportError as error:
        raise MissingDependencyError("peft", "train an adapter", extra="train") from error
    language_model = language_model_of(model)
    config = PeftConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
    )
    _check_targets(lora.targets, language_model)
    inject_adapter_in_model(config, language_model)


def language_model_of(model: PreTrainedModel) -> nn.Module:
    """Where adapters go.

    Raises:
        ConfigurationError: the model has its language model in another place than others.
    """
    found = getattr(model.base_model, "language_model", None)
    if not isinstance(found, nn.Module):
        raise ConfigurationError(
            f"The model type {model.config.model_type!r} keeps its language model where LoRA does "
            "not look for it: train it whole, without lora"
        )
    return found


def _check_targets(targets: Sequence[str], language_model: nn.Module) -> None:
    """Adapters go where they are wanted: a name that nothing has would be passed over."""
    layers = [name for name, part in language_model.named_modules() if isinstance(part, nn.Linear)]
    known = sorted({name.rpartition(".")[2] for name in layers})
    for target in targets:
        if target not in known and not any(name.endswith(f".{target}") for name in layers):
            raise ConfigurationError(
                f"lora.targets names {target!r}{did_you_mean(target, known)} and no layer of the "
                f"language model is called so: choose among {', '.join(known)}"
            )


def save_merged(model: PreTrainedModel, state: dict[str, torch.Tensor], folder: Path) -> None:
    """Writes a model as `from_pretrained` takes it, without adapters and four-bit weights.

    Args:
        model: as it was trained; where it was quantized it forgets that.
        state: its state dict, whole.
        folder: where to.
    """
    merged = merged_state(model, state)
    if getattr(model, "hf_quantizer", None) is not None:
        del model.hf_quantizer  # it would write the weights as it made them
        del model.config.quantization_config
    model.save_pretrained(folder, state_dict=merged)


def merged_state(model: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict in which adapters are added to the matrices they belong to.

    W + (alpha / r) B A, in float32, rounded once to the type of W; a W of four bits becomes what
    it was computed with. Without adapters it is `state`.
    """
    merged = {name.replace(".base_layer", ""): value for name, value in state.items()}
    for name, module in model.named_modules():
        quantized = getattr(getattr(module, "weight", None), "quant_state", None)
        place = name.removesuffix(".base_layer")
        if quantized is not None:
            from bitsandbytes.functional import dequantize_4bit

            parts = [key for key in merged if key.startswith(f"{place}.weight.")]
            for key in parts:  # how the four bits were scaled
                del merged[key]
            merged[f"{place}.weight"] = dequantize_4bit(module.weight.data, quantized).cpu()
    for name, module in model.named_modules():
        if not hasattr(module, "lora_A"):
            continue
        down = merged.pop(f"{name}.lora_A.default.weight")
        up = merged.pop(f"{name}.lora_B.default.weight")
        weight = merged[f"{name}.weight"]
        delta = module.scaling["default"] * (up.float() @ down.float())  # type: ignore[index]
        merged[f"{name}.weight"] = (weight.float() + delta).to(weight.dtype)
    return merged
