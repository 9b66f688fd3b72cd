from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from alignvlm.errors import AlignVLMError, InputError, LimitError, UnsupportedImageError, UsageError
from alignvlm.imaging.sources import parse_pages, quoted, read_source, sniff
from alignvlm.limits import DEFAULT_LIMITS, Limits


def tga(**options: Any) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (300, 200)).save(buffer, "TGA", **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("spec", "numbers"),
    [
        ("1", [1]),
        ("1-3,5", [1, 2, 3, 5]),
        (" 2 - 4 , 1 ", [2, 3, 4, 1]),
        ("3,1-3,3", [3, 1, 2]),
        ("9-9", [9]),
        ("007", [7]),
    ],
)
def test_pages(spec: str, numbers: list[int]) -> None:
    assert parse_pages(spec, 9) == numbers


@pytest.mark.parametrize(
    "spec", ["", " ", "a", "0", "3-1", "0-2", "-1", "1-", "1,,2", "1-2-3", "1.5", "²", "1" * 5000]
)
@pytest.mark.parametrize("num_pages", [9, None])
def test_bad_page_lists_are_misuse(spec: str, num_pages: int | None, refused) -> None:
    with refused(UsageError, "not a list of pages"):
        parse_pages(spec, num_pages)


@pytest.mark.parametrize("spec", ["4", "1-4", "1,999999999", "1-999999999"])
def test_pages_beyond_the_last(spec: str, refused) -> None:
    with refused(InputError, r"no page \d+ in 'scan.tif': it has 3 pages"):
        parse_pages(spec, 3, "scan.tif")
    assert parse_pages(spec, None) == []


def test_one_page_is_singular() -> None:
    with pytest.raises(InputError, match=r"no page 2 in the document: it has 1 page$"):
        parse_pages("2", 1)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_any_list_of_pages_survives(numbers: list[int]) -> None:
    spec = ",".join(map(str, numbers))
    assert parse_pages(spec, 50) == list(dict.fromkeys(numbers))


@given(st.text(alphabet="0123456789-, a\n", max_size=12))
@example("1\n")
def test_any_text_is_pages_or_our_error(spec: str) -> None:
    try:
        numbers = parse_pages(spec, 20)
    except AlignVLMError:
        return
    assert numbers and len(set(numbers)) == len(numbers)
    assert all(1 <= number <= 20 for number in numbers)


def test_a_file_is_read_and_named_as_given(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "page.png").write_bytes(b"abc")
    monkeypatch.chdir(tmp_path)
    assert read_source("page.png", DEFAULT_LIMITS) == (b"abc", "page.png")
    assert read_source(Path("page.png"), DEFAULT_LIMITS) == (b"abc", "page.png")


def test_a_missing_file(refused) -> None:
    with refused(InputError, "no file 'none/page.png'"):
        read_source("none/page.png", DEFAULT_LIMITS)


def test_a_folder(tmp_path: Path, refused) -> None:
    with refused(InputError, "is a folder"):
        read_source(tmp_path, DEFAULT_LIMITS)


def test_a_file_in_place_of_a_folder(tmp_path: Path, refused) -> None:
    (tmp_path / "page.png").write_bytes(b"abc")
    with refused(InputError, "cannot be read"):
        read_source(tmp_path / "page.png" / "x", DEFAULT_LIMITS)


@pytest.mark.parametrize("name", ["a\0b", "n" * 5000])
def test_an_impossible_name(name: str, refused) -> None:
    with refused(InputError, "cannot be read"):
        read_source(name, DEFAULT_LIMITS)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_does_not_hang(tmp_path: Path, refused) -> None:
    os.mkfifo(tmp_path / "pipe")
    with refused(InputError, "pipe or a device"):
        read_source(tmp_path / "pipe", DEFAULT_LIMITS)


def test_an_unreadable_file(tmp_path: Path, monkeypatch, refused) -> None:
    def deny(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "page.png").write_bytes(b"abc")
    monkeypatch.setattr("builtins.open", deny)  # permissions do not bind an administrator
    with refused(InputError, "may not be read"):
        read_source(tmp_path / "page.png", DEFAULT_LIMITS)


def test_an_empty_file(tmp_path: Path, refused) -> None:
    (tmp_path / "page.png").touch()
    with refused(UnsupportedImageError, "is empty"):
        read_source(tmp_path / "page.png", DEFAULT_LIMITS)


def test_a_file_at_and_above_the_limit(tmp_path: Path, refused) -> None:
    path = tmp_path / "page.png"
    path.write_bytes(b"x" * 1000)
    assert len(read_source(path, Limits(max_file_bytes=1000))[0]) == 1000
    with refused(LimitError, "larger than the 0.000999 MB"):
        read_source(path, Limits(max_file_bytes=999))


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"RIFF\x0a\x00\x00\x00WEBPVP8 ", "WEBP"),
        (b"II*\0", "TIFF"),
        (b"MM\0+", "TIFF"),
        (b"GIF87a", "GIF"),
        (b"BM" + b"\x0a" * 12 + b"\x28\0\0\0", "BMP"),
        (b"%PDF-1.7", "PDF"),
        (b"\xef\xbb\xbf junk %PDF-1.7", "PDF"),
        (b"GIF89a %PDF-1.7", "GIF"),
    ],
)
def test_formats_are_told_by_content(data: bytes, kind: str) -> None:
    assert sniff(data, "page.dat") == kind


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"Dear Sir or Madam,\n", "a text file"),
        ("für Ömer\t€\r\n".encode(), "a text file"),
        (b"BMW sells cars all over the world", "a text file"),
        (b"MZ\x90\0\3", "a program"),
        (b"\x7fELF\2", "a program"),
        (b"PK\3\4\x14", "a ZIP archive or office document"),
        (b"\x1f\x8b\x08", "a compressed archive"),
        (b"8BPS\0\1", "a Photoshop image"),
        (b"%!PS-Adobe-3.0 EPSF", "a PostScript file"),
        (b"SIMPLE  =                    T", "a FITS image"),
        (b"\0\0\1\0\1\0", "an icon"),
        (b"\0\0\2\0\1\0" + bytes(30), "an icon"),  # a cursor
        (tga(), "a TGA image"),
        (tga(compression="tga_rle"), "a TGA image"),
        (b"P6\n2 2\n255\n", "a Netpbm image"),
        (b"\0\0\0\x18ftypheic", "a HEIC image"),
        (b"\0\0\0\x1cftypavif", "an AVIF image"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
        (b"<?xml version='1.0'?><svg/>", "an SVG or XML file"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"RIFF....WAVEfmt ", "a text file"),
        (b"\0\x01\x02\x03", "of an unknown format"),
        (b" " * 1024 + b"%PDF-1.7", "a text file"),
    ],
)
def test_everything_else_is_refused_by_name(data: bytes, what: str, refused) -> None:
    with refused(UnsupportedImageError, f"'page.png' is {what}, .* PNG, JPEG, WEBP"):
        sniff(data, "page.png")


def test_names_cannot_steer_a_terminal() -> None:
    assert quoted("a\x1b[2J\n\udcffb ü.png") == "'a?[2J??b ü.png'"
