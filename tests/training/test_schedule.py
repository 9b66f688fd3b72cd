from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignvlm.training.schedule import TrainConfig, learning_rate_at


def config(num_steps: int, warmup_steps: int, schedule: str = "cosine") -> TrainConfig:
    return TrainConfig(
        num_steps=num_steps, batch_size=1, learning_rate=2.0, warmup_steps=warmup_steps,
        schedule=schedule,
    )  # fmt: skip


@given(st.integers(1, 400), st.integers(0, 100), st.sampled_from(["cosine", "linear", "constant"]))
def test_up_then_down(num_steps: int, warmup: int, schedule: str) -> None:
    settings = config(num_steps, min(warmup, num_steps - 1), schedule)
    warmup = settings.warmup_steps
    rates = [learning_rate_at(step, settings) for step in range(num_steps)]
    assert all(0 < rate <= 2.0 for rate in rates)
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert rates[warmup] == 2.0  # the peak is reached, and by the first step after the warm-up


@pytest.mark.parametrize(
    ("schedule", "halfway"),
    [("cosine", 1.0), ("linear", 1.0), ("constant", 2.0)],
)
def test_against_the_formulas(schedule: str, halfway: float) -> None:
    settings = config(110, 10, schedule)
    assert learning_rate_at(60, settings) == pytest.approx(halfway)
    quarter = {
        "cosine": 1 + math.cos(math.pi / 4), "linear": 1.5, "constant": 2.0,
    }  # fmt: skip
    assert learning_rate_at(35, settings) == pytest.approx(quarter[schedule])
    assert [learning_rate_at(step, settings) for step in range(3)] == pytest.approx([0.2, 0.4, 0.6])


def test_a_run_of_one_step_takes_it() -> None:
    assert learning_rate_at(0, config(1, 0)) == 2.0
