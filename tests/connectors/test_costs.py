"""Tokens, parameters and FLOPs at the paper's sizes are those that the documentation states."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from alignvlm.connectors import Connector, available, build

PAGE = Path(__file__).parents[2] / "docs" / "connectors.md"
ROW = re.compile(r"^\| `(\w+)` \| (\d+) \| (.+?) \| ([\d,]+) \| ([\d,.]+) \|$", re.MULTILINE)
STATED = {row[0]: row[1:] for row in ROW.findall(PAGE.read_text("utf-8"))}


def make(name: str) -> Connector:
    with torch.device("meta"):
        return build(name, vision_dim=1152, text_dim=3072, vocab_size=128_256)


def test_every_connector_is_stated() -> None:
    assert sorted(STATED) == list(available())


@pytest.mark.parametrize("name", sorted(STATED))
def test_costs_are_as_stated(name: str) -> None:
    connector = make(name)
    grid = connector.output_grid((27, 27))
    assert STATED[name] == (
        str(connector.num_visual_tokens((27, 27))),
        "none" if grid is None else f"{grid[0]} x {grid[1]}",
        f"{connector.num_parameters():,}",
        f"{connector.flops((27, 27)) / 1e9:,.1f}",
    )


@pytest.mark.parametrize("name", available())
def test_flops_are_those_that_torch_counts(name: str) -> None:
    """Attention and convolutions included, up to the few operations of norms and poolings."""
    from torch.utils.flop_counter import FlopCounterMode

    connector = make(name)
    with torch.device("meta"):
        features, embeddings = torch.empty(2, 729, 1152), torch.empty(128_256, 3072)
    with FlopCounterMode(display=False) as counter:
        connector(features, embeddings=embeddings, grid=(27, 27))
    assert counter.get_total_flops() == pytest.approx(connector.flops((27, 27), 2), rel=1e-6)
