from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from alignvlm.errors import ConfigurationError, InputError, UsageError
from alignvlm.imaging.decode import load_pages
from alignvlm.imaging.tiling import Tiling, split
from alignvlm.model import AlignVLMImageProcessor
from alignvlm.model.image_processing import to_rgb


@pytest.fixture
def processor() -> AlignVLMImageProcessor:
    return AlignVLMImageProcessor(tiling={"tile_px": 28})


def test_tiles_of_all_images_follow_each_other(
    processor: AlignVLMImageProcessor, tiny: SimpleNamespace
) -> None:
    pages = [tiny.page(60, 40), tiny.page(20, 20), tiny.page(30, 100)]
    output = processor([pages[:2], pages[2:]], return_tensors="pt")
    tiles, grids = zip(*(split(page, Tiling(tile_px=28)) for page in pages), strict=True)
    expected = np.concatenate(tiles).astype(np.float32) / 127.5 - 1
    torch.testing.assert_close(
        output["pixel_values"], torch.from_numpy(expected).permute(0, 3, 1, 2), atol=1e-6, rtol=0
    )
    assert output["pixel_values"].dtype == torch.float32
    assert output["tile_grids"].dtype == torch.int64
    assert output["tile_grids"].tolist() == [[g.rows, g.cols, int(g.thumbnail)] for g in grids]


def test_canvas_layout_reaches_the_tiler(tiny: SimpleNamespace) -> None:
    options = {"tile_px": 28, "layout": "canvas", "max_upscale": 1.0}
    output = AlignVLMImageProcessor(tiling=options)(tiny.page(60, 40), return_tensors="np")
    assert output["tile_grids"].tolist() == [[2, 3, 0]]
    assert output["pixel_values"][-1, :, -1, -1].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("kind", ["pil", "array", "planes", "tensor", "file"])
def test_every_kind_of_image_gives_the_same(
    processor: AlignVLMImageProcessor, tiny: SimpleNamespace, tmp_path: Path, kind: str
) -> None:
    page = tiny.page(60, 40)
    array = np.asarray(page)
    page.save(tmp_path / "page.png")
    kinds: dict[str, Any] = {
        "pil": page,
        "array": array,
        "planes": array.transpose(2, 0, 1),
        "tensor": torch.tensor(array),
        "file": str(tmp_path / "page.png"),
    }
    expected = processor(page, return_tensors="pt")
    output = processor(kinds[kind], return_tensors="pt")
    assert torch.equal(output["pixel_values"], expected["pixel_values"])


def test_modes_become_rgb_on_white() -> None:
    clear = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert to_rgb(clear).getpixel((0, 0)) == (255, 255, 255)
    assert to_rgb(Image.new("L", (2, 2), 7)).getpixel((0, 0)) == (7, 7, 7)
    assert to_rgb(np.full((2, 2, 1), 7, dtype=np.uint8)).getpixel((0, 0)) == (7, 7, 7)
    assert to_rgb(np.zeros((2, 2, 4), dtype=np.uint8)).getpixel((0, 0)) == (255, 255, 255)


def test_images_in_memory_are_prepared_like_files(
    processor: AlignVLMImageProcessor, tiny: SimpleNamespace, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: the first row is the right side
    tiny.page(60, 40).save(tmp_path / "turned.png", exif=exif)
    grey = np.linspace(0, 65535, 60 * 40, dtype=np.uint16).reshape(40, 60)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    for name, size in (("turned.png", (40, 60)), ("grey.png", (60, 40))):
        page = next(load_pages(tmp_path / name)).image
        with Image.open(tmp_path / name) as image:
            ours = to_rgb(image)
        assert ours.size == size
        for again in (ours, to_rgb(ours)):
            assert np.array_equal(np.asarray(again), np.asarray(page))


def test_samples_of_32_bits_are_refused() -> None:
    with pytest.raises(InputError, match="The image has 32 bits a sample"):
        to_rgb(Image.new("F", (2, 2)))


@pytest.mark.parametrize("array", [np.zeros((4, 4, 3)), np.zeros((5, 5, 7), dtype=np.uint8)])
def test_other_arrays_are_refused(array: np.ndarray) -> None:
    with pytest.raises(InputError, match="uint8 with 1, 3 or 4 channels"):
        to_rgb(array)


@pytest.mark.parametrize(
    "address", ["http://localhost/a.png", "file:///etc/a.png", "data:image/png;base64,AAAA"]
)
def test_addresses_are_never_opened(processor: AlignVLMImageProcessor, address: str) -> None:
    with pytest.raises(UsageError, match="local files only"):
        processor(address)


def test_wrong_options_fail_at_once() -> None:
    with pytest.raises(ConfigurationError, match="max_tiles"):
        AlignVLMImageProcessor(tiling={"max_tiles": 0})


def test_counts_without_pixels(processor: AlignVLMImageProcessor, tiny: SimpleNamespace) -> None:
    grids = processor(tiny.page(60, 40), return_tensors="np")["tile_grids"]
    assert processor.num_tiles(height=40, width=60) == grids[0, 0] * grids[0, 1] + grids[0, 2]
