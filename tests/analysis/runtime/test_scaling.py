from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignvlm.analysis.runtime import Workload, measure_scaling
from alignvlm.analysis.runtime.scaling import TILES, VOCABULARIES, exponent


@given(power=st.floats(-3, 3), factor=st.floats(1e-6, 1e6))
def test_the_exponent_of_a_power_law(power: float, factor: float) -> None:
    amounts = [1, 2, 3, 9]
    values = [factor * amount**power for amount in amounts]
    assert exponent(amounts, values) == pytest.approx(power, abs=1e-6)


def test_the_exponent_is_a_least_squares_one() -> None:
    # log2: (0, 0), (1, 3), (2, 0) has slope 0; (0, 0), (1, 0), (2, 3) has slope 1.5.
    assert exponent([1, 2, 4], [1, 8, 1]) == pytest.approx(0.0, abs=1e-12)
    assert exponent([1, 2, 4], [1, 1, 8]) == pytest.approx(1.5)


def test_no_exponent_from_two_points_or_from_nothing() -> None:
    assert exponent([1, 2], [1, 2]) is None
    assert exponent([1, 2, 3, 4], [0, 0, 1, 2]) is None


def test_the_range_is_that_of_the_paper() -> None:
    assert (TILES[0], TILES[-1]) == (1, 9)
    assert (VOCABULARIES[0], VOCABULARIES[-1]) == (8 * 1024, 256 * 1024)


def test_points_of_both_axes(workload: Workload, runner: Any) -> None:
    told: list[str] = []
    points = measure_scaling(
        workload, ["align", "mlp"], runner, torch.bfloat16,
        tiles=(1, 3), vocabularies=(64, 128), on_progress=told.append,
    )  # fmt: skip
    assert [(p.connector, p.axis, p.amount, p.num_tiles, p.vocab_size) for p in points] == [
        ("align", "tiles", 1, 1, 264),
        ("align", "tiles", 3, 3, 264),
        ("align", "vocabulary", 64, 1, 64),
        ("align", "vocabulary", 128, 1, 128),
        ("mlp", "tiles", 1, 1, 264),
        ("mlp", "tiles", 3, 3, 264),
    ]
    assert points[1].flops == 3 * points[0].flops
    assert [p.extra_bytes for p in points] == [n * 10**6 for n in range(1, 7)]
    assert all(len(p.seconds) == 3 and min(p.seconds) > 0 for p in points)
    assert runner.num_runs == len(told) == 6
