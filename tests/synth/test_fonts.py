from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from alignvlm import paths
from alignvlm.synth import fonts as fonts_module
from alignvlm.synth.fonts import ALPHABET, FONT_PACKAGES, Font, find_fonts, pick_font


def test_splits_share_no_family(fonts: list[Font], heldout_fonts: list[Font]) -> None:
    assert not {font.family for font in fonts} & {font.family for font in heldout_fonts}
    assert not {font.path for font in fonts} & {font.path for font in heldout_fonts}


def test_order_does_not_depend_on_the_order_of_folders(fonts: list[Font]) -> None:
    folders = sorted({str(Path(font.path).parent) for font in fonts})[:4]
    assert find_fonts("train", folders) == find_fonts("train", folders[::-1])


def test_alphabet_holds_printable_ascii_once() -> None:
    assert set(map(chr, range(32, 127))) <= set(ALPHABET)
    assert len(ALPHABET) == len(set(ALPHABET))


def test_packages_are_listed_once_in_order() -> None:
    assert list(FONT_PACKAGES) == sorted(set(FONT_PACKAGES))


def test_lacking_characters_are_spelled_with_others() -> None:
    font = Font(path="x.ttf", family="X", style="Regular", lacks="é€“")
    assert font.spell("plain ~ text") == "plain ~ text"
    assert font.spell("“Café” 5€") == '"Cafe” 5EUR '
    assert font.spell("Łódź Œuvre") == " ódz  uvre"
    assert set(font.spell("日本 ñ ½ \t")) <= set(ALPHABET)


def test_picking_takes_every_family_and_mostly_upright_faces(fonts: list[Font]) -> None:
    rng = Random(0)
    picked = [pick_font(rng, fonts) for _ in range(1500)]
    assert {font.family for font in picked} == {font.family for font in fonts}
    assert sum(font.handwritten for font in picked) < 0.08 * len(picked)
    assert sum(font.upright for font in picked) > 0.5 * len(picked)


def test_scan_is_remembered_and_survives_a_broken_index(
    fonts: list[Font], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, folder = tmp_path / "cache" / "fonts", tmp_path / "fonts"
    folder.mkdir()
    shutil.copy(fonts[0].path, folder / "one.ttf")
    monkeypatch.setenv("ALIGNVLM_CACHE", str(cache.parent))
    first = find_fonts("train", [folder])
    assert [font.family for font in first] == [fonts[0].family]
    index = json.loads((cache / "index.json").read_text())
    assert len(index["fonts"]) == 1
    assert not list(cache.glob("*.tmp"))

    def refuse(path: Path) -> Font | None:
        raise AssertionError(f"{path} was opened again")

    fonts_module._usable.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(fonts_module, "_inspect", refuse)
        assert find_fonts("train", [folder]) == first
    for broken in ("{", "[]", '{"version": 1, "fonts": [1]}', '{"version": 99, "fonts": {}}'):
        (cache / "index.json").write_text(broken)
        fonts_module._usable.cache_clear()
        assert find_fonts("train", [folder]) == first


def test_fonts_are_looked_for_in_the_cache(
    fonts: list[Font], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "alignvlm" / "fonts"
    folder.mkdir(parents=True)
    shutil.copy(fonts[0].path, folder / "one.ttf")
    monkeypatch.delenv("ALIGNVLM_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(fonts_module, "_SYSTEM_FOLDERS", ())
    assert [font.path for font in find_fonts("train")] == [str(folder / "one.ttf")]


def test_the_script_puts_fonts_where_they_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script as it stands, with tools that make packages instead of fetching them."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, script in {
        "apt-get": 'touch "$2_1_all.deb"',
        "dpkg-deb": 'mkdir -p "$3/usr/share/fonts"; touch "$3/usr/share/fonts/a.ttf"',
        "python3": f'exec "{sys.executable}" "$@"',
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("ALIGNVLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    script = Path(__file__).parents[2] / "scripts" / "get_fonts.sh"
    subprocess.run(["bash", str(script)], check=True)
    found = {path.relative_to(paths.cache_dir() / "fonts").parts[0]
             for path in (paths.cache_dir() / "fonts").rglob("*.ttf")}  # fmt: skip
    assert found == set(FONT_PACKAGES)
