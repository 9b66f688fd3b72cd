"""What a connector costs inside a whole VLM (Table 7), and how that grows with the work.

`workloads` says what is run, `models` makes the VLMs, `measure` times them, `memory` finds their
peak, `scaling` varies tiles and vocabulary, `report` and `plot` show what came out.
"""

from __future__ import annotations

from alignvlm.analysis.runtime.measure import Cost, measure_connectors
from alignvlm.analysis.runtime.memory import Runner, choose_runner
from alignvlm.analysis.runtime.models import choose_variants
from alignvlm.analysis.runtime.report import markdown, summarise, write_results
from alignvlm.analysis.runtime.scaling import ScalingPoint, measure_scaling
from alignvlm.analysis.runtime.workloads import Workload, find_workload

__all__ = [
    "Cost",
    "Runner",
    "ScalingPoint",
    "Workload",
    "choose_runner",
    "choose_variants",
    "find_workload",
    "markdown",
    "measure_connectors",
    "measure_scaling",
    "summarise",
    "write_results",
]
