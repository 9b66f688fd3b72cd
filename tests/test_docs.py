"""Pages that are read from top to bottom: their Python blocks run in order, in one namespace."""

from __future__ import annotations

import copy
import gc
import re
import runpy
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from alignvlm.connectors import registry

PAGE = Path(__file__).parents[1] / "docs" / "drop-in.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def shown(first: str = "", last: str = "") -> str:
    """The page's blocks from the heading `first` to the heading `last`, lines where they were."""
    text = PAGE.read_text(encoding="utf-8")
    start = text.index(first)
    end = text.index(last) if last else len(text)
    lines = ["" for _ in text.splitlines()]
    for block in BLOCK.finditer(text, start, end):
        row = text.count("\n", 0, block.start(1))
        code = block[1].splitlines()
        lines[row : row + len(code)] = code
    return "\n".join(lines)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory; what the page registers is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    return tmp_path


def run(place: Path, first: str = "", last: str = "") -> dict[str, Any]:
    script = place / "page.py"
    script.write_text(shown(first, last), encoding="utf-8")
    return runpy.run_path(str(script), run_name="__main__")


def test_every_block_is_found() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(BLOCK.findall(text)) == text.count("```python") >= 10


def test_the_page_runs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = run(place)
    printed = capsys.readouterr().out
    assert "['model.language_model.embed_tokens.weight']\n" in printed
    assert "torch.Size([2, 4, 48])" in printed
    assert all(f"\n{name} " in printed for name in registry.available() if name != "row_mean")

    # What was loaded is what was saved, for each of the four files.
    host, again, vlm, small = (names[name] for name in ("host", "again", "vlm", "small"))
    saved = load_file(place / "host.safetensors")
    assert again.state_dict().keys() == saved.keys()
    assert all(torch.equal(value, saved[name]) for name, value in again.state_dict().items())
    pruned, loaded = names["pruned"].connector, host.model.multi_modal_projector.align
    features = torch.randn(2, 16, 32)
    assert not loaded.needs_embeddings
    assert loaded.options() == pruned.options()
    assert torch.equal(loaded(features).visual_tokens, pruned(features).visual_tokens)
    pixels, ids = names["pixels"], names["ids"]
    assert torch.equal(vlm(pixels, ids), small(pixels, ids))
    assert small.align.num_words == 64
    assert names["answer"].shape == (2, 22)


def test_e_is_the_hosts_live_table(place: Path) -> None:
    names = run(place, "## In a transformers LLaVA", "### Save and load")
    host, ids, pixels = names["host"], names["ids"], names["pixels"]
    projector, embedding = host.model.multi_modal_projector, names["embedding"]
    features = torch.randn(1, 16, 32)

    # ALIGN alone reaches the rows of words that are in no question.
    assert not host.config.text_config.tie_word_embeddings
    host(input_ids=ids, pixel_values=pixels, labels=names["labels"]).loss.backward()
    unseen = torch.ones(512, dtype=torch.bool)
    unseen[ids.flatten()] = False
    assert unseen.sum() > 400
    assert (embedding.weight.grad[unseen].norm(dim=1) > 0).all()

    # A change of the table is seen at once, in place or as a new parameter of another dtype.
    with torch.no_grad():
        before = projector(features)
        embedding.weight.mul_(2)
        torch.testing.assert_close(projector(features), 2 * before)
        assert host.double().model.multi_modal_projector(features.double()).dtype == torch.float64

    # A deep copy reads its own table.
    twin = copy.deepcopy(host).model
    assert twin.multi_modal_projector.embedding[0] is twin.language_model.embed_tokens
    assert twin.language_model.embed_tokens is not embedding


def test_the_wrapper_makes_no_reference_cycle(place: Path) -> None:
    names = run(place, "## In a transformers LLaVA", "**Where E comes from.**")
    host = type(names["host"])(names["config"])
    projector = names["AlignProjector"](names["align"], host.get_input_embeddings())
    host.model.multi_modal_projector = projector
    seen = weakref.ref(host)
    gc.disable()
    try:
        del host, projector
        assert seen() is None
    finally:
        gc.enable()


def test_weight_decay_spares_the_vocabulary_norm(place: Path) -> None:
    names = run(place, "## In a transformers LLaVA", "### Save and load")
    decayed, spared = names["parameter_groups"](names["host"])
    align = names["align"]
    ids = {id(parameter) for parameter in spared["params"]}
    assert spared["weight_decay"] == 0 < decayed["weight_decay"]
    assert {id(align.norm_v.weight), id(align.norm_v.bias)} <= ids
    assert not {id(align.w1.weight), id(align.w2.weight), id(names["head"])} & ids
    assert len(decayed["params"]) + len(ids) == len(list(names["host"].parameters()))
