from __future__ import annotations

from random import Random

import numpy as np
from PIL import Image

from alignvlm.model.reading import read
from alignvlm.synth import Font, Glyph, Line, Page, generate
from alignvlm.synth.crop import random_crop
from alignvlm.synth.page import Canvas
from alignvlm.training.labels import IGNORED, cell_labels, labelled_reading

CHARACTERS = ["\n", " ", *(chr(code) for code in range(33, 127)), *"£€°§éèêëàâäáåçñöôóòøùûüúîïíßæ"]
WORDS = {char: row for row, char in enumerate(CHARACTERS) if row}


def labels_of(page: Page) -> np.ndarray:
    return cell_labels(
        page,
        WORDS,
        num_rows=-(-page.image.height // 8),
        num_columns=-(-page.image.width // 4),
        cell_height_px=8,
        cell_width_px=4,
        empty=0,
    )


def line(text: str, boxes: list[tuple[float, float]], baseline: float = 20.0) -> Line:
    glyphs = tuple(Glyph(c, x0, 8, x1, 20) for c, (x0, x1) in zip(text, boxes, strict=True))
    return Line(text, glyphs, baseline, 16.0, 8.0)


def page_of(*lines: Line, size: tuple[int, int] = (64, 32)) -> Page:
    return Page(Image.new("RGB", size, "white"), lines, (), "tile", 0, "none")


def test_each_character_is_named_at_the_cell_under_its_middle() -> None:
    # Middles at x = 3, 9, 17 and 16 - 8 / 2 = 16 px down: row 2, columns 0, 2, 4.
    labels = labels_of(page_of(line("abc", [(1, 5), (6, 12), (14, 20)])))
    expected = np.zeros((4, 16), dtype=int)
    expected[2, [0, 2, 4]] = WORDS["a"], WORDS["b"], WORDS["c"]
    np.testing.assert_array_equal(labels, expected)


def test_a_second_character_of_a_cell_moves_to_a_free_neighbour() -> None:
    labels = labels_of(page_of(line("il", [(4, 5), (6, 7)])))
    assert [labels[2, 1], labels[2, 2]] == [WORDS["i"], WORDS["l"]]


def test_a_cell_of_too_many_characters_is_not_trained_on() -> None:
    labels = labels_of(page_of(line("abcd", [(5, 6), (5, 6), (5, 6), (5, 6)])))
    assert labels[2, 1] == IGNORED
    assert {labels[2, 0], labels[2, 2]} == {WORDS["b"], WORDS["c"]}


def test_unknown_characters_are_not_trained_on() -> None:
    labels = labels_of(page_of(line("a中", [(1, 5), (8, 14)])))
    assert labels[2, 2] == IGNORED


def test_runs_that_stand_close_have_a_space_between_them() -> None:
    near = labels_of(page_of(line("a", [(0, 6)]), line("b", [(12, 18)])))
    far = labels_of(page_of(line("a", [(0, 6)]), line("b", [(40, 46)])))
    assert WORDS[" "] in near
    assert WORDS[" "] not in far


def test_a_page_without_text_is_empty() -> None:
    assert not labels_of(page_of()).any()


def test_drawn_text_is_under_its_labels(fonts: list[Font]) -> None:
    """The ink of a drawn word lies where the labels name its letters."""
    for font in Random(1).sample(fonts, 6):
        canvas = Canvas(384, 64)
        canvas.text(12, 40, "Hamburg 2024", font, 28, (0, 0, 0), "left")
        page = canvas.finish("tile", 0, font)
        labels, dark = labels_of(page), np.asarray(page.image.convert("L")) < 200
        rows, columns = np.nonzero(labels)
        assert "".join(CHARACTERS[i] for i in labels[rows, columns]) == "Hamburg 2024", font
        for row, column in zip(rows, columns, strict=True):
            if CHARACTERS[labels[row, column]] != " ":
                assert dark[:, 4 * column - 8 : 4 * column + 12].any(), font


def test_labels_of_whole_documents_read_back_as_their_text(fonts: list[Font]) -> None:
    for kind in ("easy", "form", "table"):
        for seed in range(3):
            page = generate(kind, seed, split="train", strength=0.0)
            reading = labelled_reading(page, CHARACTERS, (8, 4))
            known = "".join(char if char in WORDS or char == "\n" else "" for char in page.text)
            assert reading.text.split() == known.split(), (kind, seed)


def test_a_crop_keeps_text_and_picture_together(fonts: list[Font]) -> None:
    page = generate("form", 3, strength=0.0)
    part = random_crop(page, Random(5), 384)
    assert part.image.size == (384, 384)
    dark = np.asarray(part.image.convert("L")) < 200
    for glyph in (g for run in part.lines for g in run.glyphs if g.char != " "):
        assert dark[int(glyph.y0) : int(glyph.y1) + 1, int(glyph.x0) : int(glyph.x1) + 1].any()


def test_reading_of_one_hot_labels_is_certain() -> None:
    cells = np.eye(len(CHARACTERS), dtype=np.float32)[labels_of(page_of(line("a", [(1, 5)])))]
    (glyph,) = read(cells, CHARACTERS).rows[0][0].glyphs
    assert glyph.probability == 1.0
