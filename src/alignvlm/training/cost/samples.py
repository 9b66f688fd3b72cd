"""What the data of a run are like: how many samples, tiles and tokens, before anything is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from alignvlm.data.sources import open_source
from alignvlm.errors import ConfigurationError, InputError
from alignvlm.training.configuration import DataPart, RunConfig

__all__ = ["KNOWN", "Assumed", "Measure", "Samples", "samples", "typical"]


@dataclass(frozen=True, kw_only=True)
class Assumed:
    """A typical sample of a source, and how many there are.

    Attributes:
        num_samples: where it is known.
        page_px: (width, height) of an image.
        text_tokens: of the whole conversation.
    """

    num_samples: int | None = None
    page_px: tuple[int, int] = (1240, 1754)
    text_tokens: int = 200


# Sizes are those of the paper or of the published data; typical samples are estimates, to be
# replaced by what `alignvlm data check` counts in the real files.
KNOWN: Mapping[str, Assumed] = MappingProxyType(
    {
        # "we retrieved 8.1M pairs" (3.3); web photos with a caption
        "cc12m": Assumed(num_samples=8_100_000, page_px=(640, 480), text_tokens=50),
        # "BigDocs-7.5M" (3.3); scanned pages with OCR, tables, questions
        "bigdocs": Assumed(num_samples=7_500_000, page_px=(1240, 1754), text_tokens=400),
        # 570 thousand rows of DocDownstream-1.0; pages, charts, photos with short answers
        "docdownstream": Assumed(num_samples=570_000, page_px=(1240, 1754), text_tokens=80),
        # 2,095,733 rows of the train split of VCR-wiki, English
        "vcr": Assumed(num_samples=2_095_733, page_px=(300, 400), text_tokens=150),
        # "LLaVA-558K" (5.2.2), 558,128 rows
        "llava_pretrain": Assumed(num_samples=558_128, page_px=(512, 384), text_tokens=60),
        # "LLaVA-NeXT-779K" (5.2.2), 779,289 rows
        "llava_next": Assumed(num_samples=779_289, page_px=(640, 480), text_tokens=350),
        # Easy pages of the generator with all their questions
        "synth": Assumed(page_px=(384, 384), text_tokens=120),
    }
)


@dataclass(frozen=True, kw_only=True)
class Samples:
    """A run's samples on average.

    Attributes:
        num_steps: optimizer steps.
        epoch_size: samples of an epoch; None where the data have no end.
        tiles, visual_tokens, text_tokens: of one sample.
    """

    num_steps: int
    epoch_size: int | None
    tiles: float
    visual_tokens: float
    text_tokens: float


Measure = Callable[[int, int], tuple[int, int]]
"""From an image's width and height to its tiles and visual tokens."""


def samples(
    run: RunConfig,
    measure: Measure,
    *,
    tiles: float | None = None,
    text_tokens: float | None = None,
    num_samples: int | None = None,
) -> Samples:
    """What a run sees.

    Args:
        run: the run.
        measure: what the model makes of an image.
        tiles: of a sample, in place of what is assumed; each has the visual tokens that those of
            the assumed images have on average.
        text_tokens: of a sample, in place of what is assumed.
        num_samples: of an epoch, in place of what is known.

    Raises:
        ConfigurationError: nobody knows how many samples there are.
    """
    known, shares, epoch = _blend(run, num_samples)
    tiles_of, visual_of = zip(*(measure(*sample.page_px) for sample in known), strict=True)
    mean_tiles, visual = _mean(shares, tiles_of), _mean(shares, visual_of)
    text_of = [sample.text_tokens for sample in known]
    return Samples(
        num_steps=_num_steps(run, epoch),
        epoch_size=None if epoch is None else round(epoch),
        tiles=mean_tiles if tiles is None else tiles,
        visual_tokens=visual if tiles is None else tiles * visual / mean_tiles,
        text_tokens=text_tokens if text_tokens is not None else _mean(shares, text_of),
    )


def typical(run: RunConfig, num_samples: int | None = None) -> list[tuple[float, Assumed]]:
    """A sample of each source with its share of the samples; texts as long as the run lets in.

    Raises:
        ConfigurationError: as `samples`.
    """
    known, shares, _ = _blend(run, num_samples)
    return list(zip(shares, known, strict=True))


def _blend(
    run: RunConfig, num_samples: int | None
) -> tuple[list[Assumed], list[float], float | None]:
    """Typical samples of the sources, their shares, and samples of an epoch if it has an end."""
    known = [KNOWN.get(part.source, Assumed()) for part in run.data]
    needs_sizes = num_samples is None and (run.num_steps is None or len(known) > 1)
    sizes = [_size(part) if needs_sizes else 1 for part in run.data]
    weights = [size if part.weight is None else part.weight
               for part, size in zip(run.data, sizes, strict=True)]  # fmt: skip
    shares = [weight / sum(weights) for weight in weights]
    if num_samples is not None:
        epoch: float | None = num_samples
    elif not needs_sizes:
        epoch = None
    else:
        # As in alignvlm.data.mixture: with weights, until the first source has been seen once.
        epoch = sum(sizes) if run.data[0].weight is None else sizes[0] / shares[0]
    limit = run.batches.max_text_tokens
    return [replace(one, text_tokens=min(one.text_tokens, limit)) for one in known], shares, epoch


def _mean(shares: Sequence[float], values: Sequence[float]) -> float:
    return sum(share * value for share, value in zip(shares, values, strict=True))


def _num_steps(run: RunConfig, epoch: float | None) -> int:
    if run.num_steps is not None:
        return run.num_steps
    assert epoch is not None  # sizes are asked for unless the steps are given
    return max(1, math.ceil(round(run.epochs * epoch) / run.batches.num_samples))


def _size(part: DataPart) -> int:
    """Samples of a source: known, or counted in its files."""
    known = KNOWN.get(part.source)
    if known is not None and known.num_samples is not None:
        return known.num_samples
    if part.path is None and not part.options.get("num_pages"):
        raise ConfigurationError(
            f"The source {part.source} has no end, so an epoch has none either: set num_steps"
        )
    try:
        return len(open_source(part.source, part.path, part.options))
    except InputError as error:
        raise ConfigurationError(
            f"Nobody knows how many samples {part.source} at {part.path!r} has: put its files "
            "there (docs/data.md), or say it with --samples"
        ) from error
