"""Putting visual tokens where the text has placeholders, with every count checked.

H_input = concat(F'_align, E_text(x)) of section 3.1, for any number of images at any place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from alignvlm.errors import UsageError
from alignvlm.imaging.tiling import TileGrid

IGNORED_LABEL = -100
"""Label of positions that carry no loss, as in `torch.nn.functional.cross_entropy`."""


@dataclass(frozen=True, kw_only=True)
class SplicedInputs:
    """What the language model reads.

    Attributes:
        inputs_embeds: H [B, L, D].
        attention_mask: int64 [B, L], 1 where there is a token; None: everywhere.
        labels: int64 [B, L] aligned with H, or None where none were given.
    """

    inputs_embeds: Tensor
    attention_mask: Tensor | None
    labels: Tensor | None


def scatter(
    input_ids: Tensor,
    text_embeds: Tensor,
    images: Sequence[Tensor],
    grids: Sequence[TileGrid],
    image_token_id: int,
) -> Tensor:
    """Replaces the i-th placeholder of the batch by the i-th visual token.

    Args:
        input_ids: int64 [B, M]; each image takes as many placeholders as it has visual tokens.
        text_embeds: E_text(x) [B, M, D].
        images: visual tokens of each image [N', D], in the order of the batch.
        grids: their tile grids, for the message.
        image_token_id: the placeholder.

    Returns:
        H [B, M, D] in the dtype of `text_embeds`.

    Raises:
        UsageError: placeholders and visual tokens differ in number.
    """
    mask = input_ids == image_token_id
    needed = [len(tokens) for tokens in images]
    _check_count(int(mask.sum()), sum(needed), _describe(grids, needed))
    flat = torch.cat(tuple(images)).to(text_embeds)
    return text_embeds.masked_scatter(mask.unsqueeze(-1), flat)


def expand(
    input_ids: Tensor,
    text_embeds: Tensor,
    images: Sequence[Tensor],
    image_token_id: int,
    attention_mask: Tensor | None = None,
    labels: Tensor | None = None,
) -> SplicedInputs:
    """Replaces the i-th placeholder of the batch by all visual tokens of the i-th image.

    For condensed images, whose number of visual tokens is known only now. Rows come out with
    different lengths and are padded on the left, whatever the padding of `input_ids` was.

    Args:
        input_ids: int64 [B, M], one placeholder for each image.
        text_embeds: E_text(x) [B, M, D].
        images: visual tokens of each image [N'', D]; N'' may be 0, a blank page.
        image_token_id: the placeholder.
        attention_mask: int64 [B, M], None: no padding.
        labels: int64 [B, M]; visual tokens get `IGNORED_LABEL`.

    Raises:
        UsageError: placeholders and images differ in number.
    """
    is_image = input_ids == image_token_id
    _check_count(int(is_image.sum()), len(images), f"{len(images)} images of one placeholder each")
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    remaining = iter(images)
    rows, row_labels = [], []
    for row in range(len(input_ids)):
        kept = attention_mask[row].bool()
        places = is_image[row][kept].nonzero().flatten().tolist()
        visual = [next(remaining).to(text_embeds) for _ in places]
        rows.append(_interleave(text_embeds[row][kept], places, visual))
        if labels is not None:
            ignored = [labels.new_full((len(tokens),), IGNORED_LABEL) for tokens in visual]
            row_labels.append(_interleave(labels[row][kept], places, ignored))
    length = max(len(row) for row in rows)
    mask = [pad(row.new_ones(len(row), dtype=torch.long), (length - len(row), 0)) for row in rows]
    return SplicedInputs(
        inputs_embeds=torch.stack([pad(row, (0, 0, length - len(row), 0)) for row in rows]),
        attention_mask=torch.stack(mask),
        labels=torch.stack(
            [pad(row, (length - len(row), 0), value=IGNORED_LABEL) for row in row_labels]
        )
        if row_labels
        else None,
    )


def positions(attention_mask: Tensor) -> Tensor:
    """Position of each token among the unpadded ones, int64 [B, L]; 0 under padding."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def _interleave(text: Tensor, places: list[int], visual: list[Tensor]) -> Tensor:
    """`text` [M, ...] with the element at each of `places` replaced by a run of elements."""
    pieces, start = [], 0
    for place, run in zip(places, visual, strict=True):
        pieces += [text[start:place], run]
        start = place + 1
    return torch.cat([*pieces, text[start:]])


def _check_count(found: int, needed: int, described: str) -> None:
    if found != needed:
        raise UsageError(
            f"The text has {found} image placeholders and the images need {needed} ({described}); "
            "prepare both in one call of the processor that belongs to this model, without "
            "truncation"
        )


def _describe(grids: Sequence[TileGrid], num_tokens: Sequence[int]) -> str:
    shown = [
        f"image {number}: {grid.rows} x {grid.cols} tiles{' + thumbnail' * grid.thumbnail} = "
        f"{count} visual tokens"
        for number, (grid, count) in enumerate(zip(grids, num_tokens, strict=True), start=1)
    ]
    more = [f"{len(shown) - 4} more"] if len(shown) > 4 else []
    return "; ".join(shown[:4] + more) or "no image"
