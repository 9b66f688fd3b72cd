"""What a run costs, said before it runs: operations, memory, steps."""

from __future__ import annotations

from alignvlm.training.cost.operations import Flops, PartFlops, flops

__all__ = ["Flops", "PartFlops", "flops"]
