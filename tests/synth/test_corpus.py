from __future__ import annotations

import re
from random import Random

import pytest

from alignvlm.synth import corpus
from alignvlm.synth.fonts import ALPHABET, Split
from alignvlm.synth.generate import generate
from alignvlm.synth.kinds.series import make_series

SPLITS: tuple[Split, Split] = ("train", "heldout")


@pytest.mark.parametrize("split", SPLITS)
def test_sentences_can_be_drawn(split: Split) -> None:
    found = corpus.sentences(split)
    assert len(found) == len(set(found)) >= 1000
    for sentence in found:
        assert 40 <= len(sentence) <= 150
        assert set(sentence) <= set(ALPHABET)
        assert sentence[0].isupper() and sentence[-1] in ".!?"


def test_splits_share_no_sentence_and_no_table() -> None:
    assert not set(corpus.sentences("train")) & set(corpus.sentences("heldout"))
    train, held_out = ({table.title for table in corpus.tables(split)} for split in SPLITS)
    assert len(train) > 20 and len(held_out) > 4 and not train & held_out


def test_words_are_all_those_of_the_text_once() -> None:
    words = corpus.words()
    text = set(re.findall(r"[A-Za-z]+", " ".join(corpus.sentences("train"))))
    assert len(words) == len(set(words)) > 9_000
    assert set(words) <= text
    assert "the" in words and "The" not in words
    assert "Mississippi" in words


@pytest.mark.parametrize("split", SPLITS)
def test_tables_are_whole(split: Split) -> None:
    for table in corpus.tables(split):
        names = [name for name, _ in table.rows]
        assert len(set(names)) == len(names) >= 8, table.title
        assert len(set(table.columns)) == len(table.columns) >= 2, table.title
        for name, cells in table.rows:
            assert len(cells) == len(table.columns), name
            assert all(float(cell) >= 0 for cell in cells), name
        written = (*names, *table.columns, table.title, table.head, table.unit, table.source)
        assert set("".join(written)) <= set(ALPHABET), table.title


@pytest.mark.parametrize("split", SPLITS)
def test_series_are_parts_of_their_table(split: Split) -> None:
    for seed in range(200):
        rng = Random(seed)
        num_rows, num_columns = rng.randint(3, 8), rng.randint(1, 5)
        series = make_series(rng, split, num_rows, num_columns)
        whole, names = dict(series.table.rows), [name for name, _ in series.table.rows]
        start = series.table.columns.index(series.columns[0])
        assert series.columns == series.table.columns[start : start + len(series.columns)]
        assert len(series.columns) == min(num_columns, len(series.table.columns))
        assert len(series.rows) == num_rows
        for name, cells in zip(series.rows, series.cells, strict=True):
            assert cells == whole[name][start : start + len(series.columns)]
        if series.table.ordered:
            first = names.index(series.rows[0])
            assert series.rows == tuple(names[first : first + num_rows])
        for column in range(len(series.columns)):
            assert max(series.value(row, column) for row in range(num_rows)) > 0


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", ["text", "letter"])
def test_pages_of_text_hold_real_sentences_of_their_split(
    kind: str, split: Split, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("fonts" if split == "train" else "heldout_fonts")
    own, other = (corpus.sentences(one) for one in (SPLITS if split == "train" else SPLITS[::-1]))
    pages = [" ".join(generate(kind, seed, split, 0.0).text.split()) for seed in range(6)]
    assert sum(sentence in page for page in pages for sentence in own) >= 3
    assert not any(sentence in page for page in pages for sentence in other)


def test_a_turned_table_is_asked_about_as_it_stands(heldout_fonts: object) -> None:
    """There the names of the data set's rows stand in the first row of the page."""
    counted = 0
    for seed in range(40):
        page = generate("table", seed, "heldout", 0.0)
        lines = [line.split("  ") for line in page.text.splitlines()]
        num_columns = len(lines[0]) - 1
        num_rows = next(i for i, line in enumerate(lines) if len(line) != num_columns + 1) - 1
        for question in page.questions:
            if question.kind == "count":
                rows = question.question == "How many rows of numbers are there?"
                assert question.answers[0] == str(num_rows if rows else num_columns)
                counted += 1
    assert counted > 10
