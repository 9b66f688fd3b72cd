from __future__ import annotations

import re
from itertools import islice, pairwise

import pytest

from alignvlm.errors import ConfigurationError
from alignvlm.synth import ALL_KINDS, ALPHABET, KINDS, Font, Page, generate, stream
from alignvlm.synth.fonts import HELD_OUT_FAMILIES

SEEDS = range(6)


@pytest.fixture(scope="module")
def pages(fonts: list[Font], heldout_fonts: list[Font]) -> dict[str, list[Page]]:
    assert fonts and heldout_fonts
    return {
        kind: [
            *(generate(kind, seed, "train") for seed in SEEDS),
            *(generate(kind, seed, "heldout") for seed in SEEDS),
        ]
        for kind in ALL_KINDS
    }


def test_nine_kinds_are_drawn_unasked_and_notes_by_name() -> None:
    """What draws from every kind, the default model's stages too, has no notes."""
    kinds = "easy invoice receipt form letter statement table chart text"
    assert " ".join(KINDS) == kinds
    assert " ".join(ALL_KINDS) == f"{kinds} note"


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_same_seed_same_page(kind: str, fonts: list[Font]) -> None:
    assert fonts
    first, again = generate(kind, 11), generate(kind, 11)
    assert first.image.tobytes() == again.image.tobytes()
    assert (first.lines, first.questions) == (again.lines, again.questions)
    assert first.image.tobytes() != generate(kind, 12).image.tobytes()


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_pages_have_the_size_and_the_questions_promised(
    kind: str, pages: dict[str, list[Page]]
) -> None:
    for page in pages[kind]:
        width, height = page.image.size
        assert page.kind == kind
        if kind == "easy":
            assert width <= 384 and height <= 384
            assert 3 <= len(page.questions) <= 8
            assert all(20 <= line.font_px <= 36 for line in page.lines)
        elif kind == "note":
            assert width == 192 and height <= 192
            assert 1 <= len(page.questions) <= 3
            assert all(14 <= line.font_px <= 22 for line in page.lines)
            assert {question.kind for question in page.questions} == {"extraction"}
        else:
            assert 600 <= width <= 940 and 500 <= height <= 1200
            assert 4 <= len(page.questions) <= 8


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_answers_stand_on_the_page(kind: str, pages: dict[str, list[Page]]) -> None:
    for page in pages[kind]:
        text = " ".join(page.text.split())
        for question in page.questions:
            if question.kind in ("extraction", "lookup"):
                assert question.answers[0] in text, (question, page.text)
                assert question.answers[0].strip() == question.answers[0] != ""
            elif question.kind == "count":
                assert question.answers[0].isdigit()
            else:
                assert question.kind == "yes/no"
                assert question.answers in (("Yes",), ("No",))
            assert "{" not in question.question
            assert question.question[0].isupper()


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_text_lies_inside_of_the_page_and_runs_do_not_overlap(kind: str, fonts: list[Font]) -> None:
    assert fonts
    for seed in SEEDS:
        page = generate(kind, seed, strength=0.0)
        boxes = [line.box for line in page.lines]
        for x0, y0, x1, y1 in boxes:
            assert x0 >= 0 and y0 >= 0
            assert x1 <= page.image.width and y1 <= page.image.height
        for index, a in enumerate(boxes):
            for b in boxes[:index]:
                wide = min(a[2], b[2]) - max(a[0], b[0])
                high = min(a[3], b[3]) - max(a[1], b[1])
                smaller = min(a[3] - a[1], b[3] - b[1])
                assert wide <= 2 or high <= 0.5 * smaller, (kind, seed, page.text)


def test_splits_share_no_family_and_no_page(pages: dict[str, list[Page]]) -> None:
    for kind in ALL_KINDS:
        train, heldout = pages[kind][: len(SEEDS)], pages[kind][len(SEEDS) :]
        assert not any(page.font.startswith(HELD_OUT_FAMILIES) for page in train)
        assert all(page.font.startswith(HELD_OUT_FAMILIES) for page in heldout)
        assert not {page.text for page in train} & {page.text for page in heldout}


def test_pages_are_written_in_the_alphabet(pages: dict[str, list[Page]]) -> None:
    letters = {c for kind in ALL_KINDS for page in pages[kind] for c in page.text}
    assert letters <= set(ALPHABET) | {"\n"}


def test_invoice_sums_add_up(pages: dict[str, list[Page]]) -> None:
    """The total of each invoice is its net amount and tax, to the cent, as printed."""
    checked = 0
    for seed in range(20):
        page = generate("invoice", seed, strength=0.0)
        answers = {q.question.lower(): q.answers[0] for q in page.questions}
        sums = re.findall(r"[\d.,]*\d[.,]\d\d", page.text)
        cents = [int(re.sub(r"\D", "", value)) for value in sums]
        net, tax, total = cents[-3:]
        assert net + tax == pytest.approx(total, abs=1)
        checked += bool(answers)
    assert checked == 20


def test_kinds_of_questions_are_mixed(pages: dict[str, list[Page]]) -> None:
    for kind in set(KINDS) - {"easy"}:
        asked = {question.kind for page in pages[kind] for question in page.questions}
        assert {"extraction", "lookup"} & asked, kind
        assert {"count", "yes/no"} & asked, kind


def test_stream_goes_on_with_seeds_and_kinds(fonts: list[Font]) -> None:
    assert fonts
    found = list(islice(stream(("easy", "receipt"), 40), 3))
    assert [(page.kind, page.seed) for page in found] == [
        ("easy", 40), ("receipt", 41), ("easy", 42),
    ]  # fmt: skip
    assert found[2].image.tobytes() == generate("easy", 42).image.tobytes()


def test_notes_have_one_to_three_questions(pages: dict[str, list[Page]]) -> None:
    assert {len(page.questions) for page in pages["note"]} == {1, 2, 3}


def test_lines_of_a_note_stand_32_px_apart(fonts: list[Font]) -> None:
    """So that a cell of 32 px never holds parts of two."""
    assert fonts
    for seed in range(40):
        page = generate("note", seed, strength=0.0)
        rows = sorted({round(line.baseline_px, 1) for line in page.lines})
        assert all(b - a >= 31.4 for a, b in pairwise(rows)), (seed, rows)


def test_unknown_kind_is_one_sentence() -> None:
    with pytest.raises(ConfigurationError, match=r"no document kind 'novel': use easy"):
        generate("novel", 0)
