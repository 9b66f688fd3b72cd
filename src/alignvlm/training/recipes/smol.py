"""`smol`: the default model's size on generated pages, the recipe of `alignvlm compare`.

It trains end to end on two CPU cores. Not in the paper: every number is a choice for that size.
"""

from __future__ import annotations

from alignvlm.training.configuration import (
    BatchConfig,
    DataPart,
    LoraConfig,
    ModelConfig,
    OptimizerConfig,
    Rates,
    RunConfig,
)


def smol() -> RunConfig:
    """Document encoder, connector and SmolLM2-135M with adapters, on easy pages of one tile."""
    return RunConfig(
        recipe="smol",
        model=_model(),
        rates=Rates(
            vision=1e-4,  # not stated: the encoder's trunk can read already
            connector=1e-3,  # not stated: it is new; "learning rate = 1e-3" (5.2.2) for it alone
            llm=4e-4,  # not stated: adapters, the rate of the default model's answer stage on a GPU
        ),
        data=(
            DataPart(
                source="synth",
                options={"kinds": ["easy"]},  # not stated: large print, a few lines, short answers
            ),
        ),
        batches=BatchConfig(
            num_samples=8,  # not stated: a step of some ten seconds on two cores
            max_tokens=2816,  # not stated: two pages of 1152 visual tokens and their text in a row
            max_tiles=2,  # not stated: two pages in a row
            max_text_tokens=256,  # not stated: questions and answers of easy pages are short
        ),
        optimizer=OptimizerConfig(
            betas=(0.9, 0.98),  # not stated: as for the default model
            weight_decay=0.01,  # not stated: as for the default model
            warmup_ratio=0.05,  # not stated: a twentieth of a short run
        ),
        lora=LoraConfig(
            rank=16,  # not stated: the default model's adapter
            alpha=32,  # not stated: the default model's adapter
        ),
        num_steps=2000,  # not stated: 16,000 pages, the largest budget of `alignvlm compare`
        precision="bfloat16",  # not stated: twice as fast as float32 on CPUs that have it
        num_workers=1,  # not stated: the second core is the model's
        checkpoint_every=50,  # not stated: some ten minutes
    )


def _model() -> ModelConfig:
    return ModelConfig(
        vision="document-encoder",  # not stated: the encoder that comes from the package index
        llm="smollm2-135m",  # not stated: the language model that comes from the package index
        connector={
            "name": "align",
            "gain": 2.0,  # not stated: with 1 a fresh ALIGN is nearly uniform over 49,152 words
        },
        tiling={
            "layout": "canvas",  # not stated: the default model's
            "thumbnail": False,  # not stated: the default model's
            "max_tiles": 1,  # not stated: an easy page is one small tile
            "max_upscale": 1.0,  # not stated: the default model's
        },
        vision_options={
            "tile_px": 192,
            # not stated: an easy page at half its size, letters of 10 px and more, 1152 tokens
        },
    )
