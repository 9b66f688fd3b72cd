"""`smol`: the default model's parts and size on notes, the recipe of `alignvlm compare`.

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
    """Document encoder, connector and SmolLM2-135M with adapters, on notes of one tile."""
    return RunConfig(
        recipe="smol",
        model=_model(),
        rates=Rates(
            vision=None,  # not stated: it reads characters already, and what it learned is kept
            connector=1e-3,  # not stated: it is new; "learning rate = 1e-3" (5.2.2) for it alone
            llm=4e-4,  # not stated: adapters, the rate of the default model's answer stage on a GPU
        ),
        data=(
            DataPart(
                source="synth",
                options={
                    "kinds": ["note"],  # not stated: one to three lines, a token costs 5 ms a core
                },
            ),
        ),
        batches=BatchConfig(
            num_samples=4,  # not stated: small, for short runs should have many steps
            max_tokens=1024,  # not stated: four notes and their questions in a row
            max_tiles=4,  # not stated: four notes in a row
            max_text_tokens=256,  # not stated: three questions and answers take some 90
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
        num_steps=4000,  # not stated: 16,000 pages, the largest budget of `alignvlm compare`
        precision="bfloat16",  # not stated: twice as fast as float32 on CPUs that have it
        num_workers=0,  # not stated: a note is drawn in 7 ms, a hundredth of a step
        checkpoint_every=100,  # not stated: some five minutes
    )


def _model() -> ModelConfig:
    return ModelConfig(
        vision="document-encoder",  # not stated: the encoder that comes from the package index
        llm="smollm2-135m",  # not stated: the language model that comes from the package index
        tuned=("vision", "llm"),
        # not stated: one reads characters and one answers from text; what is learned is between
        connector={
            "name": "align",
            "gain": 4.0,
            # not stated: with 1 a fresh ALIGN is nearly uniform over 49,152 words, and with 2 the
            # visual tokens of a note still agree to a cosine of 0.99
        },
        tiling={
            "layout": "canvas",  # not stated: the default model's
            "thumbnail": False,  # not stated: the default model's
            "max_tiles": 1,  # not stated: a note is one small tile
            "max_upscale": 1.0,  # not stated: the default model's
        },
        vision_options={
            "tile_px": 192,  # not stated: the size of a note
            "cell_height_px": 32,  # not stated: a row of cells holds one line of a note at most
            "cell_width_px": 8,  # not stated: about a character; the paper's patches hold no more
            "hidden_size": 1536,  # not stated: 192, as trained, for each 8 x 4 px of a cell
        },
    )
