"""A connector's cost against its work: 1 to 9 tiles, and vocabularies of 8 k to 256 k words."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from alignvlm.analysis.runtime.memory import Runner
from alignvlm.analysis.runtime.models import SEED
from alignvlm.analysis.runtime.workloads import Workload
from alignvlm.connectors import build
from alignvlm.connectors.base import Grid

__all__ = ["TILES", "VOCABULARIES", "ScalingPoint", "exponent", "measure_scaling"]

TILES = (1, 2, 3, 4, 6, 9)
VOCABULARIES = tuple(8192 * 2**k for k in range(6))
_REPEATS = 3


@dataclass(frozen=True, kw_only=True)
class ScalingPoint:
    """One forward pass of a connector by itself, on random features.

    Attributes:
        connector: its name.
        axis: what is varied, "tiles" or "vocabulary".
        num_tiles: T.
        vocab_size: V.
        seconds: of each repetition, after a warm-up.
        extra_bytes: peak memory of the first pass beyond what was held before it: output and
            everything between.
        flops: of its matrix products.
    """

    connector: str
    axis: str
    num_tiles: int
    vocab_size: int
    seconds: tuple[float, ...]
    extra_bytes: int
    flops: int

    @property
    def amount(self) -> int:
        """The value of what is varied."""
        return self.num_tiles if self.axis == "tiles" else self.vocab_size


def measure_scaling(
    workload: Workload,
    names: Sequence[str],
    runner: Runner,
    dtype: torch.dtype,
    *,
    tiles: Sequence[int] = TILES,
    vocabularies: Sequence[int] = VOCABULARIES,
    on_progress: Callable[[str], None] = lambda text: None,
) -> list[ScalingPoint]:
    """The connectors `names` of the registry, at the widths of the workload's model.

    Tiles are varied at the model's own vocabulary, and the vocabulary at one tile, the latter only
    for connectors whose operations depend on it.
    """
    sizes: dict[str, Any] = {"vision_dim": workload.vision_dim, "text_dim": workload.text_dim}
    points = []
    for name in names:
        work = [("tiles", count, workload.vocab_size) for count in tiles]
        with torch.device("meta"):
            flops = {build(name, vocab_size=V, **sizes).flops((1, 1)) for V in vocabularies}
        if len(flops) > 1:
            work += [("vocabulary", 1, V) for V in vocabularies]
        for axis, num_tiles, V in work:
            on_progress(f"{name} with {num_tiles} tiles and {V} words")
            measured = runner.run(
                _measure, name, {**sizes, "vocab_size": V}, workload.config.feature_grid, num_tiles,
                runner, dtype,
            )  # fmt: skip
            seconds, extra_bytes, num_flops = measured
            points.append(
                ScalingPoint(
                    connector=name, axis=axis, num_tiles=num_tiles, vocab_size=V,
                    seconds=seconds, extra_bytes=extra_bytes, flops=num_flops,
                )
            )  # fmt: skip
    return points


@torch.inference_mode()
def _measure(
    name: str,
    sizes: dict[str, int],
    grid: Grid,
    num_tiles: int,
    runner: Runner,
    dtype: torch.dtype,
) -> tuple[tuple[float, ...], int, int]:
    """Seconds of each pass, memory of the first, operations of one."""
    torch.manual_seed(SEED)
    with torch.device("meta"):
        connector = build(name, **sizes).to(dtype)
    connector.to_empty(device=runner.device).reset_parameters()
    shape = (num_tiles, grid[0] * grid[1], sizes["vision_dim"])
    features = torch.randn(shape, device=runner.device, dtype=dtype)
    table = torch.randn((sizes["vocab_size"], sizes["text_dim"]), device=runner.device, dtype=dtype)
    # What libraries load and set aside once is none of the connector's: a pass over one feature.
    connector(features[0, :1], embeddings=table, grid=(1, 1))
    runner.synchronize()
    runner.restart()
    held = runner.held_bytes()
    connector(features, embeddings=table, grid=grid)
    runner.synchronize()
    extra = max(0, runner.peak_bytes() - held)
    seconds = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        connector(features, embeddings=table, grid=grid)
        runner.synchronize()
        seconds.append(time.perf_counter() - start)
    return tuple(seconds), extra, connector.flops(grid, num_tiles)


def exponent(amounts: Sequence[float], values: Sequence[float]) -> float | None:
    """Slope of log(value) over log(amount), least squares: 1 is proportional, 0 is constant.

    None if fewer than three values are positive.
    """
    pairs = [(a, v) for a, v in zip(amounts, values, strict=True) if v > 0]
    if len(pairs) < 3:
        return None
    logs = np.log(np.array(pairs, dtype=np.float64))
    return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])
