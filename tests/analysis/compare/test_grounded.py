from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from alignvlm.analysis.compare import Comparison, compare
from alignvlm.analysis.compare.cell import Bench
from alignvlm.analysis.compare.grounded import GroundedTokens, TokenLabels
from alignvlm.analysis.compare.summary import summarise
from alignvlm.connectors import Align
from alignvlm.errors import ConfigurationError
from alignvlm.model.document_encoder import DocumentEncoder, DocumentEncoderConfig
from alignvlm.synth import Page, generate
from alignvlm.training.labels import IGNORED
from alignvlm.training.models import build_model
from alignvlm.training.task import Source

Make = Callable[..., Comparison]

CELL = (32, 8)


def labels_of(tokenizer: PreTrainedTokenizerFast) -> TokenLabels:
    return TokenLabels(tokenizer, (6, 24), CELL)


def pages() -> Iterator[Page]:
    for seed in range(8):
        yield generate("note", seed, strength=0.0)


def test_a_row_of_cells_is_a_line_of_text(tokenizer: PreTrainedTokenizerFast) -> None:
    """Cells read from left to right, spaces aside, give the page's text."""
    make = labels_of(tokenizer)
    drawn = list(pages())
    lost = 0
    for page in drawn:
        labels = make(page)
        assert labels.shape == (6, 24)
        said = [
            tokenizer.decode([token for token in row if token not in (make.space, IGNORED)])
            for row in labels
        ]
        read = ["".join(text.split()) for text in said if text.strip()]
        true = ["".join(text.split()) for text in page.text.splitlines()]
        if (labels == IGNORED).any():
            lost += 1
        else:
            assert read == true
    assert lost <= len(drawn) // 4, "few tokens are narrower than a cell"


def test_a_token_is_named_once_under_its_middle(tokenizer: PreTrainedTokenizerFast) -> None:
    make = labels_of(tokenizer)
    seed, page = next((s, p) for s in range(300) for p in [generate("note", s, strength=0.0)]
                      if p.lines[0].text == "Total:")  # fmt: skip
    line = page.lines[0]
    labels = make(page)
    total = tokenizer.convert_tokens_to_ids("tot")  # "T" and "otal" do not merge: see conftest
    assert total not in labels, seed
    ids = tokenizer("Total:", add_special_tokens=False)["input_ids"]
    row = int((line.baseline_px - 0.5 * line.x_height_px) // CELL[0])
    assert [t for t in labels[row] if t in ids and t != make.space][: len(ids)] == ids
    first = 0.5 * (line.glyphs[0].x0 + line.glyphs[0].x1)
    assert labels[row, int(first // CELL[1])] == ids[0]


def test_text_that_follows_in_a_row_begins_with_a_space(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """As the language model writes it: the value of "Room: paid" is the token " p" and the rest."""
    make = labels_of(tokenizer)
    joined = tokenizer.convert_tokens_to_ids("Ġp")
    found = 0
    for seed in range(200):
        page = generate("note", seed, strength=0.0)
        if any(line.text.startswith("p") for line in page.lines):
            found += joined in make(page)
    assert found > 0


def test_words_without_ink_are_spaces(tokenizer: PreTrainedTokenizerFast) -> None:
    make = labels_of(tokenizer)
    page = replace(next(pages()), lines=())
    assert (make(page) == make.space).all()


class One(Source):
    """A batch of noise, always the same."""

    def sample(self, index: int) -> Any:
        return index

    def collate(self, samples: list[Any]) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng(0)
        labels = rng.integers(0, 30, (2, 144))
        labels[0, :5] = IGNORED
        pixels = rng.normal(size=(2, 3, 192, 192)).astype(np.float32)
        return {"pixel_values": torch.from_numpy(pixels), "labels": torch.from_numpy(labels)}


def test_the_loss_is_the_cross_entropy_of_cells() -> None:
    encoder = DocumentEncoder(_geometry())
    connector = Align(64, 16, 30)
    task = GroundedTokens(encoder, connector, One(), space=3, vision_factor=0.1)
    batch = One().collate([0, 1])
    loss = task.loss(batch)
    logits = connector.vocab_logits(encoder(batch["pixel_values"]).last_hidden_state)
    labels = batch["labels"].flatten()
    kept = labels != IGNORED
    by_hand = functional.nll_loss(
        logits.log_softmax(-1).flatten(0, 1)[kept], labels[kept], reduction="sum"
    )
    assert loss.total.item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert loss.weight == int(kept.sum()) == 283
    text = kept & (labels != 3)
    right = (logits.argmax(-1).flatten() == labels)[text]
    assert loss.metrics["accuracy"] == (float(right.sum()), float(text.sum()))
    assert task.learning_rate_factor("vision_model.norm.weight") == 0.1
    assert task.learning_rate_factor("connector.w1.weight") == 1.0


def test_a_frozen_encoder_stays_frozen() -> None:
    task = GroundedTokens(DocumentEncoder(_geometry()), Align(64, 16, 30), One(), 3, 0.0)
    trained = [name for name, p in task.module.named_parameters() if p.requires_grad]
    assert trained and all(name.startswith("connector.") for name in trained)


def _geometry() -> DocumentEncoderConfig:
    return DocumentEncoderConfig(
        tile_px=192, cell_height_px=CELL[0], cell_width_px=CELL[1], hidden_size=64,
        num_context_layers=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(2)
    folder = tmp_path_factory.mktemp("encoder")
    DocumentEncoder(_geometry()).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def grounded(comparison: Make, encoder: str) -> Comparison:
    """ALIGN with and without grounded steps, behind the document encoder."""
    recipe = comparison().recipe
    tiling = {"layout": "canvas", "thumbnail": False, "max_tiles": 1, "max_upscale": 1.0}
    model = replace(recipe.model, vision=encoder, tiling=tiling)
    batches = replace(recipe.batches, max_tokens=700)
    return comparison(
        recipe=replace(recipe, model=model, batches=batches), variants=("align", "align+grounded"),
        budgets=(2,), num_seeds=1, rates=(1e-3,), num_pages=2, num_validation=1, sigmas=(),
        grounded_steps=2,
    )  # fmt: skip


def test_a_grounded_cell_starts_from_what_was_learned(grounded: Comparison, out: Path) -> None:
    cell = grounded.search("align+grounded")[0]
    bench = Bench(grounded, out, "cpu", keep_models=True)
    bench.search("align+grounded")
    start = load_file(out / cell.group / "grounded" / "start.safetensors")
    assert len((out / cell.group / "grounded" / "log.jsonl").read_text().splitlines()) == 2
    trained = load_file(out / cell.name / "model" / "model.safetensors")
    fresh, _ = build_model(grounded.config(cell).model, None, seed=0)
    for name in ("w1.weight", "w2.weight"):
        first = start[f"connector.{name}"]
        own = (trained[f"model.connector.{name}"] - first).abs().max()
        before = (first - fresh.model.connector.get_parameter(name)).abs().max()
        # A step of 1e-3 after two of 1e-2, the recipe's own rate.
        assert 0 < own < 2e-3 < before


def test_it_is_compared_like_the_others(grounded: Comparison, out: Path) -> None:
    assert compare(grounded, out, "cpu")
    results = summarise(grounded, out)
    assert [row["connector"] for row in results["rows"]] == ["align", "align+grounded"]
    assert results["rows"][0]["parameters"] == results["rows"][1]["parameters"]
    assert [test["connector"] for test in results["tests"]] == ["align+grounded"] * 2
    assert not list(out.rglob("*.safetensors"))


def test_a_scaled_page_has_no_labels(comparison: Make, out: Path, encoder: str) -> None:
    recipe = comparison().recipe
    tiling = {"layout": "canvas", "thumbnail": False, "max_tiles": 1, "max_upscale": 2.0}
    model = replace(recipe.model, vision=encoder, tiling=tiling)
    made = comparison(recipe=replace(recipe, model=model), variants=("align+grounded",))
    with pytest.raises(ConfigurationError, match=r"model\.tiling\.max_upscale=1"):
        compare(made, out, "cpu")


def test_another_encoder_has_no_known_cells(comparison: Make, out: Path) -> None:
    with pytest.raises(ConfigurationError, match="ALIGN behind the document encoder"):
        compare(comparison(variants=("align+grounded",)), out, "cpu")
