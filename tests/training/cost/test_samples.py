"""Steps and averages from what is known of the sources, and from their files where nothing is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from alignvlm.errors import ConfigurationError
from alignvlm.imaging.tiling import Tiling, num_tiles
from alignvlm.training import overrides, recipes
from alignvlm.training.configuration import DataPart
from alignvlm.training.cost.samples import KNOWN, samples, typical


def cells(width: int, height: int) -> tuple[int, int]:
    """The paper's tiles, ten visual tokens each."""
    tiles = num_tiles(width, height, Tiling())
    return tiles, 10 * tiles


@pytest.mark.parametrize(
    ("recipe", "steps"),
    [
        ("llama-3.2-1b-stage1", 15_821),  # 8.1 M / 512
        ("llama-3.2-1b-stage2", 14_649),  # 7.5 M / 512
        ("llama-3.2-3b-stage2", 29_297),  # 7.5 M / 256
        ("llama-3.2-1b-stage3", 5_567),  # 5 x 570 k / 512
        ("llama-3.2-3b-stage3", 11_133),
        ("low-resource-pretrain", 2_181),  # 558,128 / 256
        ("low-resource-finetune", 12_177),  # 779,289 / 64
        ("smol", 4_000),
    ],
)
def test_steps(recipe: str, steps: int) -> None:
    assert samples(recipes.find(recipe)(), cells).num_steps == steps


def test_a_blend_ends_with_its_first_source() -> None:
    found = samples(recipes.find("llama-3.2-3b-vcr")(), cells)
    assert found.epoch_size == 570_000 * 6 // 5
    one, other = KNOWN["docdownstream"], KNOWN["vcr"]
    assert found.text_tokens == pytest.approx((5 * one.text_tokens + other.text_tokens) / 6)
    tiles = [num_tiles(*source.page_px, Tiling()) for source in (one, other)]
    assert found.tiles == pytest.approx((5 * tiles[0] + tiles[1]) / 6)
    assert found.visual_tokens == pytest.approx(10 * found.tiles)
    shares = [share for share, _ in typical(recipes.find("llama-3.2-3b-vcr")())]
    assert shares == pytest.approx([5 / 6, 1 / 6])


def test_without_weights_every_sample_counts_once() -> None:
    run = recipes.find("low-resource-pretrain")()
    both = replace(run, data=(*run.data, DataPart(source="llava_next", path="x")))
    assert samples(both, cells).epoch_size == 558_128 + 779_289


def test_what_is_said_goes_before_what_is_assumed() -> None:
    run = recipes.find("llama-3.2-1b-stage1")()
    found = samples(run, cells, tiles=2.5, text_tokens=33, num_samples=5120)
    assert (found.tiles, found.text_tokens, found.epoch_size, found.num_steps) == (
        2.5,
        33,
        5120,
        10,
    )
    assert found.visual_tokens == 25
    assert samples(overrides.apply(run, ["num_steps=7"]), cells).num_steps == 7
    assert samples(overrides.apply(run, ["epochs=0.5"]), cells).num_steps == 7911


def test_files_are_counted_where_nothing_is_known(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for _ in range(100)), "utf-8")
    run = recipes.find("llama-3.2-1b-stage3")()
    mine = replace(run, data=(DataPart(source="messages", path=str(path)),), epochs=1)
    assert samples(mine, cells).epoch_size == 100
    assert samples(mine, cells).num_steps == 1
    missing = replace(mine, data=(DataPart(source="messages", path=str(tmp_path / "no.jsonl")),))
    with pytest.raises(ConfigurationError, match=r"docs/data\.md"):
        samples(missing, cells)


def test_a_long_text_is_cut_to_what_the_run_lets_in() -> None:
    run = overrides.apply(recipes.find("llama-3.2-1b-stage2")(), ["batches.max_text_tokens=100"])
    assert samples(run, cells).text_tokens == 100
    assert [sample.text_tokens for _, sample in typical(run)] == [100]


def test_a_source_without_end_needs_steps() -> None:
    run = recipes.find("smol")()
    assert samples(run, cells).epoch_size is None
    with pytest.raises(ConfigurationError, match="set num_steps"):
        samples(replace(run, num_steps=None), cells)
    pages = replace(run.data[0], options={"kinds": ["easy"], "num_pages": 80})
    assert samples(replace(run, num_steps=None, data=(pages,)), cells).num_steps == 20
