from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignvlm.errors import ConfigurationError
from alignvlm.limits import DEFAULT_LIMITS, Limits

NAMES = [field.name for field in dataclasses.fields(Limits)]


def test_defaults_are_the_documented_ones() -> None:
    assert dataclasses.asdict(DEFAULT_LIMITS) == {
        "max_file_bytes": 50_000_000,
        "max_page_px": 90_000_000,
        "max_pages": 200,
        "max_aspect": 200.0,
        "decode_time_s": 20.0,
        "decode_memory_bytes": 1_500_000_000,
    }


def test_an_a3_page_at_600_dpi_fits() -> None:
    mm_per_inch = 25.4
    width_px, height_px = round(297 / mm_per_inch * 600), round(420 / mm_per_inch * 600)
    assert width_px * height_px <= DEFAULT_LIMITS.max_page_px


def test_limits_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        DEFAULT_LIMITS.max_pages = 10_000  # type: ignore[misc]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a_limit_that_does_not_limit_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=f"^Limits.{name} is "):
        Limits(**{name: value})


@given(st.floats(min_value=0, max_value=1, exclude_min=True, exclude_max=True))
def test_an_aspect_below_one_is_refused(aspect: float) -> None:
    with pytest.raises(ConfigurationError, match="max_aspect"):
        Limits(max_aspect=aspect)


@given(st.sampled_from(NAMES), st.integers(1, 10**12))
def test_positive_limits_are_kept(name: str, value: int) -> None:
    assert getattr(Limits(**{name: value}), name) == value
