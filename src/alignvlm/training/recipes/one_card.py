"""Stage 3 of AlignVLM-Llama-3.2-3B on one card: adapters in the language model (not in the paper).

The paper trains on "8 nodes of H100 GPUs, totaling 64 GPUs" (section 4). Here the language model
and the encoder are frozen, low-rank adapters and the connector train. Without the model of stage 2
`--set model.pretrained=none` starts from the preset's parts and a fresh connector.
"""

from __future__ import annotations

from dataclasses import replace

from alignvlm.training.configuration import (
    BatchConfig,
    DataPart,
    LoraConfig,
    ModelConfig,
    OptimizerConfig,
    Rates,
    RunConfig,
)
from alignvlm.training.recipes.paper import paper_tiling


def llama_3_2_3b_lora() -> RunConfig:
    """LoRA for a card of 48 GB: frozen weights in bfloat16."""
    return RunConfig(
        recipe="llama-3.2-3b-lora",
        model=ModelConfig(
            preset="alignvlm-llama-3.2-3b",  # "Llama 3.2-3B" (3.1)
            pretrained="runs/llama-3.2-3b-stage2/model",
            # "we further train it on the DocDownstream" (3.3): what stage 2 has saved
            connector={"name": "align"},  # "ALIGN Module" (3.1)
            tiling=paper_tiling(),
            dtype="bfloat16",  # not stated: Llama's own type; what trains stays in float32
            gradient_checkpointing=True,  # not stated: MS-Swift's default
        ),
        rates=Rates(
            vision=None,  # "In this stage, the vision encoder is frozen" (3.3, Stage 3)
            connector=5e-5,  # "Learning Rate 5 × 10−5" (Table 6, 3B, Stage-3)
            llm=1e-4,  # not stated: the paper has no adapters; MS-Swift's default for LoRA
        ),
        data=(DataPart(source="docdownstream", path="data/docdownstream"),),
        # "the DocDownstream [...] instruction tuning dataset" (3.3, Stage 3)
        batches=BatchConfig(
            num_samples=256,  # "Batch Size 256" (Table 6, 3B, Stage-3)
            max_text_tokens=2048,  # "Text Max Length 2048" (Table 6, 3B, Stage-3)
            max_tokens=10_240,  # not stated: ten tiles and the longest text in one row
            max_tiles=14,  # not stated: as many as fit into max_tokens
        ),
        optimizer=OptimizerConfig(
            weight_decay=0.0,  # not stated: adapters start at zero and are small
        ),
        lora=LoraConfig(
            rank=16,  # not stated: the default model's adapter has it, see docs/default_model.md
            alpha=32,  # not stated: the default model's adapter has it, see docs/default_model.md
            dropout=0.0,  # not stated: five epochs of 570K samples; regularisation is not needed
        ),
        epochs=5,  # "Epochs 5" (Table 6, 3B, Stage-3)
        precision="bfloat16",  # not stated: MS-Swift's default
    )


def llama_3_2_3b_qlora() -> RunConfig:
    """QLoRA for a card of 24 GB: the language model's frozen weights in four bits, short rows."""
    lora = llama_3_2_3b_lora()
    return replace(
        lora,
        recipe="llama-3.2-3b-qlora",
        lora=LoraConfig(
            rank=16,  # not stated: as for LoRA
            alpha=32,  # not stated: as for LoRA
            dropout=0.0,  # not stated: as for LoRA
            quantize=True,  # not stated: the paper has no adapters; 3B in bfloat16 are 6.4 GB
        ),
    )
