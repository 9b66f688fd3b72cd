"""Connectors compared under one recipe: same data, same order, same start, same search of rates."""

from __future__ import annotations

from alignvlm.analysis.compare.plan import (
    Cell,
    Comparison,
    Sigma,
    parse_budgets,
    parse_sigmas,
)
from alignvlm.analysis.compare.run import Estimate, compare, estimate

__all__ = [
    "Cell",
    "Comparison",
    "Estimate",
    "Sigma",
    "compare",
    "estimate",
    "parse_budgets",
    "parse_sigmas",
]
