"""How a connector is doing, from a few patches: do its visual tokens tell patches apart?

A fresh ALIGN gives every patch nearly the mean embedding. Measured with SmolLM2's 49,152 words,
features of drawn pages and `align_health`, W2 a copy of the head (feature: cosine of the features):

    connector                             feature   cosine          distance      exp(entropy)
    fresh, gain 1                         0.00-0.82  0.994-0.999    0.08-0.12     28,800-30,200
    fresh, gain 2                         0.00-0.82  0.90-0.98      0.17-0.34     3,900-6,900
    fresh, gain 4                         0.00-0.82  0.40-0.79      0.56-0.94     29-80
    fresh, gain 1, the default's 138      0.20-0.62  0.85-0.90      0.17-0.20     85-89
    fresh, gain 2, the default's 138      0.20-0.62  0.57-0.66      0.36-0.44     28-35
    default model, 30 tiles of pages      0.70-0.95  0.89-1.00      1.25-1.27     1.00-1.05
    default model, tiles full of text     0.47-0.62  0.73-0.90      1.19-1.25     1.06-1.16
    default model, blank tiles            0.91-0.98  1.00           1.27          1.00
    fresh MLP                             0.00-0.82  0.12-0.82      (1.99-2.18)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from alignvlm.connectors import Align, Connector, Grid
from alignvlm.connectors.pruning import THRESHOLD

__all__ = ["MAX_PATCHES", "align_health", "collapse_warning"]

MAX_PATCHES = 256
"""Patches that are looked at, evenly spaced over the batch."""

_PATCHES_AT_ONCE = 32  # the probabilities of 128,256 words are 16 MB in float32
_ROWS_AT_ONCE = 8192  # of E: the copies in float32 stay small
_FEWEST_TILES = 4  # a connector that gives every tile the same tokens shows in no single tile

# Visual tokens that agree this much, this near the mean embedding: fresh ALIGN with gain 1 (cosine
# from 0.994, distance to 0.12) and not with gain 2 (to 0.984). The default model, sure of its
# words, stays farther than 1.1 from the mean even on blank pages, where all its tokens are one.
_SAME = 0.99
_NEAR = 0.25
# All patches say the same word although their features differ. Blank patches have features alike:
# the default model's tokens agree as much only where the features' cosine is above 0.85.
_ONE_TOKEN = 0.999
_DIFFERENT_FEATURES = 0.7


@torch.no_grad()
def align_health(
    connector: Connector, features: Tensor, embeddings: Tensor, *, grid: Grid | None = None
) -> dict[str, float]:
    """Figures of a connector on at most `MAX_PATCHES` patches, ready to be logged.

    ALIGN is given 32 patches at a time, so that no N x V tensor exists; the others, which may look
    at more than one patch, whole tiles. The connector runs as in training, in its own dtype or
    autocast's, and through its `forward`, so that shards are gathered; the figures are taken in
    float32. Nothing is random, the random state is left alone.

    Args:
        connector: ALIGN or another.
        features: F [..., N, d] of a batch.
        embeddings: E [V, D].
        grid: rows and columns of the patches of a tile, for the connectors that need it.

    Returns:
        For every connector: `token_cosine`, mean cosine between the visual tokens of different
        patches; `feature_cosine`, the same of the vision features; `mean_distance`, mean distance
        of a visual token from the mean embedding, in units of the embeddings' own (root mean
        square); `norm_ratio`, mean norm of visual tokens over that of embeddings.
        For ALIGN, of P (Eq. 1), over the words in use: `entropy` in nats; `effective_words`, its
        exponential; `max_probability`, of the best word of a patch; `top_word_share`, mean
        probability of the word that has most; `num_words`, those with a mean probability of 1e-6
        or more, the words that section 5.3 of the paper counts. Means are over patches. Empty
        for a batch without features, and without cosines for one patch.
    """
    width = features.shape[-1]
    patches = _evenly(features.detach().reshape(-1, width), MAX_PATCHES)
    if len(patches) == 0:
        return {}
    if isinstance(connector, Align):
        tokens, figures = _of_align(connector, patches, embeddings)
    else:
        tiles = features.detach().reshape(-1, features.shape[-2], width)
        tiles = _evenly(tiles, max(_FEWEST_TILES, MAX_PATCHES // tiles.shape[1]))
        output = connector(tiles, embeddings=embeddings, grid=grid)
        tokens = _evenly(output.visual_tokens.flatten(0, -2), MAX_PATCHES).float()
        figures = {}
    words = _statistics(_table(connector, embeddings))
    figures["mean_distance"] = (tokens - words.mean).norm(dim=-1).mean().item() / words.spread
    figures["norm_ratio"] = tokens.norm(dim=-1).mean().item() / words.norm
    for name, rows in (("token_cosine", tokens), ("feature_cosine", patches)):
        if len(rows) > 1:
            figures[name] = _mean_cosine(rows)
    return figures


def collapse_warning(metrics: Mapping[str, float]) -> str | None:
    """One sentence if the figures of `align_health` say that the connector has collapsed.

    Two ways: all visual tokens are nearly the mean embedding, as at the start of an ALIGN with
    gain 1 over a large vocabulary; or all are one and the same although the features differ.

    Args:
        metrics: of `align_health`, or a log record in which their names begin with "health/";
            without them there is no warning.
    """
    cosine, distance, features = (
        metrics.get(f"health/{name}", metrics.get(name, math.nan))
        for name in ("token_cosine", "mean_distance", "feature_cosine")
    )
    if cosine > _SAME and distance < _NEAR:
        spread = metrics.get("health/effective_words", metrics.get("effective_words"))
        over = "" if spread is None else f", probability spread over about {spread:,.0f} words"
        return (
            f"The connector gives all patches nearly the mean embedding (cosine {cosine:.4f} "
            f"between visual tokens, {distance:.2f} of the embeddings' spread from their mean"
            f"{over}): unless this improves, raise ALIGN's gain to 2 or 4, raise the connector's "
            "learning rate, or start with grounded alignment"
        )
    if cosine > _ONE_TOKEN and features < _DIFFERENT_FEATURES:
        return (
            f"The connector gives all patches the same visual token (cosine {cosine:.4f}) although "
            f"their features differ (cosine {features:.2f}): go back to an earlier checkpoint and "
            "lower the connector's learning rate, or start with grounded alignment"
        )
    return None


class _Words(NamedTuple):
    mean: Tensor
    spread: float
    norm: float


def _of_align(
    connector: Align, patches: Tensor, embeddings: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """Visual tokens [n, D] and figures of P, both float32, from patches [n, d]."""
    tokens, entropy, best = [], [], []
    total = torch.zeros((), device=patches.device)
    for start in range(0, len(patches), _PATCHES_AT_ONCE):
        part = patches[start : start + _PATCHES_AT_ONCE]
        steps = connector(part, embeddings=embeddings, return_intermediates=True).intermediates
        probs = steps["vocab_probs"].float()
        tokens.append(steps["visual_tokens"].float())
        best.append(probs.amax(dim=-1))
        total = total + probs.sum(dim=0)
        entropy.append(torch.special.entr(probs).sum(dim=-1))
    mean = total / len(patches)
    nats = torch.cat(entropy).mean().item()
    return torch.cat(tokens), {
        "entropy": nats,
        "effective_words": math.exp(nats),
        "max_probability": torch.cat(best).mean().item(),
        "top_word_share": mean.amax().item(),
        "num_words": float((mean >= THRESHOLD).sum()),
    }


def _table(connector: Connector, embeddings: Tensor) -> Tensor:
    """The embeddings that visual tokens are compared with: those that ALIGN mixes, or all."""
    if not isinstance(connector, Align):
        return embeddings
    if connector.table is not None:
        return connector.table
    if connector.token_ids is None:
        return embeddings[: connector.vocab_size]
    return embeddings.index_select(0, connector.token_ids)


def _statistics(table: Tensor) -> _Words:
    """Mean row, root mean square distance from it, and mean norm of rows [V, D]."""
    blocks = table.detach().split(_ROWS_AT_ONCE)
    mean = sum(block.float().sum(dim=0) for block in blocks) / len(table)
    squares = sum((block.float() - mean).square().sum().item() for block in blocks)
    norms = sum(block.float().norm(dim=-1).sum().item() for block in blocks)
    smallest = torch.finfo(torch.float32).tiny  # a table that was never filled has no spread
    return _Words(mean, math.sqrt(squares / len(table)) or smallest, norms / len(table) or smallest)


def _evenly(rows: Tensor, most: int) -> Tensor:
    """At most so many rows, the first and the last among them."""
    if len(rows) <= most:
        return rows
    # As a share of n - 1 the steps are no whole number of rows, so that their places wander over
    # the columns of a grid; a step of n / most could meet one column of patches alone.
    places = [round(place * (len(rows) - 1) / (most - 1)) for place in range(most)]
    return rows[torch.tensor(places, device=rows.device)]


def _mean_cosine(rows: Tensor) -> float:
    """Mean cosine over all pairs of different rows [n, D], from the sum of the unit vectors."""
    units = functional.normalize(rows.float(), dim=-1)
    pairs = len(rows) * (len(rows) - 1)
    return (units.sum(dim=0).square().sum() - units.square().sum()).item() / pairs
