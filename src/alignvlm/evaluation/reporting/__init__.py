"""Reports over runs: the paper's tables, intervals, tests between models, and cases."""

from __future__ import annotations

from alignvlm.evaluation.reporting.estimates import Draws
from alignvlm.evaluation.reporting.runs import Result, Run, read_runs
from alignvlm.evaluation.reporting.write import check_target, write_report

__all__ = ["Draws", "Result", "Run", "check_target", "read_runs", "write_report"]
