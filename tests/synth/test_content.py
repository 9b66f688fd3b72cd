from __future__ import annotations

import datetime
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from alignvlm.synth import content


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
        arguments = (12,) if maker is content.run_of_text else ()
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
    text = content.run_of_text(Random(1), 4000)
    letters = sum(c.isalpha() or c == " " for c in text)
    assert 0.5 < letters / len(text) < 0.9
    for char in "0123456789" + "ABCDEFGHIJKLMNOPQRSTUVWXYZ" + "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~":
        assert text.count(char) >= 5, char


def test_emails_and_addresses_are_plain() -> None:
    rng = Random(2)
    for _ in range(50):
        assert re.fullmatch(r"[\x21-\x7e]+@[a-z]+\.[a-z.]+", content.email(rng))


SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def no_system_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A system without a word list, and an empty cache."""
    monkeypatch.setattr(content, "_WORD_LISTS", (tmp_path / "words",))
    monkeypatch.setenv("ALIGNVLM_CACHE", str(tmp_path / "cache"))
    content.pools.cache_clear()
    yield tmp_path
    content.pools.cache_clear()


def test_the_word_list_that_the_script_fetches_is_read(
    no_system_words: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The script as it stands, with tools that make packages instead of fetching them."""
    tools = no_system_words / "bin"
    tools.mkdir()
    words = "$3/usr/share/dict"
    for name, script in {
        "apt-get": 'touch "$2_1_all.deb"',
        "dpkg-deb": f"""mkdir -p "{words}"; touch "$3/a.ttf"
            case $2 in wamerican_*) printf "apple\\npear's\\na\\nfigs\\n" ;; *) echo no ;; esac \\
            > "{words}/american-english" """,
        "python3": f'exec "{sys.executable}" "$@"',
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["bash", str(SCRIPTS / "get_fonts.sh")], check=True, env=os.environ | {"PATH": path}
    )
    capfd.readouterr()
    assert content.pools().words == ("apple", "figs")
    assert capfd.readouterr().err == ""


def test_the_systems_word_list_comes_first(
    no_system_words: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fetched = no_system_words / "cache" / "fonts" / content._FETCHED_WORD_LIST
    fetched.parent.mkdir(parents=True)
    fetched.write_text("apple\n")
    assert content._words() == ("apple",)
    (no_system_words / "words").write_text("quince\n")
    assert content._words() == ("quince",)
    assert capfd.readouterr().err == ""


def test_words_of_faker_are_announced_once(
    no_system_words: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first, again = content.word(Random(1)), content.word(Random(1))
    assert first == again and len(content.pools().words) > 500
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert "No list of English words was found" in err and "bash scripts/get_fonts.sh" in err
