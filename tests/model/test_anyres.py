"""Section 5.2.2's tiling against transformers' LLaVA-OneVision and LLaVA-NeXT, and in the model."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig
from transformers.models.llava_next.modeling_llava_next import LlavaNextModel
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor

from alignvlm.connectors import available
from alignvlm.errors import ConfigurationError, UsageError
from alignvlm.imaging.tiling import TileGrid, Tiling, choose_grid
from alignvlm.model import (
    AlignVLM,
    AlignVLMConfig,
    AlignVLMForConditionalGeneration,
    AlignVLMProcessor,
    num_visual_tokens,
)
from alignvlm.model.anyres import Joining, join, joined, num_joined_tokens

Make = Callable[..., AlignVLMForConditionalGeneration]

ANYRES = {"layout": "anyres"}
PAPER = Joining(tile=(27, 27), max_tiles=9, newline=True)
# Where the published sizes are far above those of a tiny model.
SMALL: dict[str, dict[str, Any]] = {
    "align": {"gain": 4.0},
    "c_abstractor": {"num_queries": 4, "hidden_dim": 8, "depth": 1, "positions": [2, 2]},
    "ovis": {"visual_vocab_size": 40, "stride": 2},
    "perceiver": {"depth": 1, "num_latents": 3, "num_heads": 2, "head_dim": 4},
}


def random_sizes(count: int, seed: int = 0) -> list[tuple[int, int]]:
    """(height, width), even in their logarithms."""
    rng = random.Random(seed)
    return [(int(9000 ** rng.random()), int(9000 ** rng.random())) for _ in range(count)]


def reference(side: int, patch: int = 14) -> SimpleNamespace:
    """What the methods of transformers' models read of themselves."""
    pixels = side * patch
    return SimpleNamespace(
        config=SimpleNamespace(
            vision_config=SimpleNamespace(image_size=pixels, patch_size=patch),
            image_grid_pinpoints=[
                [i * pixels, j * pixels] for i in range(1, 7) for j in range(1, 7)
            ],
        )
    )


def test_ten_thousand_counts_are_llava_onevisions(tiny: SimpleNamespace) -> None:
    """Processor, its expansion of `tile_grids`, servers, configuration: all with 729 a tile."""
    siglip = AlignVLMConfig().vision_config
    image = tiny.special.index(tiny.image_token)
    config = tiny.config(vision_config=siglip, tiling=ANYRES, image_token_id=image)
    ours = AlignVLMProcessor.build(tiny.tokenizer(), config)
    theirs = SimpleNamespace(
        image_processor=SimpleNamespace(
            image_grid_pinpoints=[[384 * i, 384 * j] for i in range(1, 7) for j in range(1, 7)]
        ),
        num_image_tokens=729,
        vision_aspect_ratio="anyres_max_9",
    )
    theirs._get_unpadded_features = LlavaOnevisionProcessor._get_unpadded_features.__get__(theirs)
    sizes = [*random_sizes(10_000), (1, 1), (1, 9000), (9000, 1), (384, 384), (2304, 2304)]
    sizes += [(1640, 1476), (1592, 1791), (824, 1854)]  # whole numbers, but for float64
    tiling, joining, tile = Tiling(**config.tiling), config.joining, config.placeholders_per_tile
    assert joining == PAPER
    counted = ours._get_num_multimodal_tokens(image_sizes=sizes)
    for (height, width), count in zip(sizes, counted.num_image_tokens, strict=True):
        expected = LlavaOnevisionProcessor._get_number_of_features(theirs, height, width, 384, 384)
        assert count == ours.num_visual_tokens(height, width) == expected
        row = choose_grid(width, height, tiling).as_row()
        assert count == num_visual_tokens(TileGrid.from_row(row), tile, joining)
    assert config.num_visual_tokens(1754, 1240) == 7353
    assert max(counted.num_image_tokens) < 9000
    assert min(counted.num_image_tokens) > 729


@pytest.mark.parametrize(
    ("size", "count"),
    [
        ((384, 384), 729 + 27 * 28),
        ((480, 640), 729 + 40 * 55),  # 2 x 2: 40 of 54 rows show it
        ((1754, 1240), 729 + 96 * 69),  # 5 x 4: 135 rows, 96 of 108 columns, shrunk by 1.4055
        ((2304, 2304), 729 + 81 * 82),  # 6 x 6: 162 rows and columns, shrunk by 2
        ((100, 300), 729 + 9 * 28),  # 1 x 1: 9 of 27 rows
        ((1, 9000), 729 + 1 * 28),
    ],
)
def test_counts_by_hand(size: tuple[int, int], count: int) -> None:
    grid = choose_grid(size[1], size[0], Tiling(layout="anyres"))
    assert num_joined_tokens(grid, PAPER) == count


# transformers keeps no token of still thinner pages where tiles have few; see below.
THIN = [(7, 9, (900, 10)), (7, 9, (1, 300)), (7, 2, (20, 900)), (3, 9, (1, 300))]


@pytest.mark.parametrize(
    ("side", "budget", "size"),
    [
        (side, budget, size)
        for side in (3, 4, 7)
        for budget in (1, 9)
        for size in [(60, 60), (200, 90), (90, 200), (60, 400), (900, 100), (600, 610), (5, 3)]
    ]
    + THIN,
)
def test_joined_tokens_are_llava_onevisions(side: int, budget: int, size: tuple[int, int]) -> None:
    grid = choose_grid(size[1], size[0], Tiling(layout="anyres", tile_px=side * 14))
    joining = Joining(tile=(side, side), max_tiles=budget, newline=True)
    tokens, newline = torch.randn(grid.num_tiles, side**2, 5), torch.randn(5)
    (expected,), lengths = LlavaOnevisionModel.pack_image_features(
        reference(side), [tokens], [size], newline, f"anyres_max_{budget}"
    )
    found = join(tokens, grid, joining, newline)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert len(found) == int(lengths) == num_joined_tokens(grid, joining)


@pytest.mark.parametrize("size", [(60, 60), (200, 90), (37, 400), (900, 10), (600, 610)])
def test_joined_tokens_are_llava_nexts(size: tuple[int, int]) -> None:
    """It shrinks nothing."""
    grid = choose_grid(size[1], size[0], Tiling(layout="anyres", tile_px=42))
    joining = Joining(tile=(3, 3), max_tiles=36, newline=False)
    tokens, newline = torch.randn(grid.num_tiles, 9, 5), torch.randn(5)
    for given in (None, newline):
        (expected,), _ = LlavaNextModel.pack_image_features(
            reference(3), [tokens], [size], "full", given
        )
        assert torch.equal(join(tokens, grid, joining, given), expected)


def test_a_tile_that_is_an_image_is_llavas() -> None:
    tokens, newline = torch.randn(1, 9, 5), torch.randn(5)
    (expected,), _ = LlavaOnevisionModel.pack_image_features(
        reference(3), [tokens], [(42, 42)], newline
    )
    grid = TileGrid(rows=1, cols=1, thumbnail=False)
    joining = Joining(tile=(3, 3), max_tiles=9, newline=True)
    assert torch.equal(join(tokens, grid, joining, newline), expected)
    assert num_joined_tokens(grid, joining) == 10


def test_order_padding_and_newlines_by_hand() -> None:
    """Two tiles of 2 x 3 tokens in a row; the page fills the middle two of four columns a side."""
    grid = TileGrid(rows=1, cols=2, thumbnail=True, page_px=(30, 20))
    tokens = torch.arange(18.0).reshape(3, 6, 1)
    joining = Joining(tile=(2, 3), max_tiles=9, newline=True)
    # The canvas is twice as wide as high, the page 2/3: 2 of 6 columns show it.
    assert joined(grid, joining).left == 2
    found = join(tokens, grid, joining, torch.tensor([-1.0])).flatten().tolist()
    assert found == [0, 1, 2, 3, 4, 5, 8, 12, -1, 11, 15, -1]
    # Three times as wide as high: of 2 rows 1.33 show it, so both stay.
    wide = TileGrid(rows=1, cols=2, thumbnail=False, page_px=(20, 60))
    found = join(tokens[1:], wide, joining, None).flatten().tolist()
    assert found == [6, 7, 8, 12, 13, 14, 9, 10, 11, 15, 16, 17]


def test_padding_is_counted_in_tokens_of_either_side() -> None:
    """A page half as high as its tile: half of 8 rows, whatever the columns; and half as wide."""
    low = TileGrid(rows=1, cols=1, thumbnail=False, page_px=(50, 100))
    left = joined(low, Joining(tile=(8, 2), max_tiles=9, newline=False))
    assert (left.top, left.rows, left.left, left.columns) == (2, 4, 0, 2)
    high = TileGrid(rows=1, cols=1, thumbnail=False, page_px=(100, 50))
    left = joined(high, Joining(tile=(2, 8), max_tiles=9, newline=False))
    assert (left.top, left.rows, left.left, left.columns) == (0, 2, 2, 4)


@pytest.mark.parametrize("tile", [(2, 2), (4, 3), (27, 7), (14, 14)])
def test_no_page_is_lost(tile: tuple[int, int]) -> None:
    joining = Joining(tile=tile, max_tiles=2, newline=True)
    newline = torch.full((1,), -1.0)
    for height, width in [*random_sizes(300), (1, 9000), (9000, 1), (1, 1)]:
        grid = choose_grid(width, height, Tiling(layout="anyres"))
        tokens = torch.rand(grid.num_tiles, tile[0] * tile[1], 1)
        found = join(tokens, grid, joining, newline)
        assert len(found) == num_joined_tokens(grid, joining)
        page = found[tile[0] * tile[1] :]
        assert 0 < int((page >= 0).sum()) <= 2 * 1.1**2 * tile[0] * tile[1]
        assert int((page < 0).sum()) == joined(grid, joining).new_rows


def test_shrunk_tokens_of_align_stay_in_the_convex_hull() -> None:
    """As mixtures of embeddings, so as mixtures of mixtures; the newline is none."""
    grid = choose_grid(2304, 2304, Tiling(layout="anyres"))
    probabilities = torch.rand(grid.num_tiles, 9, 12).softmax(-1)
    joining = Joining(tile=(3, 3), max_tiles=9, newline=False)
    mixed = join(probabilities, grid, joining, None)
    assert len(mixed) == 9 + 81
    assert (mixed >= 0).all()
    torch.testing.assert_close(mixed.sum(-1), torch.ones(90))


@pytest.mark.parametrize("name", available())
def test_every_connector_makes_as_many_tokens_as_were_counted(
    name: str, tiny: SimpleNamespace, make: Make
) -> None:
    options = {**ANYRES, "max_tiles": 2, "max_side_tiles": 3}
    model = make(connector={"name": name, **SMALL.get(name, {})}, tiling=options)
    processor = AlignVLMProcessor.build(tiny.tokenizer(), model.config)
    seen = set()
    for height, width in [(28, 28), (90, 60), (84, 84), (3, 90), (100, 8), *random_sizes(6, 1)]:
        height, width = min(height, 500), min(width, 500)
        inputs = processor.image_processor(tiny.page(width, height), return_tensors="pt")
        with torch.no_grad():
            (tokens,) = model.get_image_features(**inputs).pooler_output
        assert len(tokens) == processor.num_visual_tokens(height, width)
        assert len(tokens) == model.config.num_visual_tokens(height, width)
        seen.add(len(tokens))
    assert len(seen) > 1


def test_without_a_grid_all_tokens_of_few_tiles_are_read(tiny: SimpleNamespace, make: Make) -> None:
    model = make(connector={"name": "perceiver", **SMALL["perceiver"]}, tiling=ANYRES)
    assert model.config.joining is None and model.model.image_newline is None
    assert model.config.tiling["max_grid_tiles"] == 9
    again = AlignVLMConfig(**model.config.to_dict())
    assert again.tiling == model.config.tiling
    processor = AlignVLMProcessor.build(tiny.tokenizer(), model.config)
    assert processor.num_visual_tokens(900, 900) == (9 + 1) * 3
    assert processor.image_processor.max_tiles == 9


def test_fewer_tiles_where_a_sample_is_too_long(tiny: SimpleNamespace, make: Make) -> None:
    model = make(tiling=ANYRES)
    processor = AlignVLMProcessor.build(tiny.tokenizer(), model.config)
    images = processor.image_processor
    assert images.max_tiles == 36
    tiles = []
    for limit in (100, 36, 20, 9, 4, 1):
        inputs = images(tiny.page(170, 165), return_tensors="pt", max_tiles=limit)
        tiles.append(len(inputs["pixel_values"]))
        assert tiles[-1] == images.num_tiles(165, 170, limit) <= limit + 1
        (tokens,) = model.get_image_features(**inputs).pooler_output
        ids, labels = processor.expand_placeholders(
            [5, processor.image_token_id, 6], [5, -100, 6], inputs["tile_grids"]
        )
        assert len(tokens) == processor.num_visual_tokens(165, 170, limit) == len(ids) - 2
        assert len(labels) == len(ids)
    assert tiles == [37, 37, 21, 10, 5, 2]


def batch_of(
    processor: AlignVLMProcessor, tiny: SimpleNamespace, *pages: list[Any]
) -> dict[str, Any]:
    conversations = [tiny.ask("Who?" * (1 + len(each)), *each) for each in pages]
    return processor.apply_chat_template(
        conversations,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={"padding": True},
    )


@pytest.fixture
def model(make: Make) -> AlignVLMForConditionalGeneration:
    return make(tiling={**ANYRES, "max_tiles": 3})


@pytest.fixture
def anyres(tiny: SimpleNamespace, model: AlignVLMForConditionalGeneration) -> AlignVLMProcessor:
    return AlignVLMProcessor.build(tiny.tokenizer(), model.config)


def test_a_batch_of_different_images_answers_as_one_by_one(
    tiny: SimpleNamespace, model: AlignVLMForConditionalGeneration, anyres: AlignVLMProcessor
) -> None:
    pages = [[tiny.page(28, 28)], [tiny.page(90, 170, 1), tiny.page(9, 60, 2)], []]
    batch = batch_of(anyres, tiny, *pages)
    assert batch["tile_grids"].tolist()[1:] == [[6, 4, 1, 170, 90], [3, 1, 1, 60, 9]]
    padding = batch["attention_mask"].argmax(-1).tolist()
    assert len(set(padding)) == 3 and min(padding) == 0
    with torch.no_grad():
        together = model(**batch).logits
    written = model.generate(**batch, max_new_tokens=4, do_sample=False)
    for row, (given, start) in enumerate(zip(pages, padding, strict=True)):
        alone = batch_of(anyres, tiny, given)
        with torch.no_grad():
            logits = model(**alone).logits[0]
        torch.testing.assert_close(together[row, start:], logits, rtol=1e-4, atol=1e-4)
        answer = model.generate(**alone, max_new_tokens=4, do_sample=False)[0]
        assert torch.equal(written[row, start:], answer)


def test_samples_packed_into_one_row_read_the_same(
    tiny: SimpleNamespace, model: AlignVLMForConditionalGeneration, anyres: AlignVLMProcessor
) -> None:
    one, two = (batch_of(anyres, tiny, [tiny.page(*size, 3)]) for size in [(90, 40), (170, 170)])
    packed = {
        name: torch.cat((one[name], two[name])) for name in ("pixel_values", "tile_grids")
    } | {"input_ids": torch.cat((one["input_ids"], two["input_ids"]), dim=-1)}
    with torch.no_grad():
        row, _ = model.model.embed_inputs(**packed)
        parts = [
            model.model.embed_inputs(each["input_ids"], each["pixel_values"], each["tile_grids"])[
                0
            ].inputs_embeds
            for each in (one, two)
        ]
    torch.testing.assert_close(row.inputs_embeds, torch.cat(parts, dim=1), rtol=1e-5, atol=1e-5)


def test_the_newline_ends_rows_learns_and_is_saved(
    tiny: SimpleNamespace,
    model: AlignVLMForConditionalGeneration,
    anyres: AlignVLMProcessor,
    tmp_path: Path,
) -> None:
    newline = model.model.image_newline
    assert newline.shape == (32,) and 0.5 < newline.detach().norm().item() < 2
    batch = batch_of(anyres, tiny, [tiny.page(170, 90)])
    output = model(**batch, labels=batch["input_ids"])
    grid = TileGrid.from_row(batch["tile_grids"][0].tolist())
    rows = joined(grid, model.config.joining)
    page = output.image_hidden_states[0][4:].unflatten(0, (rows.new_rows, rows.new_columns + 1))
    assert torch.equal(page[:, -1], newline.expand(rows.new_rows, -1))
    output.loss.backward()
    assert newline.grad.abs().sum() > 0
    assert all(p.grad is not None for p in model.model.connector.parameters())
    with torch.no_grad():
        newline.mul_(3)
        logits = model(**batch).logits
    model.save_pretrained(tmp_path)
    anyres.save_pretrained(tmp_path)
    loaded = AlignVLMForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded.model.image_newline, newline)
    again = AlignVLMProcessor.from_pretrained(tmp_path)
    same = batch_of(again, tiny, [tiny.page(170, 90)])
    assert torch.equal(same["input_ids"], batch["input_ids"])
    assert AutoConfig.from_pretrained(tmp_path).tiling == model.config.tiling
    with torch.no_grad():
        assert torch.equal(loaded(**same).logits, logits)


def test_without_a_newline(tiny: SimpleNamespace, make: Make) -> None:
    model = make(tiling={**ANYRES, "newline": False})
    assert "model.image_newline" not in model.state_dict()
    processor = AlignVLMProcessor.build(tiny.tokenizer(), model.config)
    batch = batch_of(processor, tiny, [tiny.page(28, 28)])
    assert len(model(**batch).image_hidden_states[0]) == 8


def test_a_blank_tile_touches_every_parameter(model: AlignVLMForConditionalGeneration) -> None:
    """Rows without images run one, so that all processes have all gradients."""
    tokens = model.get_image_features(torch.zeros(1, 3, 28, 28)).pooler_output
    assert [len(each) for each in tokens] == [5]
    tokens[0].sum().backward()
    assert model.model.image_newline.grad is not None


def test_a_built_model_has_a_newline(tiny: SimpleNamespace) -> None:
    built: Any = AlignVLM.build(
        vision=tiny.vision(),
        llm=tiny.text(),
        tiling=ANYRES,
        image_token_id=tiny.special.index(tiny.image_token),
    )
    newline = built.model.image_newline
    assert not newline.is_meta and newline.dtype == built.lm_head.weight.dtype
    assert 0.5 < newline.detach().norm().item() < 2


def test_grids_without_sizes_are_refused(model: AlignVLMForConditionalGeneration) -> None:
    grids: Tensor = torch.tensor([[1, 1, 1]])
    with pytest.raises(UsageError, match="no image sizes"):
        model.get_image_features(torch.zeros(2, 3, 28, 28), grids)


def test_joined_tokens_are_not_condensed(tiny: SimpleNamespace) -> None:
    with pytest.raises(ConfigurationError, match="cannot be condensed"):
        tiny.config(tiling=ANYRES, condense={"prune": True})


def test_other_layouts_are_written_as_before(tiny: SimpleNamespace) -> None:
    """A configuration saved before there was anyres is saved the same again."""
    assert list(tiny.config().tiling) == [
        "tile_px",
        "max_tiles",
        "covering_threshold",
        "thumbnail",
        "layout",
        "max_upscale",
        "pad_value",
    ]
