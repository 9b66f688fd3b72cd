from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from alignvlm.errors import MissingDependencyError
from alignvlm.synth.degrade import skew
from alignvlm.synth.fonts import ALPHABET, Font, find_fonts
from alignvlm.synth.lines import text_tile
from alignvlm.synth.page import Canvas, Line, Page, clip_lines


def ink(page: Page) -> np.ndarray:
    """Where the page is darker than nearly white: bool [height, width]."""
    return np.asarray(page.image.convert("L")) < 235


def covered(page: Page, margin: float) -> np.ndarray:
    """Where some glyph's box is, widened by a margin: bool [height, width]."""
    mask = np.zeros((page.image.height, page.image.width), dtype=bool)
    for line in page.lines:
        for glyph in line.glyphs:
            x0, y0 = int(max(0, glyph.x0 - margin)), int(max(0, glyph.y0 - margin))
            mask[y0 : int(glyph.y1 + margin + 1), x0 : int(glyph.x1 + margin + 1)] = True
    return mask


def some_faces(fonts: list[Font], num: int) -> list[Font]:
    return Random(3).sample(fonts, min(num, len(fonts)))


@pytest.mark.parametrize("scale", [1, 2])
def test_boxes_of_glyphs_hold_all_ink_and_each_some(fonts: list[Font], scale: int) -> None:
    for font in some_faces(fonts, 8):
        canvas = Canvas(900, 260, scale=scale)
        for row, font_px in enumerate((13, 21, 34)):
            canvas.text(10, 50 + 70 * row, "AVAToday, Wafer 0,12.50 $ j(f)", font, font_px)
        page = canvas.finish("tile", 0, font)
        dark = ink(page)
        assert not (dark & ~covered(page, 0.5)).any(), font
        for line in page.lines:
            assert line.text == "".join(g.char for g in line.glyphs)
            for glyph in line.glyphs:
                box = dark[int(glyph.y0) : int(glyph.y1) + 1, int(glyph.x0) : int(glyph.x1) + 1]
                assert glyph.char == " " or box.any(), (font, glyph)


def test_box_of_one_glyph_is_tight(fonts: list[Font]) -> None:
    for font in some_faces(fonts, 8):
        canvas = Canvas(120, 120)
        canvas.text(30, 80, "R", font, 40)
        page = canvas.finish("tile", 0, font)
        ys, xs = np.nonzero(np.asarray(page.image.convert("L")) < 250)
        glyph = page.lines[0].glyphs[0]
        drawn = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert np.allclose((glyph.x0, glyph.y0, glyph.x1, glyph.y1), drawn, atol=1.01), font


def test_glyphs_stand_where_a_prefix_of_the_text_ends(fonts: list[Font]) -> None:
    text = "VAult To. Type 10,5 fly"
    for font in some_faces(fonts, 12):
        sized = font.at(33)
        origins = sized.origins(text)
        for index in range(len(text)):
            prefix = sized.face.getlength(text[: index + 1]) - sized.face.getlength(text[index])
            assert origins[index] == pytest.approx(prefix, abs=0.75), (font, index)


def test_space_is_the_gap_between_its_neighbours(fonts: list[Font]) -> None:
    canvas = Canvas(300, 80)
    canvas.text(10, 50, "one two", fonts[0], 30)
    line = canvas.finish("tile", 0, fonts[0]).lines[0]
    before, space, after = line.glyphs[2:5]
    assert (space.char, space.x0, space.x1) == (" ", before.x1, after.x0)
    assert (space.y0, space.y1) == (line.baseline_px - line.x_height_px, line.baseline_px)


def test_skewed_boxes_still_hold_all_ink(fonts: list[Font]) -> None:
    font = fonts[len(fonts) // 2]
    for angle in (-1.5, 0.7, 1.5):
        canvas = Canvas(500, 300)
        for row in range(4):
            canvas.text(40, 60 + 60 * row, "Skewed Page 12.50", font, 30)
        page = skew(canvas.finish("tile", 0, font), angle)
        dark = ink(page)
        assert dark.any()
        assert not (dark & ~covered(page, 1.5)).any()
        line = page.lines[0]
        first, last = line.glyphs[0], line.glyphs[-1]
        rise = line.baseline_at(last.x0) - line.baseline_at(first.x0)
        assert rise == pytest.approx(last.y1 - first.y1, abs=1.5)
        assert (rise < 0) == (angle > 0)


def test_text_outside_of_the_sheet_is_dropped(fonts: list[Font]) -> None:
    canvas = Canvas(200, 100)
    canvas.text(-60, 50, "abcdefgh", fonts[0], 40)
    canvas.text(20, 400, "below", fonts[0], 20)
    page = canvas.finish("tile", 0, fonts[0])
    assert len(page.lines) == 1
    assert "abcdefgh".endswith(page.lines[0].text)
    assert page.lines[0].text != "abcdefgh"
    assert all(g.x0 >= 0 for g in page.lines[0].glyphs)


def test_clipping_leaves_lines_inside_untouched(fonts: list[Font]) -> None:
    canvas = Canvas(200, 100)
    canvas.text(10, 50, "inside", fonts[0], 20)
    lines: list[Line] = list(canvas.finish("tile", 0, fonts[0]).lines)
    assert clip_lines(lines, 200, 100) == lines


def test_page_text_joins_the_cells_of_a_row(fonts: list[Font]) -> None:
    canvas = Canvas(400, 200)
    canvas.text(10, 50, "Total:", fonts[0], 20)
    canvas.text(390, 50, "$12.00", fonts[0], 20, align="right")
    canvas.text(10, 90, "Thanks", fonts[0], 20)
    assert canvas.finish("tile", 0, fonts[0]).text == "Total:  $12.00\nThanks"


def test_tile_is_a_function_of_its_seed(fonts: list[Font]) -> None:
    first, again = (text_tile(Random(7), fonts) for _ in range(2))
    other = text_tile(Random(8), fonts)
    assert first.image.tobytes() == again.image.tobytes()
    assert (first.lines, first.seed) == (again.lines, again.seed)
    assert first.image.tobytes() != other.image.tobytes()


def test_tiles_hold_text_of_the_alphabet_inside_of_the_tile(fonts: list[Font]) -> None:
    rng = Random(0)
    seen: set[str] = set()
    for _ in range(30):
        page = text_tile(rng, fonts)
        assert page.image.size == (384, 384)
        assert page.image.mode == "RGB"
        for line in page.lines:
            assert line.text.strip() == line.text != ""
            seen |= set(line.text)
            x0, y0, x1, y1 = line.box
            assert x0 >= 0 and y0 >= 0 and x1 <= 384 and y1 <= 384
    assert seen <= set(ALPHABET)
    assert set(filter(str.isascii, ALPHABET)) <= seen


def test_clean_tile_has_its_ink_under_its_glyphs(fonts: list[Font]) -> None:
    """In a tile without degradation the boxes hold ink that differs from what is around them."""
    rng = Random(1)
    for _ in range(5):
        page = text_tile(rng, fonts, strength=0.0)
        grey = np.asarray(page.image.convert("L"), dtype=int)
        for line in page.lines:
            for glyph in line.glyphs:
                x0, y0, x1, y1 = (int(v) for v in (glyph.x0, glyph.y0, glyph.x1, glyph.y1))
                patch = grey[y0 : y1 + 1, x0 : x1 + 1]
                blank = glyph.char == " " or x0 < 2 or y0 < 2 or x1 > 381 or y1 > 381
                assert blank or patch.max() - patch.min() > 20, (line.text, glyph)


def test_missing_fonts_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match=r"scripts/get_fonts\.sh"):
        find_fonts("train", [tmp_path])
    Path(tmp_path, "broken.ttf").write_bytes(b"not a font")
    with pytest.raises(MissingDependencyError):
        find_fonts("heldout", [tmp_path, str(tmp_path)])


def test_image_of_a_finished_page_is_rgb_of_the_size_asked_for(fonts: list[Font]) -> None:
    image = Canvas(301, 77, scale=2).finish("tile", 0, fonts[0]).image
    assert isinstance(image, Image.Image)
    assert (image.size, image.mode) == ((301, 77), "RGB")
