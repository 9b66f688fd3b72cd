"""The low-resource regime of section 5.2.2: LLaVA-NeXT's two stages with a connector to compare.

"We follow the official LLaVA-NeXT configuration for both training stages"; what 5.2.2 itself does
not say is taken from that configuration's scripts (LLaVA-VL/LLaVA-NeXT, commit df17966).

Both stages tile by "anyres_max_9", as 5.2.2 says; LLaVA-NeXT's own first stage does not tile.
Unlike LLaVA-OneVision, each of a sample's images is tiled, not only one that is alone.
"""

from __future__ import annotations

from alignvlm.training.configuration import (
    BatchConfig,
    DataPart,
    ModelConfig,
    OptimizerConfig,
    Rates,
    RunConfig,
)

_PRETRAINED = "runs/low-resource-pretrain/model"


def pretrain() -> RunConfig:
    """The connector alone on LLaVA-558K; `--set model.connector.name=mlp` for another one."""
    return RunConfig(
        recipe="low-resource-pretrain",
        model=_model(None),
        rates=Rates(
            vision=None,  # "freezing both the LLM and vision encoder" (5.2.2)
            connector=1e-3,  # "learning rate = 1e-3" (5.2.2)
            llm=None,  # "freezing both the LLM and vision encoder" (5.2.2)
        ),
        data=(DataPart(source="llava_pretrain", path="data/llava_pretrain"),),
        # "the LLaVA-558K image–caption dataset" (5.2.2)
        batches=BatchConfig(
            num_samples=256,
            # "batch size = 32, 1 epoch on 8 × H100 GPUs" (5.2.2).
            # not stated: per device or of all; read as per device, LLaVA-1.5's 256 for this rate
            max_text_tokens=2048,  # not stated: LLaVA-1.5's model_max_length
            max_tokens=32_768,  # not stated: LLaVA-NeXT's model_max_length; an image has < 9,000
            max_tiles=37,  # "grid weaving from 1×1 to 6×6" (5.2.2) and the whole image
        ),
        optimizer=_optimizer(),
        epochs=1,  # "1 epoch on 8 × H100 GPUs" (5.2.2)
        precision="bfloat16",  # not stated: LLaVA-NeXT's scripts
        sharding="fsdp2",  # not stated: LLaVA-NeXT's scripts use ZeRO-3, FSDP2 comes with torch
    )


def finetune() -> RunConfig:
    """All three parts on LLaVA-NeXT-779K, the encoder at a fifth of the others' rate."""
    return RunConfig(
        recipe="low-resource-finetune",
        model=_model(_PRETRAINED),
        rates=Rates(
            vision=2e-6,  # "2e-6 for the vision encoder" (5.2.2)
            connector=1e-5,  # "learning rates of 1e-5 for the LLM and connector" (5.2.2)
            llm=1e-5,  # "learning rates of 1e-5 for the LLM and connector" (5.2.2)
        ),
        data=(DataPart(source="llava_next", path="data/llava_next"),),
        # "the LLaVA-NeXT-779K instruction dataset" (5.2.2)
        batches=BatchConfig(
            num_samples=64,
            # "batch size = 8, for 1 epoch" (5.2.2).
            # not stated: per device or of all; read as per device on the same "8 × H100 GPUs"
            max_text_tokens=4096,  # not stated: LLaVA-NeXT's 32,768 counts visual tokens too
            max_tokens=32_768,  # not stated: LLaVA-NeXT's model_max_length; an image has < 9,000
            max_tiles=37,  # "grid weaving from 1×1 to 6×6" (5.2.2) and the whole image
        ),
        optimizer=_optimizer(),
        epochs=1,  # "batch size = 8, for 1 epoch" (5.2.2)
        precision="bfloat16",  # not stated: LLaVA-NeXT's scripts
        sharding="fsdp2",  # not stated: LLaVA-NeXT's scripts use ZeRO-3, FSDP2 comes with torch
    )


def _model(pretrained: str | None) -> ModelConfig:
    return ModelConfig(
        preset="alignvlm-llama-3.2-3b",
        # "SigLIP-400M as the vision encoder and Llama-3.2-3B as the language model" (5.2.2)
        pretrained=pretrained,  # "both training stages" (5.2.2): the second starts from the first
        connector={"name": "align"},
        # "MLP, Perceiver Resampler, Ovis, H-Reducer (1×4), and HoneyBee (C-Abstractor)" (5.2.2)
        tiling={
            "layout": "anyres",  # 'the "anyres_max_9" strategy' (5.2.2)
            "max_tiles": 9,  # "anyres_max_9" (5.2.2)
            "max_side_tiles": 6,  # "grid weaving from 1×1 to 6×6" (5.2.2)
            "thumbnail": True,  # not stated: anyres puts the whole image first
            "newline": True,  # not stated: LLaVA-NeXT's mm_patch_merge_type spatial_unpad
            "pad_value": 0,  # not stated: LLaVA-NeXT pads with black
        },
        vision_feature_layer=-2,  # not stated: LLaVA-NeXT's mm_vision_select_layer
        gradient_checkpointing=True,  # not stated: LLaVA-NeXT's scripts
    )


def _optimizer() -> OptimizerConfig:
    return OptimizerConfig(
        betas=(0.9, 0.999),  # not stated: the default of the Trainer that LLaVA-NeXT uses
        eps=1e-8,  # not stated: the default of the Trainer that LLaVA-NeXT uses
        weight_decay=0.0,  # not stated: "--weight_decay 0." in LLaVA-NeXT's scripts
        clip_norm=1.0,  # not stated: the default of the Trainer that LLaVA-NeXT uses
        warmup_ratio=0.03,  # not stated: "--warmup_ratio 0.03" in LLaVA-NeXT's scripts
        schedule="cosine",  # not stated: "--lr_scheduler_type cosine" in LLaVA-NeXT's scripts
    )
