from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignvlm.errors import ConfigurationError
from alignvlm.training.schedule import TrainConfig, differences, learning_rate_at


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


@pytest.mark.parametrize(
    "changes",
    [{"num_steps": 0}, {"batch_size": 0}, {"keep": 0}, {"num_workers": -1}, {"seed": -1},
     {"seed": 1 << 40}, {"learning_rate": 0.0}, {"learning_rate": math.nan},
     {"checkpoint_every": 0}, {"warmup_steps": -1}],
)  # fmt: skip
def test_numbers_out_of_range(changes: dict[str, float]) -> None:
    """`keep=0` would have kept everything, a seed without end have ended the run in torch."""
    ((name, value),) = changes.items()
    with pytest.raises(ConfigurationError) as raised:
        replace(config(5, 1), **changes)
    assert str(raised.value).startswith(f"{name} must be ")
    assert repr(value) in str(raised.value)


@pytest.mark.parametrize(
    ("ours", "theirs", "named"),
    [({"seed": 1, "keep": 2}, {"seed": 1, "keep": 2}, []), ({"seed": 1}, {"seed": 2}, ["seed"]),
     ({"new": 1, "seed": 1}, {"seed": 1}, []),
     ({"data": '{"model": 1, "rows": 5}'}, {"data": '{"model": 1, "rows": 6}'}, ["data (rows)"]),
     ({"data": '{"model": 1, "rows": []}'}, {"data": '{"model": 2}'}, ["data (model, rows)"]),
     ({"data": "a"}, {"data": "b"}, ["data"]), ({"data": '{"a": 1}'}, {"data": None}, ["data"])],
)  # fmt: skip
def test_what_differs_is_named(ours: Any, theirs: Any, named: list[str]) -> None:
    assert differences(ours, theirs) == named
