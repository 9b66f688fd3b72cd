"""What does not fit together is named in a sentence."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from alignvlm.connectors.mixture import Choice, mix
from alignvlm.errors import ConfigurationError


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"table": torch.randn(39, 6)}, r"one vocabulary, not of \[40, 6\] and \[39, 6\]"),
        ({"weight": torch.randn(240)}, "one vocabulary"),
        ({"hidden": torch.ones(9, 6, dtype=torch.int64)}, "floating-point features, not torch.int"),
        ({"hidden": torch.randn(9, 5)}, r"width 6, not \[9, 5\]"),
        ({"hidden": torch.randn(6)}, r"width 6, not \[6\]"),
        ({"gamma": torch.ones(1)}, r"gamma has the shape \[1\]"),
        ({"beta": torch.ones(39)}, r"beta has the shape \[39\]"),
        ({"bias": torch.ones(40, 1)}, r"bias has the shape \[40, 1\]"),
    ],
)
@pytest.mark.parametrize("implementation", ["eager", "chunked"])
def test_what_does_not_fit_is_named(
    implementation: str, change: dict[str, Tensor], words: str
) -> None:
    tensors = {"hidden": torch.randn(9, 6), "weight": torch.randn(40, 6)}
    tensors["table"] = torch.randn(40, 6)
    choice = Choice(implementation=implementation)
    with pytest.raises(ConfigurationError, match=words):
        mix(**{**tensors, **change}, choice=choice)  # type: ignore[arg-type]
