from __future__ import annotations

import datetime
import os
import re
import subprocess
import sys
from random import Random

import pytest

from alignvlm.synth import content, corpus


def test_amounts_are_written_in_three_ways() -> None:
    written = [content.amount(1234567.5, style) for style in (",", ".", "")]
    assert written == ["1,234,567.50", "1.234.567,50", "1234567.50"]


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ("%Y-%m-%d", "2024-03-05"),
        ("%d/%m/%Y", "05/03/2024"),
        ("%m/%d/%y", "03/05/24"),
        ("%e %B %Y", "5 March 2024"),
        ("%b %d, %Y", "Mar 05, 2024"),
        ("%A, %e %B %Y", "Tuesday, 5 March 2024"),
    ],
)
def test_dates_are_english_whatever_the_locale(style: str, expected: str) -> None:
    assert content.write_date(datetime.date(2024, 3, 5), style) == expected


def test_sources_are_seeded() -> None:
    makers = (
        content.run_of_text, content.code, content.date, content.email, content.money,
        content.number, content.phone, content.random_string, content.url, content.word,
    )  # fmt: skip
    for maker in makers:
        arguments = (12, "train") if maker is content.run_of_text else ()
        made = [[maker(rng, *arguments) for _ in range(20)] for rng in map(Random, (4, 4, 5))]
        assert made[0] == made[1]
        assert made[0] != made[2]


def test_sources_are_the_same_in_every_process() -> None:
    """Python orders a set of texts differently in each, and faker has one."""
    script = "import zlib; from alignvlm.synth import content; " + (
        "print(zlib.crc32(repr(content.pools()).encode()))"
    )
    made = [
        subprocess.run(
            [sys.executable, "-c", script], check=True, capture_output=True, text=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert made[0] == made[1]


def test_every_tenth_character_of_text_is_no_letter() -> None:
    """Reading digits and signs has to be learned as well as reading words."""
    rng = Random(1)
    text = " ".join(content.run_of_text(rng, 20, "train") for _ in range(200))
    letters = sum(c.isalpha() or c == " " for c in text)
    assert 0.5 < letters / len(text) < 0.9
    for char in "0123456789" + "ABCDEFGHIJKLMNOPQRSTUVWXYZ" + "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~":
        assert text.count(char) >= 5, char


def test_emails_and_addresses_are_plain() -> None:
    rng = Random(2)
    for _ in range(50):
        assert re.fullmatch(r"[\x21-\x7e]+@[a-z]+\.[a-z.]+", content.email(rng))


def test_a_sixth_of_the_runs_is_real_text_as_it_stands() -> None:
    rng = Random(3)
    text = " ".join(corpus.sentences("train"))
    runs = [content.run_of_text(rng, 6, "train") for _ in range(600)]
    # A run that goes on into a second sentence is in the text up to there.
    real = [run for run in runs if " ".join(run.split()[:2]) in text and len(run.split()) == 6]
    assert 0.12 < len(real) / len(runs) < 0.25


def test_a_sentence_is_of_its_split() -> None:
    assert content.sentence(Random(1), "train") in corpus.sentences("train")
    assert content.sentence(Random(1), "heldout") in corpus.sentences("heldout")
