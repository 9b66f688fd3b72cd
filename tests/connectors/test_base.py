from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from alignvlm.connectors import Connector, ConnectorOutput


class Pooled(Connector):
    """One visual token a tile, without spatial order."""

    def forward(self, features: Tensor, *, embeddings=None, grid=None, return_intermediates=False):
        self.check_inputs(features, embeddings, grid)
        return ConnectorOutput(visual_tokens=features.mean(-2, keepdim=True))

    def flops(self, grid: tuple[int, int], num_tiles: int = 1) -> int:
        return 0

    def output_grid(self, grid: tuple[int, int]) -> None:
        return None


def test_the_base_class_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Connector(4, 4)  # type: ignore[abstract]


def test_an_output_does_not_change() -> None:
    output = ConnectorOutput(visual_tokens=torch.zeros(1, 4))
    with pytest.raises(dataclasses.FrozenInstanceError):
        output.grid = (1, 1)  # type: ignore[misc]


def test_a_connector_without_a_grid_has_to_count_its_tokens() -> None:
    pooled = Pooled(4, 4)
    assert pooled(torch.randn(2, 9, 4), grid=(3, 3)).grid is None
    with pytest.raises(NotImplementedError, match="counts its own tokens"):
        pooled.num_visual_tokens((3, 3))
