"""Grounded alignment: its loss against NumPy float64, and where its tiles come from.

Losses of whole runs are in test_stage_runs.py.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
import tiny_stages as tiny
import torch
from numpy.typing import NDArray

from alignvlm.errors import InputError
from alignvlm.model.document_encoder import DocumentEncoderConfig
from alignvlm.synth import generate
from alignvlm.synth.page import Page
from alignvlm.training import grounded
from alignvlm.training.grounded import GroundedMixture, GroundedSource, GroundedTask
from alignvlm.training.labels import IGNORED

CHARACTERS = ["\n", " ", *"abcdefghijklmnopqrstuvwxyz"]


def source(pdfs: Path | None, share: float = 0.2) -> GroundedSource:
    mixture = GroundedMixture(pdfs=pdfs, pdf_share=share)
    return GroundedSource(CHARACTERS, DocumentEncoderConfig(), mixture, seed=3)


def normalised(x: NDArray, norm: torch.nn.Module) -> NDArray:
    centred = x - x.mean(-1, keepdims=True)
    scale, shift = norm.weight.detach().double().numpy(), norm.bias.detach().double().numpy()
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * scale + shift


def expected_log_probs(task: GroundedTask, tiles: NDArray) -> NDArray:
    """log P_vocab (Eq. 1) float64 [B, N, V] of uint8 tiles [B, S, S, 3], cell by cell."""
    encoder, connector = task.module["vision_model"], task.module["connector"]
    weights = {name: p.detach().double().numpy() for name, p in task.module.named_parameters()}
    height, width = tiny.GEOMETRY.cell_height_px, tiny.GEOMETRY.cell_width_px
    assert encoder.trunk.kernel_size == (height, width)
    scores = []
    for tile in tiles.astype(np.float64) / 127.5 - 1:
        for top in range(0, tiny.GEOMETRY.tile_px, height):
            for left in range(0, tiny.GEOMETRY.tile_px, width):
                cell = tile[top : top + height, left : left + width]
                seen = np.einsum("yxc,dcyx->d", cell, weights["vision_model.trunk.weight"])
                seen = np.tanh(seen + weights["vision_model.trunk.bias"])
                feature = weights["vision_model.mix.weight"] @ seen
                feature += weights["vision_model.mix.bias"]
                hidden = normalised(weights["connector.w1.weight"] @ feature, connector.norm_d)
                logits = weights["connector.w2.weight"] @ hidden
                scores.append(normalised(logits, connector.norm_v))
    found = np.array(scores).reshape(len(tiles), -1, len(tiny.CHARACTERS))
    return found - np.log(np.exp(found).sum(-1, keepdims=True))


def test_loss_weight_and_accuracy_equal_numpy() -> None:
    task = tiny.grounded_task()
    torch.manual_seed(1)
    for parameter in task.module.parameters():  # the norms too
        torch.nn.init.normal_(parameter, std=0.5)
    samples = [task.source.sample(index) for index in range(3)]
    loss = task.loss(task.source.collate(samples))

    log_probs = expected_log_probs(task, np.stack([pixels for pixels, _ in samples]))
    total, weight, right, num_text = 0.0, 0, 0, 0
    for (_, labels), cells in zip(samples, log_probs, strict=True):
        for label, cell in zip(labels.ravel(), cells, strict=True):
            if label == IGNORED:
                continue
            total -= cell[label]
            weight += 1
            num_text += label != 0
            right += label != 0 and cell.argmax() == label
    assert 0 < weight < log_probs[..., 0].size and 0 < right < num_text < weight
    assert loss.total.item() == pytest.approx(total, rel=1e-5)
    assert loss.weight == weight
    assert loss.metrics == {"accuracy": (right, num_text)}


def test_ignored_cells_have_no_gradient() -> None:
    """And every other cell has one, the empty ones too."""
    task = tiny.grounded_task()
    batch = task.source.collate([task.source.sample(0)])
    batch["pixel_values"] = batch["pixel_values"].float().requires_grad_()
    task.loss(batch).total.backward()
    strength = batch["pixel_values"].grad.abs().sum(-1)
    height, width = tiny.GEOMETRY.cell_height_px, tiny.GEOMETRY.cell_width_px
    cells = torch.nn.functional.avg_pool2d(strength, (height, width)).flatten()
    ignored = batch["labels"].flatten() == IGNORED
    assert 0 < ignored.sum() < len(ignored)
    assert torch.equal(cells == 0, ignored)


def test_tiles_without_a_label_weigh_nothing() -> None:
    task = tiny.grounded_task()
    batch = task.source.collate([task.source.sample(0)])
    batch["labels"] = torch.full_like(batch["labels"], IGNORED)
    loss = task.loss(batch)
    assert (loss.total.item(), loss.weight, loss.metrics["accuracy"]) == (0.0, 0, (0.0, 0.0))


def test_the_trunk_moves_slower_and_is_a_part_of_its_own() -> None:
    task = tiny.grounded_task()
    names = [name for name, _ in task.module.named_parameters()]
    trunk = {name for name in names if ".trunk." in name}
    assert {name: task.learning_rate_factor(name) for name in names} == {
        name: 0.3 if name in trunk else 1.0 for name in names
    }
    assert {task.part(name) for name in trunk} == {"trunk"}
    assert {task.part(name) for name in set(names) - trunk} == {"vision_model", "connector"}


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch) -> list[Page]:
    """Drawn letters in the place of PDF pages, and which were asked for."""
    drawn: list[Page] = []

    class Letters:
        def __init__(self, folder: Path, split: str) -> None:
            assert split == "train"

        def draw(self, rng: Random) -> Page:
            drawn.append(generate("letter", rng.randrange(100), "train"))
            return drawn[-1]

    monkeypatch.setattr(grounded, "PdfPages", Letters)
    return drawn


def test_tiles_are_cut_from_pdf_pages(letters: list[Page], tmp_path: Path) -> None:
    pixels, labels = source(tmp_path, share=1.0).sample(5)
    assert len(letters) == 1
    assert pixels.shape == (384, 384, 3)
    assert pixels.dtype == np.uint8
    assert (labels > 0).any()
    again, _ = source(tmp_path, share=1.0).sample(5)
    assert np.array_equal(pixels, again)


def test_a_share_of_the_tiles_is(letters: list[Page], tmp_path: Path) -> None:
    mixed = source(tmp_path, share=0.3)
    for index in range(40):
        mixed.sample(index)
    assert 4 <= len(letters) <= 20


def test_without_pdfs_nothing_changes() -> None:
    pixels, labels = source(None).sample(7)
    other, other_labels = source(None, share=1.0).sample(7)
    assert np.array_equal(pixels, other)
    assert np.array_equal(labels, other_labels)


def test_a_folder_without_pdfs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No PDF of the train split"):
        source(tmp_path)
