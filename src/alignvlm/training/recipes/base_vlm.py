"""Stages 2 and 3 for existing base VLMs, the "(base+)" rows of Table 1.

"we evaluate our models against a set of Base VLMs fine-tuned on the same instruction-tuning tasks
(Stages 2 and 3) as our models": Qwen2-VL-2B, DocOwl1.5-8B and Llama-3.2-11B. Any image-text-to-text
model of transformers will do: `--set model.pretrained=<folder or Hub id>`.
"""

from __future__ import annotations

from alignvlm.training.configuration import (
    BatchConfig,
    DataPart,
    ModelConfig,
    Rates,
    RunConfig,
)
from alignvlm.training.recipes.paper import paper_optimizer

QWEN2_VL_2B = "Qwen/Qwen2-VL-2B"


def stage2() -> RunConfig:
    """Stage 2 for a base VLM: everything trains on BigDocs-7.5M."""
    return RunConfig(
        recipe="base-vlm-stage2",
        model=_model(QWEN2_VL_2B),
        rates=Rates(
            vision=5e-5,  # not stated: Table 6 is for AlignVLM; "Full Model", its 3B, Stage-2
            connector=5e-5,  # not stated: Table 6 is for AlignVLM; its 3B, Stage-2
            llm=5e-5,  # not stated: Table 6 is for AlignVLM; its 3B, Stage-2; 1e-5 from 8B on
        ),
        data=(DataPart(source="bigdocs", path="data/bigdocs"),),
        # "using the BigDocs-7.5M and BigDocs-DocDownstream datasets" (section 4)
        batches=_batches(),
        optimizer=paper_optimizer(),
        epochs=1,  # not stated: Table 6 is for AlignVLM; "Epochs 1", its 3B, Stage-2
        precision="bfloat16",  # not stated: MS-Swift's default
        sharding="fsdp2",  # "specifically the ZeRO-3 configuration" (section 4); FSDP2 is in torch
    )


def stage3() -> RunConfig:
    """Stage 3 for a base VLM: the vision encoder is frozen, DocDownstream for five epochs."""
    return RunConfig(
        recipe="base-vlm-stage3",
        model=_model("runs/base-vlm-stage2/model"),
        rates=Rates(
            vision=None,  # "In this stage, the vision encoder is frozen" (3.3)
            connector=5e-5,  # not stated: Table 6 is for AlignVLM; its 3B, Stage-3
            llm=5e-5,  # not stated: Table 6 is for AlignVLM; its 3B, Stage-3; 1e-5 from 8B on
        ),
        data=(DataPart(source="docdownstream", path="data/docdownstream"),),
        # "using the BigDocs-7.5M and BigDocs-DocDownstream datasets" (section 4)
        batches=_batches(),
        optimizer=paper_optimizer(),
        epochs=5,  # not stated: Table 6 is for AlignVLM; "Epochs 5", its 3B, Stage-3
        precision="bfloat16",  # not stated: MS-Swift's default
        sharding="fsdp2",  # "specifically the ZeRO-3 configuration" (section 4); FSDP2 is in torch
    )


def _model(pretrained: str) -> ModelConfig:
    return ModelConfig(
        pretrained=pretrained,  # "Qwen2-VL-2B, DocOwl1.5-8B, and LLama 3.2-11B" (section 4)
        gradient_checkpointing=True,  # not stated: MS-Swift's default
    )


def _batches() -> BatchConfig:
    return BatchConfig(
        num_samples=256,  # not stated: Table 6 is for AlignVLM; "Batch Size 256", its 3B
        max_text_tokens=2048,  # not stated: Table 6 is for AlignVLM; "Text Max Length 2048"
        max_tokens=10_240,  # not stated: as for AlignVLM
        max_tiles=14,  # not stated: as for AlignVLM
    )
