"""Runs: every prediction kept as it comes, scores made from the predictions alone.

`evaluate_model` asks a model the questions of benchmarks and goes on where an earlier start ended;
`rescore` scores a run in another dialect. Neither imports torch; an opened model may.
"""

from __future__ import annotations

from alignvlm.evaluation.running.evaluate import Settings, evaluate_model, rescore
from alignvlm.evaluation.running.folder import read_predictions
from alignvlm.evaluation.running.processes import Processes, open_processes
from alignvlm.evaluation.running.progress import Progress
from alignvlm.evaluation.running.scoring import score_predictions

__all__ = [
    "Processes",
    "Progress",
    "Settings",
    "evaluate_model",
    "open_processes",
    "read_predictions",
    "rescore",
    "score_predictions",
]
