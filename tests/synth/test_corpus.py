from __future__ import annotations

import re
from random import Random

import pytest

from alignvlm.synth import corpus, kinds
from alignvlm.synth.fonts import ALPHABET, Split
from alignvlm.synth.generate import generate
from alignvlm.synth.kinds.base import new_context
from alignvlm.synth.kinds.series import Series, make_series
from alignvlm.synth.kinds.sheet import Sheet

SPLITS: tuple[Split, Split] = ("train", "heldout")


@pytest.mark.parametrize("split", SPLITS)
def test_sentences_can_be_drawn(split: Split) -> None:
    found = corpus.sentences(split)
    assert len(found) == len(set(found)) >= 1000
    for sentence in found:
        assert 40 <= len(sentence) <= 150
        assert set(sentence) <= set(ALPHABET)
        assert sentence[0].isupper() and sentence[-1] in ".!?"
        assert not set(sentence) & set("[]")
        # Neither cut behind an abbreviation or an initial, nor grown together with a heading.
        assert not re.search(r"\b(Mr|Mrs|Dr|St|No|Gov|Gen|Capt|Messrs|[A-Z])\.$", sentence)
        assert not re.search(r"^[A-Z][A-Z ,'&-]{5,} [A-Z][a-z]", sentence)


def test_splits_share_no_sentence_and_no_table() -> None:
    assert not set(corpus.sentences("train")) & set(corpus.sentences("heldout"))
    train, held_out = ({table.title for table in corpus.tables(split)} for split in SPLITS)
    assert len(train) > 20 and len(held_out) == 4 and not train & held_out
    sources = [{table.source for table in corpus.tables(split)} for split in SPLITS]
    assert not sources[0] & sources[1]


def test_words_are_all_those_of_the_text_once() -> None:
    words = corpus.words()
    text = set(re.findall(r"[A-Za-z]+", " ".join(corpus.sentences("train"))))
    assert len(words) == len(set(words)) > 9_000
    assert set(words) <= text
    assert "the" in words and "The" not in words
    assert "Mississippi" in words
    assert not {"don", "didn", "ll", "ve"} & set(words)  # halves of don't, didn't, I'll, we've


@pytest.mark.parametrize("split", SPLITS)
def test_tables_are_whole(split: Split) -> None:
    for table in corpus.tables(split):
        names = [name for name, _ in table.rows]
        assert len(set(names)) == len(names) >= 8, table.title
        assert len(set(table.columns)) == len(table.columns) >= 2, table.title
        for name, cells in table.rows:
            assert name == " ".join(name.split())
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
        assert all(float(cell) > 0 for row in series.cells for cell in row)


def test_the_first_rows_and_columns_of_a_series() -> None:
    series = make_series(Random(1), "train", 5, 3)
    part = series.part(2, 1)
    assert (part.rows, part.columns) == (series.rows[:2], series.columns[:1])
    assert part.cells == tuple(row[:1] for row in series.cells[:2])


@pytest.mark.parametrize("kind", ["table", "chart"])
@pytest.mark.parametrize("split", SPLITS)
def test_no_name_of_a_table_or_chart_is_cut(
    kind: str, split: Split, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question could not be answered from the page; the longest names of each table are tried."""
    request.getfixturevalue("fonts" if split == "train" else "heldout_fonts")
    num_columns = 5 if kind == "table" else 1
    num_asked = 0
    for table in corpus.tables(split):
        rows = sorted(table.rows, key=lambda row: -len(row[0]))[:7]
        cells = tuple(values[:num_columns] for _, values in rows)
        names = tuple(name for name, _ in rows)
        series = Series(table, names, table.columns[:num_columns], cells)
        monkeypatch.setattr(getattr(kinds, kind), "make_series", lambda *_, it=series: it)
        for seed in range(4):
            page = generate(kind, seed, split, 0.0)
            text = " ".join(page.text.split())
            asked = " ".join(question.question for question in page.questions)
            for name in filter(str.isascii, (*names, *(series.columns if num_columns > 1 else ()))):
                if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", asked):
                    assert name in text, (table.title, seed, name)
                    num_asked += 1
    assert num_asked > 20


def test_what_fits_to_the_last_bit_has_no_room(fonts: object) -> None:
    sheet = Sheet(new_context("table", 0, "train", (16, 16)))
    width = sheet.canvas.measure("Technetium", sheet.style.body, 12)
    assert sheet.has_room(["Technetium", "Iron"], width + 0.1)
    assert not sheet.has_room(["Iron", "Technetium"], width)


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
