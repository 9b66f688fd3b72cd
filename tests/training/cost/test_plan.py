"""Plans: they add up, they say when a run does not fit, and what they advise makes it fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from alignvlm.errors import ConfigurationError
from alignvlm.training import overrides, recipes
from alignvlm.training.cost import plan as planning
from alignvlm.training.cost.plan import RESERVE_BYTES, make_plan

GB = 10**9
OURS = [name for name in recipes.names() if not name.startswith("base-vlm")]


@pytest.mark.parametrize("name", OURS)
def test_every_recipe_can_be_planned(name: str) -> None:
    made = make_plan(recipes.find(name)(), 8, 80 * GB)
    assert made.fits and not made.changes and not made.warnings
    assert made.step.flops is not None
    assert made.step.flops.total > made.step.flops.forward > 0
    said = made.to_dict()
    assert said["memory_bytes"]["needed"] == made.memory.total + RESERVE_BYTES
    assert said["run_flops"] == said["step"]["total_flops"] * said["samples"]["num_steps"]
    trains = made.run.rates.vision is not None
    assert (made.parameters["vision"].trained > 0) == trains
    assert (made.parameters["vision"].frozen > 0) != trains


def test_parameters_are_the_paper_s() -> None:
    made = make_plan(recipes.find("llama-3.2-3b-stage1")(), 8, 80 * GB)
    assert made.parameters["connector"].trained == 397_804_032
    assert made.parameters["llm"].trained == 3_212_749_824
    adapted = make_plan(recipes.find("llama-3.2-3b-lora")(), 1, 80 * GB)
    assert adapted.parameters["llm"].frozen == 3_212_749_824
    layers = 28 * 16 * (2 * (3072 + 3072) + 2 * (3072 + 1024) + 3 * (3072 + 8192))
    assert adapted.parameters["llm"].trained == layers


def test_tokens_of_a_step() -> None:
    run = recipes.find("llama-3.2-1b-stage1")()
    step = make_plan(run, 8, 80 * GB, tiles=2, text_tokens=100).step
    assert (step.tiles, step.text_tokens, step.visual_tokens) == (1024, 51_200, 1024 * 729)
    assert step.rows_per_gpu == -(-(51_200 + 1024 * 729) // (8 * 10_240))
    assert make_plan(run, 1, 80 * GB, tiles=2, text_tokens=100).step.rows_per_gpu > 70


def test_advice_makes_a_run_fit() -> None:
    run = overrides.apply(
        recipes.find("llama-3.1-8b-stage2")(),
        ["sharding=none", "model.gradient_checkpointing=false"],
    )
    limit = 80 * GB
    made = make_plan(run, 2, limit)
    assert not made.fits and made.needed_bytes > limit
    settings = [change.setting for change in made.changes]
    assert settings[:2] == ["model.gradient_checkpointing=true", "sharding=fsdp2"]
    assert settings[-1].startswith("lora.rank=16")
    sizes = [change.bytes for change in made.changes]
    assert sizes == sorted(sizes, reverse=True) and min(sizes[:-1]) > limit >= sizes[-1]
    followed = overrides.apply(run, [part for setting in settings for part in setting.split()])
    again = make_plan(followed, 2, limit)
    assert again.fits and again.needed_bytes == sizes[-1]


def test_advice_ends_where_nothing_is_left() -> None:
    run = overrides.apply(
        recipes.find("smol")(),
        [
            "model.gradient_checkpointing=true",
            "batches.max_tokens=400",
            "lora.quantize=true",
            "rates.vision=1e-4",
        ],
    )
    made = make_plan(run, 1, GB)
    assert not made.fits and made.changes[-1].bytes > GB
    settings = [change.setting for change in made.changes]
    assert settings == ["rates.vision=none", "model.dtype=bfloat16"], "the first allows the second"


def test_a_row_that_holds_no_tile_is_named() -> None:
    short = ["batches.max_tokens=100", "batches.max_text_tokens=64"]
    run = overrides.apply(recipes.find("smol")(), short)
    with pytest.raises(ConfigurationError, match="One tile has 144 visual tokens") as caught:
        make_plan(run, 1, 80 * GB)
    assert "batches.max_tokens to 208" in str(caught.value)


def test_what_padding_and_shrinking_leave_of_an_image() -> None:
    """Of 640 x 480 on two by two tiles a quarter is padding; each row of tokens has its newline."""
    run = recipes.find("low-resource-finetune")()
    config = planning.architecture(run.model)
    made = make_plan(run, 8, 80 * GB)
    assert made.samples.tiles == 5
    assert made.samples.visual_tokens == config.num_visual_tokens(480, 640) < 5 * 729
    assert made.step.visual_tokens == 64 * config.num_visual_tokens(480, 640)
    more = make_plan(run, 8, 80 * GB, tiles=10)
    assert more.step.visual_tokens == 2 * made.step.visual_tokens
    cells = make_plan(recipes.find("llama-3.2-1b-stage1")(), 8, 80 * GB)
    assert cells.step.visual_tokens == 729 * cells.step.tiles


def test_a_model_that_is_not_here_is_named(tmp_path: Path) -> None:
    run = overrides.apply(recipes.find("base-vlm-stage2")(), [f"model.pretrained={tmp_path}/no"])
    with pytest.raises(ConfigurationError, match="is not on this machine"):
        make_plan(run, 8, 80 * GB)


def test_an_unknown_preset_is_named() -> None:
    run = recipes.find("llama-3.2-1b-stage1")()
    with pytest.raises(ConfigurationError, match="There is no preset 'llama-2'"):
        make_plan(replace(run, model=replace(run.model, preset="llama-2")), 8, 80 * GB)


def test_the_loop_can_ask_before_step_1() -> None:
    """`check_row` alone needs no estimate."""
    run = recipes.find("smol")()
    planning.check_row(planning.architecture(run.model), run)
