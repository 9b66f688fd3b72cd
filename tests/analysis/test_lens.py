"""The lens: its numbers against NumPy, its boxes against the tiles, its page against a parser."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast, SiglipVisionConfig

from alignvlm.analysis import PageLens, draw_overlay, look, web, write_html, write_png
from alignvlm.analysis import lens as lens_module
from alignvlm.analysis.lens import LensLine, TilePlace, _places
from alignvlm.analysis.web import render_html
from alignvlm.connectors.align import Align
from alignvlm.errors import UsageError
from alignvlm.imaging.tiling import Tiling, choose_grid, split
from alignvlm.model import AlignVLMConfig, AlignVLMForConditionalGeneration, AlignVLMProcessor
from alignvlm.model.document_encoder import DocumentEncoderConfig

PAGE_FOLDER = Path(web.__file__).parent / "page"


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Every byte is a token, after the placeholder."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<image>", *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<image>", additional_special_tokens=["<image>"]
    )


def make_model(**options: Any) -> tuple[AlignVLMForConditionalGeneration, AlignVLMProcessor]:
    tokenizer = make_tokenizer()
    text = LlamaConfig(
        vocab_size=264,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=None,
    )
    config = AlignVLMConfig(text_config=text, image_token_id=0, **options)
    model = AlignVLMForConditionalGeneration(config).eval()
    return model, AlignVLMProcessor.build(tokenizer, config, chat_template="{{ messages }}")


def siglip() -> SiglipVisionConfig:
    """2 x 2 patches of 14 px in a tile of 30 px, which leaves 2 px without one."""
    return SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=30,
        patch_size=14,
        vision_use_head=False,
    )


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def patches() -> tuple[PageLens, np.ndarray]:
    """A SigLIP page of four tiles and a thumbnail, and its P_vocab [T*N, V]."""
    torch.manual_seed(1)
    model, processor = make_model(
        vision_config=siglip(), connector={"name": "align", "gain": 4.0}, tiling={"max_tiles": 4}
    )
    page = noise(120, 118)
    inputs = processor.image_processor(page, return_tensors="pt")
    with torch.no_grad():
        features = model.get_image_features(**inputs, return_intermediates=True)
    probs = features.intermediates["vocab_probs"].flatten(0, 1).double().numpy()
    return look(model, processor, page, source="noise.png"), probs


def test_words_and_entropies_are_those_of_the_connector(patches: Any) -> None:
    lens, probs = patches
    assert lens.num_cells == len(probs) == 5 * 4
    assert [tile.thumbnail for tile in lens.tiles] == [True, False, False, False, False]
    order = np.argsort(-probs, axis=1)[:, :5]
    expected = np.take_along_axis(probs, order, axis=1)
    np.testing.assert_allclose(lens.probabilities, expected, rtol=1e-4, atol=1e-7)
    found = np.take_along_axis(probs, lens.word_ids, axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(lens.entropy, -(probs * np.log(probs)).sum(1), rtol=1e-4)
    assert lens.num_words == 264
    assert lens.lines is None
    assert lens.text is None


def test_words_are_decoded_by_the_tokenizer(patches: Any) -> None:
    lens, _ = patches
    tokenizer = make_tokenizer()
    assert set(lens.words) == set(lens.word_ids.flatten().tolist())
    for token_id, word in lens.words.items():
        assert word == tokenizer.decode([token_id])


def test_chunks_do_not_change_what_is_said(patches: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    connector = Align(6, 8, 40).eval()
    features = torch.randn(9, 6)
    with torch.no_grad():
        whole = lens_module._say(connector, features, keep_all=True)
        monkeypatch.setattr(lens_module, "_CHUNK", 80)  # two cells at a time
        pieces = lens_module._say(connector, features, keep_all=True)
    for one, other in zip(whole, pieces, strict=True):
        torch.testing.assert_close(one, other)
    assert whole[3].shape == (9, 40)


def planted(model: Any, cells: dict[tuple[int, int], str], columns: int) -> Any:
    """A connector that says these characters at these cells of the page, 2 x 2 tiles of 8 x 16."""
    connector, tokenizer = model.model.connector, make_tokenizer()
    kept = connector.kept_ids.tolist()
    probs = torch.full((4 * 8 * 16, len(kept)), 0.001)
    probs[:, 0] = 1
    for (row, column), char in cells.items():
        tile, inside = (row // 8) * columns + column // 16, (row % 8) * 16 + column % 16
        probs[tile * 128 + inside, 0] = 0.001
        probs[tile * 128 + inside, kept.index(tokenizer.encode(char)[0])] = 1
    probs /= probs.sum(-1, keepdim=True)
    return lambda features: probs


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> PageLens:
    """A page of 2 x 2 tiles on which the connector says "Hi" across a seam, and "no" below."""
    tokenizer = make_tokenizer()
    vocabulary = [tokenizer.encode(char)[0] for char in ("\n", " ", "H", "i", "n", "o")]
    model, processor = make_model(
        vision_config=DocumentEncoderConfig(tile_px=64, hidden_size=8, num_context_layers=0),
        connector={"name": "align", "vocabulary": vocabulary},
        tiling={"layout": "canvas", "max_tiles": 4, "max_upscale": 2.0},
        condense={"prune": True, "merge": "spell"},
    )
    model.model.condenser.tokenizer = tokenizer.backend_tokenizer
    said = planted(model, {(3, 15): "H", (3, 17): "i", (12, 18): "n", (12, 20): "o"}, columns=2)
    monkeypatch.setattr(model.model.connector, "probabilities", said)
    return look(model, processor, Image.new("L", (64, 60), 255), source="page.png")


def test_text_is_read_and_its_characters_lie_where_they_were_said(reader: PageLens) -> None:
    assert reader.text == "Hi\nno"
    assert reader.grid == (8, 16)
    # Twice enlarged, a cell of 8 x 4 px covers 4 x 2 px of the page.
    corners = [tuple(reader.boxes[cell][:2]) for line in reader.lines for cell in line.cells]
    assert corners == [(30, 12), (34, 12), (36, 48), (40, 48)]
    for line in reader.lines:
        for char, cell, share in zip(line.text, line.cells, line.probabilities, strict=True):
            assert reader.words[int(reader.word_ids[cell, 0])] == char
            assert 0.9 < share <= 1
            assert not reader.blank[cell]
    assert reader.blank.sum() == reader.num_cells - 4


def test_cells_below_the_page_have_no_area(reader: PageLens) -> None:
    assert reader.image.mode == "RGB"
    left, top, right, bottom = reader.boxes[reader.on_page].T.astype(float)
    assert reader.on_page.sum() == 15 * 32  # 60 of 64 px
    assert ((right - left) * (bottom - top)).sum() == pytest.approx(64 * 60)


def test_a_model_that_does_not_say_words_is_refused() -> None:
    model, processor = make_model(vision_config=siglip(), connector={"name": "mlp"})
    with pytest.raises(UsageError, match="The connector MLP has no probabilities over words"):
        look(model, processor, noise(30, 30))


@given(
    width=st.integers(12, 250),
    height=st.integers(12, 250),
    layout=st.sampled_from(["cells", "canvas"]),
    tile_px=st.sampled_from([48, 64]),
    data=st.data(),
)
def test_boxes_lie_where_the_tiles_were_cut(
    width: int, height: int, layout: Any, tile_px: int, data: st.DataObject
) -> None:
    """On a page whose colours are its coordinates, tiles say where each of their pixels is from."""
    tiling = Tiling(tile_px=tile_px, layout=layout)
    page = np.zeros((height, width, 3), dtype=np.uint8)
    page[..., 0] = np.arange(width)
    page[..., 1] = np.arange(height)[:, None]
    page[..., 2] = 255
    tiles, grid = split(Image.fromarray(page), tiling)
    places = _places((width, height), tiling, choose_grid(width, height, tiling), (8, 4))
    assert len(places) == len(tiles) == grid.num_tiles
    index = data.draw(st.integers(0, len(tiles) - 1))
    row = data.draw(st.integers(0, tile_px // 8 - 1))
    column = data.draw(st.integers(0, tile_px // 4 - 1))
    place = places[index]
    x = place.x + (column + 0.5) * place.cell_width
    y = place.y + (row + 0.5) * place.cell_height
    left, top, right, bottom = place.part
    # The filters of `split` blur over a few pixels at the border of a tile's part.
    border = 3 * max(1.0, place.cell_width / 4)
    if not (left + border < x < right - border and top + border < y < bottom - border):
        return
    pixel = tiles[index, row * 8 + 3 : row * 8 + 5, column * 4 + 1 : column * 4 + 3].mean((0, 1))
    tolerance = 1 + place.cell_width / 4
    assert abs(pixel[0] + 0.5 - x) <= tolerance
    assert abs(pixel[1] + 0.5 - y) <= tolerance


def make_lens(image: Image.Image, words: dict[int, str], **options: Any) -> PageLens:
    """A page of one tile with 10 x 10 cells; all say the first word, sure of it."""
    num_cells = options.pop("num_cells", 100)
    side = math.isqrt(num_cells)
    ids = np.tile(np.array(list(words)[:5]), (num_cells, 1))
    probabilities = np.full(ids.shape, 0.01, dtype=np.float32)
    probabilities[:, 0] = 0.9
    place = TilePlace(
        x=0.0,
        y=0.0,
        cell_width=image.width / side,
        cell_height=image.height / side,
        part=(0, 0, image.width, image.height),
        thumbnail=False,
    )
    defaults: dict[str, Any] = {
        "image": image,
        "source": "page.png",
        "tiles": (place,),
        "grid": (side, side),
        "word_ids": ids,
        "probabilities": probabilities,
        "entropy": np.linspace(0, math.log(50), num_cells, dtype=np.float32),
        "words": words,
        "num_words": 50,
        "lines": None,
    }
    return PageLens(**defaults | options)


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
def hostile() -> PageLens:
    words = {3: HOSTILE, 7: "<img src=x onerror=alert(2)>", 9: "\n", 11: "\ud800", 20: "e\u0301"}
    lines = (
        LensLine(text=HOSTILE, cells=(5,) * len(HOSTILE), probabilities=(0.5,) * len(HOSTILE)),
    )
    return make_lens(
        Image.new("RGB", (200, 300), "white"), words, lines=lines, source=f"<b>{HOSTILE}.png"
    )


def test_text_of_a_page_cannot_become_part_of_the_file(hostile: PageLens) -> None:
    page = render_html(hostile)
    parsed, plain = Parsed(page), Parsed(render_html(make_lens(hostile.image, {1: "a", 2: "b"})))
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


def test_numbers_survive_in_16_bits() -> None:
    words = {4: "a", 6: " ", 8: "b", 9: "\t", 10: "c"}
    lens = make_lens(Image.new("RGB", (100, 100)), words)
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


def test_the_worst_page_stays_below_3_mb() -> None:
    """A photograph of noise on which every one of nine tiles' cells says another word."""
    words = {number: f"word{number}" for number in range(140)}
    num_cells = 204 * 204  # 9 * 4608 and a little more
    ids = np.random.default_rng(0).integers(0, 140, (num_cells, 5))
    lens = make_lens(noise(1300, 1700), words, num_cells=num_cells, word_ids=ids)
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
    with pytest.raises(OSError, match="folder"):
        write_html(reader, taken)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "folder",
        "lens.html",
        "lens.png",
        "new",
    ]


def test_a_lone_surrogate_does_not_stop_the_file(tmp_path: Path, hostile: PageLens) -> None:
    target = tmp_path / "lens.html"
    write_html(PageLens(**{**fields_of(hostile), "source": "a\udcff.png"}), target)
    assert "a?.png" in target.read_text(encoding="utf-8")


def test_the_overlay_draws_words_at_their_cells_and_nothing_else() -> None:
    lens = make_lens(Image.new("RGB", (200, 300), "white"), {1: "\n", 2: "X", 3: "y"})
    lens.word_ids[45] = (2, 1, 3)
    picture = draw_overlay(lens)
    assert picture.size == (400, 600)
    ink = np.asarray(picture).min(axis=2) < 200
    rows, columns = np.nonzero(ink)
    assert abs((rows.min() + rows.max()) / 2 - 4.5 * 60) < 8
    assert abs((columns.min() + columns.max()) / 2 - 5.5 * 40) < 8


def test_the_overlay_is_blue_where_it_is_sure_and_red_where_it_is_not() -> None:
    def colour(share: float) -> np.ndarray:
        lens = make_lens(Image.new("RGB", (100, 100), "white"), {1: "\n", 2: "X"})
        lens.word_ids[55] = (2, 1)
        lens.probabilities[55] = (share, 0.05)
        pixels = np.asarray(draw_overlay(lens)).reshape(-1, 3)
        return pixels[pixels.sum(axis=1).argmin()].astype(int)

    sure, unsure = colour(0.99), colour(0.3)
    assert sure[2] > sure[0]
    assert unsure[0] > unsure[2]
    assert colour(0.05).min() == 255  # too improbable to be drawn


def test_a_thumbnail_is_not_drawn_twice(patches: Any) -> None:
    lens, _ = patches
    only_thumbnail = np.where(np.arange(lens.num_cells)[:, None] < 4, lens.probabilities, 0)
    silent = PageLens(**{**fields_of(lens), "probabilities": only_thumbnail.astype(np.float32)})
    empty = PageLens(**{**fields_of(lens), "probabilities": np.zeros_like(lens.probabilities)})
    assert draw_overlay(silent).tobytes() == draw_overlay(empty).tobytes()


def fields_of(lens: PageLens) -> dict[str, Any]:
    return {name: getattr(lens, name) for name in PageLens.__dataclass_fields__}
