"""One cell of a comparison: train it, score it, write what came out, clear away the weights.

What is done is a file: `validation.json` after training, `result.json` after scoring. A cell that
was killed goes on from its last checkpoint, one whose file is there is never touched again. A loss
that becomes no number is such a result too, None: the same run would meet it again.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock

from alignvlm.analysis.compare import variants
from alignvlm.analysis.compare.pages import (
    TEST_SEED,
    VALIDATION_SEED,
    Asked,
    Prepared,
    draw_pages,
    exchanged,
    prepare,
)
from alignvlm.analysis.compare.plan import Cell, Comparison, Sigma
from alignvlm.errors import ConfigurationError, TrainingError, WeightsError
from alignvlm.files import read_lines, write_atomically

__all__ = ["RESULT", "VALIDATION", "Bench", "Stopped", "best_of", "read"]

VALIDATION = "validation.json"
RESULT = "result.json"


class Stopped(Exception):  # noqa: N818, nothing went wrong
    """A signal has ended a training run; everything so far is on disk."""


@dataclass
class Bench:
    """Runs cells.

    Args:
        comparison: what they belong to.
        out: its folder.
        device: where they run.
        keep_models: leave each trained model in its run folder.
        on_samples: told after each step how many samples more have been trained on.
    """

    comparison: Comparison
    out: Path
    device: str
    keep_models: bool = False
    on_samples: Callable[[int], None] | None = field(default=None, repr=False)

    def search(self, variant: str) -> float:
        """Train a variant at all rates, choose one by validation loss, and score its cell.

        Returns:
            The rate with the smallest loss.

        Raises:
            Stopped: a signal came.
            ConfigurationError: the loss is no number at any of the rates.
        """
        cells = self.comparison.search(variant)
        losses = {}
        for cell in cells:
            with self._alone(cell):
                losses[cell] = self._validated(cell)["loss"]
        best = best_of(losses)
        if best is None:
            raise ConfigurationError(
                f"The loss of {variant} becomes no number at every learning rate that was tried: "
                "give smaller ones with --rates"
            )
        self.score(best)
        for cell in cells:
            self._clear(cell)
        self._clear_start(best)
        return best.rate

    def score(self, cell: Cell) -> dict[str, Any]:
        """The result of a cell, which is trained first where that is not done.

        Returns:
            What `_score` says; where the loss has become no number, in training or on the pages,
            only what the run was, with a loss of None.

        Raises:
            Stopped: a signal came.
        """
        path = self.out / cell.name / RESULT
        with self._alone(cell):
            if not path.is_file():
                is_number = self._validated(cell)["loss"] is not None
                if is_number and not (self.out / cell.name / "model").is_dir():
                    self._train(cell)  # validated, cleared, now wanted
                scored = self._score(cell) if is_number else self._unscored(cell)
                write_atomically(path, json.dumps(scored, ensure_ascii=False) + "\n")
            self._clear(cell)
        if cell not in self.comparison.search(cell.variant):
            self._clear_start(cell)
        return read(path)

    def _validated(self, cell: Cell) -> dict[str, Any]:
        """Training, and the loss on the pages that rates are chosen by; None: it is no number."""
        path = self.out / cell.name / VALIDATION
        if not path.is_file():
            figures = self._trained(cell)
            if "loss" not in figures:
                scorer, (prepared,) = self._open(cell, self._validation)
                losses = scorer.losses(prepared)
                mean = sum(losses) / len(losses)
                figures = {"loss": mean if math.isfinite(mean) else None, **figures}
            write_atomically(path, json.dumps(figures) + "\n")
        return read(path)

    def _trained(self, cell: Cell) -> dict[str, Any]:
        """`_train`; with a loss of None where that has stopped at one that is no number."""
        folders = (self.out / cell.name, self._start(cell))
        try:
            return self._train(cell)
        except TrainingError:
            if not any(path for folder in folders for path in folder.glob("bad-step-*.json")):
                raise
        for folder in folders:
            for checkpoint in folder.glob("step-*"):
                shutil.rmtree(checkpoint)
        log = read_lines(folders[0] / "log.jsonl")
        return {"loss": None, **_spent(log, self.comparison.recipe.batches.num_samples)}

    def _train(self, cell: Cell) -> dict[str, Any]:
        from alignvlm.training.loop import train
        from alignvlm.training.runs import open_run

        folder, steps = self.out / cell.name, self.comparison.num_steps(cell.budget)
        clock = _Clock(self._on_step)
        if variants.is_grounded(cell.variant):
            self._ground(cell)
        config = self.comparison.config(cell)
        task, settings = open_run(config, self.device)
        if variants.is_grounded(cell.variant):
            from alignvlm.analysis.compare.grounded import load_start

            load_start(task.module, self._start(cell))
        clock.start()
        if train(task, settings, folder, on_step=clock.step) < steps:
            raise Stopped
        for checkpoint in folder.glob("step-*"):
            shutil.rmtree(checkpoint)
        return self._figures(cell, task, clock)

    def _figures(self, cell: Cell, task: Any, clock: _Clock) -> dict[str, Any]:
        """Sizes and times of a run."""
        log = read_lines(self.out / cell.name / "log.jsonl")
        batch = self.comparison.recipe.batches.num_samples
        model = task.module
        parameters = dict(model.named_parameters())
        return {
            "connector_parameters": model.model.connector.num_parameters(),
            "trained_parameters": sum(p.numel() for p in parameters.values() if p.requires_grad),
            "visual_tokens": model.config.tokens_per_tile,
            **_spent(log, batch),
            "cpu_seconds_per_sample": clock.cpu_seconds_per_step / batch,
        }

    def _ground(self, cell: Cell) -> None:
        from alignvlm.analysis.compare.grounded import ground

        folder = self._start(cell)
        if not ground(self.comparison, cell, folder, self.device, self._on_step):
            raise Stopped
        for checkpoint in folder.glob("step-*"):
            shutil.rmtree(checkpoint)

    def _score(self, cell: Cell) -> dict[str, Any]:
        """Everything that is said of a cell."""
        from alignvlm.analysis.compare.scoring import judged

        scorer, (prepared, others) = self._open(cell, self._test, exchanged(self._test))
        answers = scorer.answers(prepared)
        pages = {
            "loss": scorer.losses(prepared),
            "loss_of_another_page": scorer.losses(others),
            **judged(self._test, answers),
        }
        series = zip(pages["loss_of_another_page"], pages["loss"], strict=True)
        pages["gain"] = [other - own for other, own in series]
        if not math.isfinite(sum(pages["gain"])):
            return self._unscored(cell)
        noise = []
        if cell.budget == self.comparison.budgets[-1]:
            noise = [self._under_noise(scorer, prepared, s) for s in self.comparison.sigmas]
        return {
            **self._run_of(cell),
            **{name: sum(values) / len(values) for name, values in pages.items()},
            "pages": pages,
            "answers": answers,
            "noise": noise,
        }

    def _unscored(self, cell: Cell) -> dict[str, Any]:
        """What is said of a cell whose loss is no number."""
        return {**self._run_of(cell), "loss": None}

    def _run_of(self, cell: Cell) -> dict[str, Any]:
        validated = read(self.out / cell.name / VALIDATION)
        return {
            "cell": {"variant": cell.variant, "budget": cell.budget, "seed": cell.seed,
                     "rate": cell.rate},
            **validated,
            "validation_loss": validated["loss"],
        }  # fmt: skip

    def _under_noise(
        self, scorer: Any, prepared: Sequence[Prepared], sigma: Sigma
    ) -> dict[str, Any]:
        from alignvlm.analysis.compare.scoring import judged

        answers = scorer.answers(prepared, sigma)
        pages = judged(self._test, answers)
        return {
            "sigma": str(sigma),
            **scorer.distances(prepared, sigma),
            **{name: sum(values) / len(values) for name, values in pages.items()},
            "pages": pages,
        }

    def _open(self, cell: Cell, *pages: Sequence[Asked]) -> tuple[Any, list[list[Prepared]]]:
        """The cell's trained model with series of pages prepared for it."""
        from alignvlm.analysis.compare.scoring import Scorer
        from alignvlm.model import AlignVLM, AlignVLMProcessor
        from alignvlm.model.compat import quiet

        folder, recipe = self.out / cell.name / "model", self.comparison.recipe
        make: Any = AlignVLM
        with quiet():
            model = make.from_pretrained(folder)
            processor = AlignVLMProcessor.from_pretrained(folder)
        scorer = Scorer(model, processor, self.device, recipe.precision == "bfloat16")
        return scorer, [prepare(series, processor, recipe) for series in pages]

    @cached_property
    def _test(self) -> list[Asked]:
        return draw_pages(self.comparison.recipe, TEST_SEED, self.comparison.num_pages)

    @cached_property
    def _validation(self) -> list[Asked]:
        return draw_pages(self.comparison.recipe, VALIDATION_SEED, self.comparison.num_validation)

    def _on_step(self, _step: int) -> None:
        if self.on_samples is not None:
            self.on_samples(self.comparison.recipe.batches.num_samples)

    def _alone(self, cell: Cell) -> FileLock:
        """Waits for a process that an earlier start has left behind at the same cell."""
        folder = self.out / cell.group
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / ".lock")

    def _start(self, cell: Cell) -> Path:
        return self.out / cell.group / "grounded"

    def _clear(self, cell: Cell) -> None:
        if not self.keep_models:
            shutil.rmtree(self.out / cell.name / "model", ignore_errors=True)

    def _clear_start(self, cell: Cell) -> None:
        if not self.keep_models:
            from alignvlm.analysis.compare.grounded import START

            (self._start(cell) / START).unlink(missing_ok=True)


class _Clock:
    """CPU seconds of this process and its threads, step by step, the first left out."""

    def __init__(self, on_step: Callable[[int], None]) -> None:
        self._on_step, self._seconds, self._steps = on_step, 0.0, 0

    def start(self) -> None:
        self._last = time.process_time()

    def step(self, step: int) -> None:
        now = time.process_time()
        if self._steps:
            self._seconds += now - self._last
        self._steps, self._last = self._steps + 1, now
        self._on_step(step)

    @property
    def cpu_seconds_per_step(self) -> float:
        """0 where a run had a single step, or none, since its last start."""
        return self._seconds / (self._steps - 1) if self._steps > 1 else 0.0


def best_of(losses: Mapping[Cell, float | None]) -> Cell | None:
    """The cell with the smallest validation loss; one that is None was no number."""
    numbers = {cell: loss for cell, loss in losses.items() if loss is not None}
    return min(numbers, key=lambda cell: numbers[cell], default=None)


def _spent(log: Sequence[Mapping[str, Any]], batch: int) -> dict[str, Any]:
    """How long a run was."""
    return {
        "steps": len(log),
        "samples": len(log) * batch,
        "train_seconds": sum(record.get("seconds_per_step", 0.0) for record in log),
    }


def read(path: Path) -> dict[str, Any]:
    """A cell's file.

    Raises:
        WeightsError: it is damaged.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is damaged: delete it, and the cell is run again") from error
    return content
