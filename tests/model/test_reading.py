from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from alignvlm.model.reading import read

CHARACTERS = ["\n", " ", *"abcdefghijklmnopqrstuvwxyz0123456789"]
WORDS = {char: row for row, char in enumerate(CHARACTERS)}


def page(rows: int = 12, columns: int = 120) -> np.ndarray:
    """A page on which every cell is empty."""
    cells = np.zeros((rows, columns, len(CHARACTERS)), dtype=np.float32)
    cells[..., 0] = 1
    return cells


def say(cells: np.ndarray, row: int, column: int, char: str, share: float = 1.0) -> None:
    cells[row, column, WORDS[char]] += share
    cells[row, column, 0] -= share


def write(cells: np.ndarray, row: int, column: int, text: str, pitch: int = 2) -> None:
    for place, char in enumerate(text):
        say(cells, row, column + place * pitch, char)


def text_of(cells: np.ndarray) -> str:
    return read(cells, CHARACTERS).text


def test_blank_page_says_nothing() -> None:
    assert text_of(page()) == ""


def test_lines_and_spaces() -> None:
    cells = page()
    write(cells, 2, 4, "invoice 2005")
    write(cells, 5, 4, "total due")
    assert text_of(cells) == "invoice 2005\ntotal due"


def test_doubled_letters_in_neighbouring_cells_stay_two() -> None:
    cells = page()
    write(cells, 2, 4, "bottle 2005", pitch=1)
    assert text_of(cells) == "bottle 2005"


def test_a_character_between_two_columns_is_read_once() -> None:
    cells = page()
    write(cells, 2, 4, "abc")
    say(cells, 2, 10, "d", 0.5)
    say(cells, 2, 11, "d", 0.5)
    write(cells, 2, 12, "e")
    assert text_of(cells) == "abcde"


def test_a_character_unsure_of_two_strong_cells_is_read_once() -> None:
    cells = page()
    write(cells, 2, 4, "ab")
    say(cells, 2, 8, "c", 0.6)
    say(cells, 2, 9, "c", 0.55)
    assert text_of(cells) == "abc"


def test_a_line_between_two_rows_is_read_once() -> None:
    cells = page()
    for place, char in enumerate("straddling"):
        say(cells, 3, 4 + 2 * place, char, 0.5)
        say(cells, 4, 4 + 2 * place, char, 0.45)
    assert text_of(cells) == "straddling"


def test_close_lines_stay_two() -> None:
    cells = page()
    write(cells, 3, 4, "upper rows")
    write(cells, 4, 4, "below them")
    assert text_of(cells) == "upper rows\nbelow them"


def test_a_skewed_line_is_joined_across_rows() -> None:
    cells = page()
    write(cells, 3, 4, "going ")
    write(cells, 4, 16, "down")
    assert text_of(cells) == "going down"


def test_columns_are_kept_apart_and_in_one_row() -> None:
    cells = page()
    write(cells, 3, 4, "date")
    write(cells, 3, 40, "27")
    write(cells, 3, 60, "19")
    write(cells, 5, 4, "some longer running text")
    assert text_of(cells) == "date  27  19\nsome longer running text"


def test_a_gap_without_a_said_space_becomes_one() -> None:
    cells = page()
    write(cells, 3, 4, "two")
    write(cells, 3, 14, "words")
    assert text_of(cells) == "two words"


def test_glyphs_tell_their_cell_probability_and_second_guess() -> None:
    cells = page()
    say(cells, 2, 7, "o", 0.7)
    say(cells, 2, 7, "0", 0.2)
    (glyph,) = read(cells, CHARACTERS).rows[0][0].glyphs
    assert (glyph.char, glyph.row, glyph.column) == ("o", 2, 7)
    np.testing.assert_allclose(glyph.probability, 0.7 / 0.9, rtol=1e-5)
    assert glyph.other[0] == "0"
    np.testing.assert_allclose(glyph.other[1], 0.2 / 0.9, rtol=1e-5)


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 6), st.integers(1, 30), st.just(len(CHARACTERS))),
        elements=st.floats(0, 8, width=32),
    )
)
def test_any_distribution_can_be_read(logits: np.ndarray) -> None:
    shares = np.exp(logits)
    shares /= shares.sum(-1, keepdims=True)
    reading = read(shares, CHARACTERS)
    lines = [line for row in reading.rows for line in row]
    assert all(line.text == line.text.strip() and line.text for line in lines)
    assert sum(len(line.glyphs) for line in lines) <= 2 * shares[..., 0].size
