"""Mean and covariance of W2's rows, and what follows from them for a token's logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignvlm.connectors.mixture import weight_statistics
from alignvlm.connectors.mixture.statistics import Statistics


@given(
    size=st.sampled_from([1, 2, 30, 4096, 4097, 9000]),
    width=st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_equals_numpys(size: int, width: int, seed: int) -> None:
    weight = np.random.default_rng(seed).normal(size=(size, width)) + 3
    found = weight_statistics(torch.from_numpy(weight))
    np.testing.assert_allclose(found.mean, weight.mean(0), rtol=1e-10)
    covariance = np.cov(weight.T, bias=True).reshape(width, width)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-9, atol=1e-12)


def test_a_large_mean_costs_no_digits() -> None:
    exact = torch.randn(5000, 8, dtype=torch.float64) + 1000
    weight = exact.float()
    found = weight_statistics(weight)
    expected = torch.cov(weight.double().T, correction=0)
    torch.testing.assert_close(found.covariance.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_sums_are_wide(dtype: torch.dtype, wide: torch.dtype) -> None:
    weight = torch.randn(3000, 4).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = weight_statistics(weight)
        mean, rstd = found.of_logits(torch.randn(2, 4).to(dtype), 1e-5)
    assert {t.dtype for t in (*found, mean, rstd)} == {wide}
    torch.testing.assert_close(found.mean.double(), weight.double().mean(0), rtol=1e-4, atol=1e-5)


@given(
    width=st.integers(1, 40), shape=st.sampled_from([(3,), (2, 5), (0, 4)]), seed=st.integers(0, 99)
)
def test_logits_have_the_statistics_that_are_said(
    width: int, shape: tuple[int, ...], seed: int
) -> None:
    torch.manual_seed(seed)
    weight = torch.randn(50, width, dtype=torch.float64) + torch.randn(width)
    hidden = torch.randn(*shape, width, dtype=torch.float64)
    mean, rstd = weight_statistics(weight).of_logits(hidden, 1e-5)
    logits = hidden @ weight.T
    torch.testing.assert_close(mean, logits.mean(-1))
    variance = (logits - logits.mean(-1, keepdim=True)).square().mean(-1)
    torch.testing.assert_close(rstd, (variance + 1e-5).rsqrt())


def test_a_negative_variance_is_none() -> None:
    known = Statistics(torch.zeros(3), -1e-6 * torch.eye(3))
    _, rstd = known.of_logits(torch.full((2, 3), 100.0), 1e-5)
    torch.testing.assert_close(rstd, torch.full((2,), 1e-5).rsqrt())
