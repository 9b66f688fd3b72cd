"""The lens's page against a parser: what a stranger's page says stays text."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alignvlm.analysis import PageLens, web, write_html, write_png
from alignvlm.analysis.lens import LensLine
from alignvlm.analysis.web import render_html

Make = Callable[..., PageLens]

PAGE_FOLDER = Path(web.__file__).parent / "page"


class Parsed(HTMLParser):
    """Scripts, text of the title, and every attribute that can make a browser fetch something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.policy = ""
        self.titles: list[str] = []
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = tag
        self.tags.append(tag)
        values = dict(attrs)
        if tag == "script":
            self.scripts.append("")
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values["content"] or ""
        self.addresses += [values[key] or "" for key in ("src", "href", "action") if key in values]

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open == "script":
            self.scripts[-1] += data
        if self._open in ("title", "h1"):
            self.titles.append(data)


HOSTILE = '</script><script>alert(1)</script><!--<script>"\\\u2028$data ${x}'


@pytest.fixture
def hostile(made_lens: Make) -> PageLens:
    words = {3: HOSTILE, 7: "<img src=x onerror=alert(2)>", 9: "\n", 11: "\ud800", 20: "e\u0301"}
    lines = (
        LensLine(text=HOSTILE, cells=(5,) * len(HOSTILE), probabilities=(0.5,) * len(HOSTILE)),
    )
    return made_lens(
        Image.new("RGB", (200, 300), "white"), words, lines=lines, source=f"<b>{HOSTILE}.png"
    )


def test_text_of_a_page_cannot_become_part_of_the_file(hostile: PageLens, made_lens: Make) -> None:
    page = render_html(hostile)
    parsed, plain = Parsed(page), Parsed(render_html(made_lens(hostile.image, {1: "a", 2: "b"})))
    assert parsed.tags == plain.tags
    assert len(parsed.scripts) == 2
    data = json.loads(parsed.scripts[0])
    assert [3, HOSTILE] in data["words"]
    assert data["lines"][0]["text"] == HOSTILE
    assert "".join(parsed.titles).count(f"<b>{HOSTILE}.png") == 2


def test_the_file_asks_for_nothing_and_runs_its_own_script_alone(hostile: PageLens) -> None:
    parsed = Parsed(render_html(hostile))
    assert len(parsed.addresses) == 1
    assert parsed.addresses[0].startswith("data:image/png;base64,")
    digest = base64.b64encode(hashlib.sha256(parsed.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in parsed.policy
    assert parsed.policy.startswith("default-src 'none'; img-src data:;")
    style = (PAGE_FOLDER / "style.css").read_text(encoding="utf-8")
    assert "url(" not in style
    assert "@import" not in style


def test_the_script_shows_text_as_text_and_knows_its_elements() -> None:
    script = "".join((PAGE_FOLDER / name).read_text(encoding="utf-8") for name in web.SCRIPTS)
    page = (PAGE_FOLDER / "page.html").read_text(encoding="utf-8")
    for unsafe in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert unsafe not in script
    named = set(re.findall(r'byId\("([\w-]+)"\)', script))
    assert len(named) > 20
    assert named <= set(re.findall(r'id="([\w-]+)"', page))


def unpacked(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype=dtype)


def test_numbers_survive_in_16_bits(made_lens: Make) -> None:
    words = {4: "a", 6: " ", 8: "b", 9: "\t", 10: "c"}
    lens = made_lens(Image.new("RGB", (100, 100)), words)
    lens.probabilities[2] = (0.001, 0.5, 0.001, 0.495, 0.001)  # almost only whitespace
    data = json.loads(Parsed(render_html(lens)).scripts[0])
    entropy = unpacked(data["entropy"], "<u2") / 65535 * math.log(data["numWords"])
    np.testing.assert_allclose(entropy, lens.entropy, atol=math.log(50) / 65535)
    cells = unpacked(data["cells"], "<u4")
    assert sorted({*range(100)} - set(cells.tolist())) == [2]
    best = unpacked(data["best"], "<u4").reshape(-1, data["topK"])
    ids = np.array([token_id for token_id, _ in data["words"]])
    np.testing.assert_array_equal(ids[best], lens.word_ids[cells])
    shares = unpacked(data["probabilities"], "<u2").reshape(-1, data["topK"]) / 65535
    np.testing.assert_allclose(shares, lens.probabilities[cells], atol=1 / 65535)


def test_the_worst_page_stays_below_3_mb(
    made_lens: Make, noise_page: Callable[[int, int], Image.Image]
) -> None:
    """A photograph of noise on which every one of nine tiles' cells says another word."""
    words = {number: f"word{number}" for number in range(140)}
    num_cells = 204 * 204  # 9 * 4608 and a little more
    ids = np.random.default_rng(0).integers(0, 140, (num_cells, 5))
    lens = made_lens(noise_page(1300, 1700), words, num_cells=num_cells, word_ids=ids)
    assert len(render_html(lens)) < 3_000_000


def test_files_are_written_whole_or_not_at_all(tmp_path: Path, reader: PageLens) -> None:
    target = tmp_path / "new" / "lens.html"
    write_html(reader, target)
    assert target.read_text(encoding="utf-8") == render_html(reader)
    write_png(reader, target.with_suffix(".png"))
    with Image.open(target.with_suffix(".png")) as picture:
        assert picture.size == (128, 120)
    taken = tmp_path / "folder"
    taken.mkdir()
    for write in (write_html, write_png):
        with pytest.raises(OSError, match="folder"):
            write(reader, taken)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "folder",
        "lens.html",
        "lens.png",
        "new",
    ]


def test_a_lone_surrogate_does_not_stop_the_file(
    tmp_path: Path, hostile: PageLens, lens_with: Make
) -> None:
    target = tmp_path / "lens.html"
    write_html(lens_with(hostile, source="a\udcff.png"), target)
    assert "a?.png" in target.read_text(encoding="utf-8")
