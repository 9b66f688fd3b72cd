"""Connectors from vision features to visual tokens; this subpackage needs torch alone.

`build` makes one by name, e.g. `build("align", vision_dim=1152, text_dim=3072, vocab_size=128256)`;
the classes can also be used directly.
"""

from __future__ import annotations

from alignvlm.connectors.align import Align
from alignvlm.connectors.base import Connector, ConnectorOutput, Grid
from alignvlm.connectors.c_abstractor import CAbstractor
from alignvlm.connectors.h_reducer import HReducer
from alignvlm.connectors.linear import Linear
from alignvlm.connectors.mlp import MLP
from alignvlm.connectors.mlp_norm import MLPNorm
from alignvlm.connectors.ovis import Ovis
from alignvlm.connectors.perceiver import Perceiver
from alignvlm.connectors.pixel_shuffle import PixelShuffle
from alignvlm.connectors.pruning import Pruned, mean_probabilities, prune
from alignvlm.connectors.registry import available, build, register

__all__ = [
    "MLP",
    "Align",
    "CAbstractor",
    "Connector",
    "ConnectorOutput",
    "Grid",
    "HReducer",
    "Linear",
    "MLPNorm",
    "Ovis",
    "Perceiver",
    "PixelShuffle",
    "Pruned",
    "available",
    "build",
    "mean_probabilities",
    "prune",
    "register",
]
