"""From a `ModelConfig` to a model with weights and its processor."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from alignvlm.errors import ConfigurationError, MissingDependencyError, WeightsError
from alignvlm.model.build import AlignVLM
from alignvlm.model.document_encoder import DocumentEncoder, DocumentEncoderConfig
from alignvlm.model.modeling import AlignVLMForConditionalGeneration
from alignvlm.model.presets import find_preset
from alignvlm.model.processing import AlignVLMProcessor
from alignvlm.training.configuration import LoraConfig, ModelConfig

__all__ = ["DOCUMENT_ENCODER", "SMOLLM2", "build_model", "merged_state"]

DOCUMENT_ENCODER = "document-encoder"
SMOLLM2 = "smollm2-135m"

_LOADING_ERRORS = (OSError, ValueError, RuntimeError, KeyError)


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
    torch.manual_seed(seed)
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.dtype]
    if config.pretrained is not None:
        model, processor = _pretrained(config.pretrained, dtype, lora)
    else:
        model, processor = _fresh(config, dtype)
    model.set_attn_implementation(config.attention)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if lora is not None:
        _add_lora(model, lora)
    return model, processor


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
        vision = _document_encoder(config.vision_options)
    if llm == SMOLLM2:
        from alignvlm.weights.smollm2 import load_smollm2

        llm, tokenizer = load_smollm2(torch.float32)
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


def _document_encoder(options: Any) -> DocumentEncoder:
    from alignvlm.weights.ppocr import load_trunk

    encoder = DocumentEncoder(DocumentEncoderConfig(**options))
    load_trunk(encoder.trunk)
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
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True}
    if lora is not None and lora.quantize:
        options["quantization_config"] = _four_bits()
    try:
        model = AutoModelForImageTextToText.from_pretrained(source, **options)
        return model, AutoProcessor.from_pretrained(source)
    except _LOADING_ERRORS as error:
        raise WeightsError(
            f"No image-text-to-text model can be loaded from {source!r} ({type(error).__name__}): "
            "check model.pretrained, it needs config.json, safetensors and the processor's files"
        ) from error


def _four_bits() -> Any:
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("bitsandbytes", "hold weights in four bits") from error
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )


def _add_lora(model: PreTrainedModel, lora: LoraConfig) -> None:
    """Freezes the language model and puts adapters into its layers, in place."""
    try:
        from peft import LoraConfig as PeftConfig
        from peft import inject_adapter_in_model
    except ImportError as error:
        raise MissingDependencyError("peft", "train an adapter", extra="train") from error
    language_model = getattr(model.base_model, "language_model", None)
    if language_model is None:
        raise ConfigurationError(
            f"The model type {model.config.model_type!r} keeps its language model where LoRA does "
            "not look for it: train it whole, without lora"
        )
    kept = {name: p.requires_grad for name, p in language_model.named_parameters()}
    config = PeftConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
    )
    inject_adapter_in_model(config, language_model)
    for name, parameter in language_model.named_parameters():
        if name not in kept and parameter.requires_grad:
            parameter.data = parameter.data.float()  # steps of 1e-4 vanish in bfloat16's 8 bits


def merged_state(model: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict in which adapters are added to the matrices they belong to.

    W + (alpha / r) B A, in float32, rounded once to the type of W. Without adapters it is `state`.
    """
    merged = {name.replace(".base_layer", ""): value for name, value in state.items()}
    for name, module in model.named_modules():
        if not hasattr(module, "lora_A"):
            continue
        down = merged.pop(f"{name}.lora_A.default.weight")
        up = merged.pop(f"{name}.lora_B.default.weight")
        weight = merged[f"{name}.weight"]
        delta = module.scaling["default"] * (up.float() @ down.float())  # type: ignore[index]
        merged[f"{name}.weight"] = (weight.float() + delta).to(weight.dtype)
    return merged
