"""The paper's three stages for its three language models (Table 6), and the VCR run (A.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from alignvlm.training.configuration import (
    BatchConfig,
    DataPart,
    ModelConfig,
    OptimizerConfig,
    Rates,
    RunConfig,
)

FULL_MODEL = "Full Model"
LLM_AND_CONNECTOR = "LLM & Connector"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of Table 6: what differs between the stages and the language models."""

    trainable: str
    num_samples: int
    max_text_tokens: int
    epochs: float
    rate: float


def llama_3_2_1b_stage1() -> RunConfig:
    """Stage 1 of AlignVLM-Llama-3.2-1B: the ALIGN module is aligned on image-caption pairs."""
    return _stage1(
        "llama-3.2-1b",
        Column(
            trainable=FULL_MODEL,  # "Trainable Parameters Full Model" (Table 6, 1B, Stage-1)
            num_samples=512,  # "Batch Size 512" (Table 6, 1B, Stage-1)
            max_text_tokens=1024,  # "Text Max Length 1024" (Table 6, 1B, Stage-1)
            epochs=1,  # "Epochs 1" (Table 6, 1B, Stage-1)
            rate=1e-5,  # "Learning Rate 1 × 10−5" (Table 6, 1B, Stage-1)
        ),
    )


def llama_3_2_1b_stage2() -> RunConfig:
    """Stage 2 of AlignVLM-Llama-3.2-1B: document understanding."""
    return _stage2(
        "llama-3.2-1b",
        Column(
            trainable=FULL_MODEL,  # "Trainable Parameters Full Model" (Table 6, 1B, Stage-2)
            num_samples=512,  # "Batch Size 512" (Table 6, 1B, Stage-2)
            max_text_tokens=2048,  # "Text Max Length 2048" (Table 6, 1B, Stage-2)
            epochs=1,  # "Epochs 1" (Table 6, 1B, Stage-2)
            rate=5e-5,  # "Learning Rate 5 × 10−5" (Table 6, 1B, Stage-2)
        ),
    )


def llama_3_2_1b_stage3() -> RunConfig:
    """Stage 3 of AlignVLM-Llama-3.2-1B: instruction tuning."""
    return _stage3(
        "llama-3.2-1b",
        Column(
            trainable=LLM_AND_CONNECTOR,  # "LLM & Connector" (Table 6, 1B, Stage-3)
            num_samples=512,  # "Batch Size 512" (Table 6, 1B, Stage-3)
            max_text_tokens=2048,  # "Text Max Length 2048" (Table 6, 1B, Stage-3)
            epochs=5,  # "Epochs 5" (Table 6, 1B, Stage-3)
            rate=5e-5,  # "Learning Rate 5 × 10−5" (Table 6, 1B, Stage-3)
        ),
    )


def llama_3_2_3b_stage1() -> RunConfig:
    """Stage 1 of AlignVLM-Llama-3.2-3B: the ALIGN module is aligned on image-caption pairs."""
    return _stage1(
        "llama-3.2-3b",
        Column(
            trainable=FULL_MODEL,  # "Trainable Parameters Full Model" (Table 6, 3B, Stage-1)
            num_samples=512,  # "Batch Size 512" (Table 6, 3B, Stage-1)
            max_text_tokens=1024,  # "Text Max Length 1024" (Table 6, 3B, Stage-1)
            epochs=1,  # "Epochs 1" (Table 6, 3B, Stage-1)
            rate=1e-5,  # "Learning Rate 1 × 10−5" (Table 6, 3B, Stage-1)
        ),
    )


def llama_3_2_3b_stage2() -> RunConfig:
    """Stage 2 of AlignVLM-Llama-3.2-3B: document understanding."""
    return _stage2(
        "llama-3.2-3b",
        Column(
            trainable=FULL_MODEL,  # "Trainable Parameters Full Model" (Table 6, 3B, Stage-2)
            num_samples=256,  # "Batch Size 256" (Table 6, 3B, Stage-2)
            max_text_tokens=2048,  # "Text Max Length 2048" (Table 6, 3B, Stage-2)
            epochs=1,  # "Epochs 1" (Table 6, 3B, Stage-2)
            rate=5e-5,  # "Learning Rate 5 × 10−5" (Table 6, 3B, Stage-2)
        ),
    )


def llama_3_2_3b_stage3() -> RunConfig:
    """Stage 3 of AlignVLM-Llama-3.2-3B: instruction tuning."""
    return _stage3(
        "llama-3.2-3b",
        Column(
            trainable=LLM_AND_CONNECTOR,  # "LLM & Connector" (Table 6, 3B, Stage-3)
            num_samples=256,  # "Batch Size 256" (Table 6, 3B, Stage-3)
            max_text_tokens=2048,  # "Text Max Length 2048" (Table 6, 3B, Stage-3)
            epochs=5,  # "Epochs 5" (Table 6, 3B, Stage-3)
            rate=5e-5,  # "Learning Rate 5 × 10−5" (Table 6, 3B, Stage-3)
        ),
    )


def llama_3_1_8b_stage1() -> RunConfig:
    """Stage 1 of AlignVLM-Llama-3.1-8B: the ALIGN module is aligned on image-caption pairs."""
    return _stage1(
        "llama-3.1-8b",
        Column(
            trainable=FULL_MODEL,  # "Trainable Parameters Full Model" (Table 6, 8B, Stage-1)
            num_samples=512,  # "Batch Size 512" (Table 6, 8B, Stage-1)
            max_text_tokens=1024,  # "Text Max Length 1024" (Table 6, 8B, Stage-1)
            epochs=1,  # "Epochs 1" (Table 6, 8B, Stage-1)
            rate=1e-5,  # "Learning Rate 1 × 10−5" (Table 6, 8B, Stage-1)
        ),
    )


def llama_3_1_8b_stage2() -> RunConfig:
    """Stage 2 of AlignVLM-Llama-3.1-8B: document understanding."""
    return _stage2(
        "llama-3.1-8b",
        Column(
            trainable=FULL_MODEL,  # "Trainable Parameters Full Model" (Table 6, 8B, Stage-2)
            num_samples=256,  # "Batch Size 256" (Table 6, 8B, Stage-2)
            max_text_tokens=2048,  # "Text Max Length 2048" (Table 6, 8B, Stage-2)
            epochs=1,  # "Epochs 1" (Table 6, 8B, Stage-2)
            rate=1e-5,  # "Learning Rate 1 × 10−5" (Table 6, 8B, Stage-2)
        ),
    )


def llama_3_1_8b_stage3() -> RunConfig:
    """Stage 3 of AlignVLM-Llama-3.1-8B: instruction tuning."""
    return _stage3(
        "llama-3.1-8b",
        Column(
            trainable=LLM_AND_CONNECTOR,  # "LLM & Connector" (Table 6, 8B, Stage-3)
            num_samples=256,  # "Batch Size 256" (Table 6, 8B, Stage-3)
            max_text_tokens=2048,  # "Text Max Length 2048" (Table 6, 8B, Stage-3)
            epochs=5,  # "Epochs 5" (Table 6, 8B, Stage-3)
            rate=1e-5,  # "Learning Rate 1 × 10−5" (Table 6, 8B, Stage-3)
        ),
    )


def llama_3_2_3b_vcr() -> RunConfig:
    """The model of Figure 5: stage 3 of AlignVLM-Llama-3.2-3B on a blend with VCR."""
    return _stage(
        name="llama-3.2-3b-vcr",
        preset="alignvlm-llama-3.2-3b",
        pretrained="runs/llama-3.2-3b-stage2/model",
        # "we modify our Stage 3 SFT dataset composition" (A.3): it starts where stage 3 does
        data=(
            DataPart(
                source="docdownstream",
                path="data/docdownstream",
                weight=5,  # "a 5:1 blended ratio of DocDownstream and VCR training data" (A.3)
            ),
            DataPart(
                source="vcr",
                path="data/vcr",
                weight=1,  # "a 5:1 blended ratio of DocDownstream and VCR training data" (A.3)
            ),
        ),
        column=Column(
            trainable=LLM_AND_CONNECTOR,  # "LLM & Connector" (Table 6, 3B, Stage-3)
            num_samples=256,  # "Batch Size 256" (Table 6, 3B, Stage-3)
            max_text_tokens=2048,  # "Text Max Length 2048" (Table 6, 3B, Stage-3)
            epochs=5,  # "Epochs 5" (Table 6, 3B, Stage-3)
            rate=5e-5,  # "Learning Rate 5 × 10−5" (Table 6, 3B, Stage-3)
        ),
    )


def paper_tiling() -> dict[str, Any]:
    """How the paper cuts pages into tiles, as far as it says."""
    return {
        "max_tiles": 9,  # "we set the maximum number of tiles to 9" (3.1)
        "layout": "cells",  # "predefined aspect ratios (e.g., 1:1, 1:2, ..., 9:1)" (3.1)
        "thumbnail": True,  # not stated: Ovis, whose tiling this is, adds the whole page
    }


def paper_optimizer() -> OptimizerConfig:
    """What the paper leaves to "the MS-Swift framework [...] for its flexibility" (section 4)."""
    return OptimizerConfig(
        betas=(0.9, 0.95),  # not stated: MS-Swift's default
        eps=1e-8,  # not stated: MS-Swift's default
        weight_decay=0.1,  # not stated: MS-Swift's default; never on norms, ALIGN's included
        clip_norm=1.0,  # not stated: MS-Swift's default
        warmup_ratio=0.03,
        # not stated: MS-Swift's default is none; LLaVA-NeXT's 3 % keep W1's first steps small
        schedule="cosine",  # not stated: MS-Swift's default
    )


def _stage1(llm: str, column: Column) -> RunConfig:
    """Stage 1 "focuses on training the ALIGN Module" (3.3)."""
    return _stage(
        name=f"{llm}-stage1",
        preset=f"alignvlm-{llm}",
        pretrained=None,
        data=(DataPart(source="cc12m", path="data/cc12m"),),
        # "We use the CC-12M dataset [...] we retrieved 8.1M pairs" (3.3)
        column=column,
    )


def _stage2(llm: str, column: Column) -> RunConfig:
    """Stage 2 is "to enhance the model's document understanding capabilities" (3.3)."""
    return _stage(
        name=f"{llm}-stage2",
        preset=f"alignvlm-{llm}",
        pretrained=f"runs/{llm}-stage1/model",
        data=(DataPart(source="bigdocs", path="data/bigdocs"),),
        # "We leverage the BigDocs-7.5M dataset" (3.3)
        column=column,
    )


def _stage3(llm: str, column: Column) -> RunConfig:
    """Stage 3 is "to enhance the model's instruction-tuning capabilities" (3.3)."""
    return _stage(
        name=f"{llm}-stage3",
        preset=f"alignvlm-{llm}",
        pretrained=f"runs/{llm}-stage2/model",
        data=(DataPart(source="docdownstream", path="data/docdownstream"),),
        # "we further train it on the DocDownstream [...] instruction tuning dataset" (3.3)
        column=column,
    )


def _stage(
    *,
    name: str,
    preset: str,
    pretrained: str | None,
    data: tuple[DataPart, ...],
    column: Column,
) -> RunConfig:
    """What all stages share."""
    rate = column.rate
    return RunConfig(
        recipe=name,
        model=ModelConfig(
            preset=preset,  # "Llama 3.2-1B, Llama 3.2-3B, and Llama 3.1-8B" (3.1)
            pretrained=pretrained,  # "We train our model in three stages" (3.3): the one before
            connector={"name": "align"},  # "ALIGN Module" (3.1)
            tiling=paper_tiling(),
            vision_feature_layer=-1,  # not stated: as in Ovis, whose head ALIGN extends
            gradient_checkpointing=True,  # not stated: MS-Swift's default
        ),
        rates=Rates(
            vision=rate if column.trainable == FULL_MODEL else None,
            # "we train the full model" (3.3, Stage 1); "the vision encoder is frozen" (Stage 3)
            connector=rate,  # "training exclusively on the LLM and ALIGN module" (3.3, Stage 3)
            llm=rate,  # not stated: Table 6 has one learning rate, taken for all parts
        ),
        data=data,
        batches=BatchConfig(
            num_samples=column.num_samples,  # "Batch Size" (Table 6)
            max_text_tokens=column.max_text_tokens,  # "Text Max Length" (Table 6)
            # not stated: whether visual tokens count; 9 x 729 of them would not fit
            max_tokens=10_240,
            # not stated: 10 tiles of 729 visual tokens and 2048 of text, the longest sample, fit
            max_tiles=14,  # not stated: as many as fit into max_tokens
        ),
        optimizer=paper_optimizer(),
        epochs=column.epochs,  # "Epochs" (Table 6)
        precision="bfloat16",  # not stated: MS-Swift's default on "H100 GPUs" (section 4)
        sharding="fsdp2",
        # "DeepSpeed framework, specifically the ZeRO-3 configuration" (section 4).
        # Unlike the paper, FSDP2 is the default: it shards the same and comes with torch
    )
