from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignvlm.errors import UsageError
from alignvlm.imaging.tiling import TileGrid
from alignvlm.model.splice import IGNORED_LABEL, expand, positions, scatter

IMAGE = 9
ONE = TileGrid(rows=1, cols=1, thumbnail=False)


def embed(ids: torch.Tensor) -> torch.Tensor:
    """Two numbers a token: its id and 0."""
    return torch.stack((ids.float(), torch.zeros(ids.shape)), dim=-1)


def visual(*values: float) -> torch.Tensor:
    return torch.tensor([[value, 1.0] for value in values]).reshape(-1, 2)


def test_scatter_fills_placeholders_in_order() -> None:
    ids = torch.tensor([[1, IMAGE, IMAGE, 2], [IMAGE, 3, 4, IMAGE]])
    images = [visual(10, 11), visual(12), visual(13)]
    spliced = scatter(ids, embed(ids), images, [ONE] * 3, IMAGE)
    assert spliced[..., 0].tolist() == [[1, 10, 11, 2], [12, 3, 4, 13]]
    assert spliced[..., 1].tolist() == [[0, 1, 1, 0], [1, 0, 0, 1]]


def test_scatter_passes_gradients_both_ways() -> None:
    ids = torch.tensor([[1, IMAGE, 2]])
    text, image = embed(ids).requires_grad_(), visual(10).requires_grad_()
    scatter(ids, text, [image], [ONE], IMAGE).sum().backward()
    assert text.grad is not None and text.grad[0, :, 0].tolist() == [1, 0, 1]
    assert image.grad is not None and image.grad.tolist() == [[1, 1]]


def test_the_message_names_counts_and_tiles() -> None:
    ids = torch.tensor([[1, IMAGE, 2]])
    grid = TileGrid(rows=2, cols=3, thumbnail=True)
    with pytest.raises(UsageError) as caught:
        scatter(ids, embed(ids), [visual(1, 2, 3)], [grid], IMAGE)
    assert "1 image placeholders and the images need 3" in str(caught.value)
    assert "image 1: 2 x 3 tiles + thumbnail = 3 visual tokens" in str(caught.value)
    with pytest.raises(UsageError, match="2 more"):
        scatter(ids, embed(ids), [visual(1)] * 6, [ONE] * 6, IMAGE)


def test_expand_pads_on_the_left_and_aligns_labels() -> None:
    ids = torch.tensor([[0, 1, IMAGE, 2], [5, IMAGE, 6, IMAGE], [7, 8, 0, 0]])
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]])
    images = [visual(10, 11, 12), visual(), visual(13)]
    out = expand(ids, embed(ids), images, IMAGE, mask, labels=ids)
    assert out.inputs_embeds[..., 0].tolist() == [
        [1, 10, 11, 12, 2],
        [0, 0, 5, 6, 13],
        [0, 0, 0, 7, 8],
    ]
    none = IGNORED_LABEL
    assert out.labels is not None and out.attention_mask is not None
    assert out.labels.tolist() == [
        [1, none, none, none, 2],
        [none, none, 5, 6, none],
        [none, none, none, 7, 8],
    ]
    assert out.attention_mask.tolist() == [[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 1, 1]]
    with pytest.raises(UsageError, match="3 image placeholders and the images need 2"):
        expand(ids, embed(ids), images[:2], IMAGE, mask)


@given(st.lists(st.lists(st.integers(0, 4), max_size=4), min_size=1, max_size=4))
def test_expand_equals_scatter_of_runs(lengths: list[list[int]]) -> None:
    """One placeholder an image, expanded, is what a placeholder a visual token would have given."""
    images, short, long = [], [], []
    for row, counts in enumerate(lengths):
        short.append([row + 20, *[IMAGE] * len(counts), 30])
        long.append([row + 20, *[IMAGE] * sum(counts), 30])
        images += [visual(*(100.0 + len(images) + i for i in range(count))) for count in counts]
    width, total = max(map(len, short)), max(map(len, long))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in short])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in short])
    full = torch.tensor([[0] * (total - len(row)) + row for row in long])
    out = expand(ids, embed(ids), images, IMAGE, mask)
    # `cat` of no image at all has no shape
    grids = [ONE] * len(images)
    expected = scatter(full, embed(full), images, grids, IMAGE) if images else embed(full)
    assert torch.equal(out.inputs_embeds, expected)


def test_positions_ignore_padding_on_either_side() -> None:
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1]])
    assert positions(mask).tolist() == [[0, 0, 0, 1], [0, 1, 2, 2], [0, 1, 2, 3]]
