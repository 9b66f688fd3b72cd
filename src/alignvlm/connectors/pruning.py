"""Pruned ALIGN (Table 4): only the words that patches ever say, at the full model's temperature.

"Out of 128K vocabulary tokens ... only 3.4K" have a mean probability of 1e-6 or more over the
patches of 100 document images (section 5.3); the others are taken out at evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from alignvlm.connectors.align import Align
from alignvlm.connectors.mixture import weight_statistics
from alignvlm.errors import ConfigurationError

__all__ = ["THRESHOLD", "Pruned", "mean_probabilities", "prune"]

THRESHOLD = 1e-6
"""Mean probability below which a word is left out; section 5.3 of the paper."""

_TOKENS = 64  # at a time: the probabilities of 128,256 words are 33 MB in float32


class Pruned(NamedTuple):
    """Result of `prune`.

    Attributes:
        connector: an `Align` of k words.
        kept_ids: their token ids, int64 [k], in the order of the unpruned connector's rows.
        dropped_mass: the probability that the dropped words had together, on the average patch;
            the softmax now spreads it over the kept ones in proportion.
    """

    connector: Align
    kept_ids: Tensor
    dropped_mass: float


@torch.no_grad()
def mean_probabilities(connector: Align, batches: Iterable[Tensor]) -> Tensor:
    """Probability of each word on the average patch, float64 [V'].

    Args:
        connector: the connector.
        batches: vision features [..., N, d] of some pages; the paper takes 100 document images.

    Raises:
        ConfigurationError: there is no patch.
    """
    total = torch.zeros(connector.num_words, dtype=torch.float64)
    num_patches = 0
    for features in batches:
        for patches in features.reshape(-1, features.shape[-1]).split(_TOKENS):  # type: ignore[no-untyped-call]
            if len(patches) > 0:
                total += connector.probabilities(patches).sum(0).cpu().double()
                num_patches += len(patches)
    if num_patches == 0:
        raise ConfigurationError(
            "Mean probabilities need patches and none were given: pass the vision features of a "
            "few pages, e.g. of 100 document images as the paper does"
        )
    return total / num_patches


@torch.no_grad()
def prune(
    connector: Align,
    probabilities: Tensor,
    *,
    threshold: float | None = None,
    keep: int | None = None,
    embeddings: Tensor | None = None,
    statistics_of: str = "all",
) -> Pruned:
    """A connector that keeps the rows of W2, LN_V and E of the probable words alone.

    Args:
        connector: a trained ALIGN; it is not changed.
        probabilities: of its words, [V'] or [..., V'], averaged over all but the last dimension,
            e.g. from `mean_probabilities`.
        threshold: keep the words with at least this mean probability; `THRESHOLD` unless `keep`
            says how many.
        keep: keep so many words, the most probable ones.
        embeddings: E [V, D]: its rows become a parameter of the connector, which then needs no
            table of the language model. None: they are looked up there, as before.
        statistics_of: "all": LN_V's mean and variance stay those of all V logits, so that the
            kept logits do not change and only the dropped probability is lost; "kept": they are
            taken over the kept rows, another temperature: the cruder reading of section 5.3,
            which does not say which of the two was done.

    Raises:
        ConfigurationError: no word is left, an argument is out of range, or the connector cannot
            be pruned (again) in this way.
    """
    _check(connector, statistics_of)
    if embeddings is not None:
        connector.check_embeddings(embeddings)
    mean = _mean(connector, probabilities)
    rows = _rows(connector, mean, threshold, keep)
    options = {
        **connector.options(),
        "vocabulary": connector.kept_ids[rows].tolist(),
        "excluded": (),
        "full_statistics": statistics_of == "all",
        "own_table": embeddings is not None or not connector.needs_embeddings,
    }
    pruned = Align(connector.vision_dim, connector.text_dim, connector.vocab_size, **options)
    pruned.to(device=connector.w2.weight.device, dtype=connector.w2.weight.dtype)
    _copy(connector, pruned, rows, embeddings)
    return Pruned(pruned, pruned.kept_ids, mean.index_fill(0, rows, 0).sum().item())


def _mean(connector: Align, probabilities: Tensor) -> Tensor:
    """Mean probability of each word, float64 [V'], on the CPU: not every device has float64."""
    words = connector.num_words
    if probabilities.ndim == 0 or probabilities.shape[-1] != words or not probabilities.numel():
        raise ConfigurationError(
            f"This Align has {words} words and probabilities of shape {list(probabilities.shape)} "
            "were given: pass one for each word, e.g. from mean_probabilities"
        )
    mean = probabilities.detach().cpu().double().reshape(-1, words).mean(0)
    if not (torch.isfinite(mean).all() and (mean >= 0).all() and abs(mean.sum() - 1) < 1e-2):
        raise ConfigurationError(
            f"The words' probabilities are no distribution, they sum to {mean.sum().item():.4g}: "
            "pass Align's own, not logits"
        )
    return mean


def _rows(connector: Align, mean: Tensor, threshold: float | None, keep: int | None) -> Tensor:
    """Rows of W2 to keep, ascending."""
    if threshold is not None and keep is not None:
        raise ConfigurationError("Pass threshold or keep to prune by, not both")
    possible = torch.ones_like(mean, dtype=torch.bool)
    if connector.excluded_rows is not None:
        possible[connector.excluded_rows.cpu()] = False
    if keep is None:
        rows = ((mean >= _threshold(threshold)) & possible).nonzero().squeeze(-1)
    else:
        most = int(possible.sum())
        if isinstance(keep, bool) or not isinstance(keep, int) or not 1 <= keep <= most:
            raise ConfigurationError(
                f"This Align mixes {most} words, so keep must be from 1 to {most}, not {keep!r}"
            )
        rows = mean.masked_fill(~possible, -1).topk(keep).indices.sort().values
    if len(rows) == 0:
        raise ConfigurationError(
            f"No word has a mean probability of {_threshold(threshold):g} or more, the most "
            f"probable has {mean.max().item():.2g}: lower the threshold, or say how many to keep"
        )
    return rows


def _threshold(threshold: float | None) -> float:
    if threshold is None:
        return THRESHOLD
    if not (math.isfinite(threshold) and 0 <= threshold <= 1):
        raise ConfigurationError(f"threshold is a probability from 0 to 1, not {threshold!r}")
    return threshold


def _check(connector: Align, statistics_of: str) -> None:
    if not isinstance(connector, Align):
        raise ConfigurationError(
            f"{type(connector).__name__} has no words to choose among: prune an Align"
        )
    if statistics_of not in ("all", "kept"):
        raise ConfigurationError(
            f"statistics_of is {statistics_of!r}: choose 'all' rows of W2 or the 'kept' ones"
        )
    if statistics_of == "all" and connector.w2.bias is not None:
        raise ConfigurationError(
            "The statistics of all rows are kept for a W2 without bias only: pass "
            "statistics_of='kept'"
        )
    if connector.w2.weight.is_meta:
        raise ConfigurationError("A connector on the meta device has no words to choose: load it")


def _copy(source: Align, target: Align, rows: Tensor, embeddings: Tensor | None) -> None:
    state = source.state_dict()
    kept = {name: state[name] for name in target.state_dict() if name in state}
    for name in ("w2.weight", "w2.bias", "norm_v.weight", "norm_v.bias"):
        if name in kept:
            kept[name] = state[name][rows]
    kept["token_ids"] = target.kept_ids
    if target.row_mean is not None and source.row_mean is None:
        whole = weight_statistics(source.w2.weight)
        kept["row_mean"], kept["row_covariance"] = whole.mean, whole.covariance
    if target.table is not None:
        kept["table"] = state["table"][rows] if embeddings is None else _at(embeddings, target)
    target.load_state_dict(kept)


def _at(embeddings: Tensor, target: Align) -> Tensor:
    return embeddings.index_select(0, target.kept_ids.to(embeddings.device))
