"""What a comparison consists of: its settings, its cells, and the folder they live in.

A cell is one training run: a connector, a budget of samples, a seed, a learning rate of the
connector. Everything else is the same for all, so cells differ in what they are named by.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignvlm.analysis.compare import variants
from alignvlm.errors import ConfigurationError
from alignvlm.files import write_atomically
from alignvlm.training.configuration import RunConfig
from alignvlm.training.overrides import to_json

__all__ = ["Cell", "Comparison", "Sigma", "parse_budgets", "parse_sigmas", "settle"]

SETTINGS = "comparison.json"
_UNITS = {"": 1, "k": 1000, "m": 1_000_000}


@dataclass(frozen=True, kw_only=True)
class Sigma:
    """How much noise is added to the vision features F.

    Attributes:
        value: standard deviation.
        relative: in units of the root mean square of a page's F.
    """

    value: float
    relative: bool = False

    def __str__(self) -> str:
        return f"{self.value:g}x" if self.relative else f"{self.value:g}"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training run of a comparison.

    Attributes:
        variant: a connector's name, or `variants.GROUNDED`.
        budget: samples that it is trained on.
        seed: of the order of samples and of everything that starts at random.
        rate: peak learning rate of the connector.
    """

    variant: str
    budget: int
    seed: int
    rate: float

    @property
    def name(self) -> str:
        """Its run folder, relative to the comparison's."""
        return f"{self.group}/rate-{self.rate:g}"

    @property
    def group(self) -> str:
        """The folder of all rates of the same connector, budget and seed."""
        return f"runs/{self.variant}/{self.budget}-samples/seed-{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared, and how.

    Attributes:
        recipe: of every cell, but for its connector, that one's rate, seed and length.
        variants: the connectors.
        budgets: numbers of samples to train on, rising.
        num_seeds: cells of each connector and budget, with seeds from 0 on.
        rates: learning rates of the connector that are tried, the same for all.
        sigmas: noise on F, as in Table 5.
        num_pages: held-out pages that are scored.
        num_validation: other held-out pages, by whose loss the learning rate is chosen.
        grounded_steps: of the grounded variant, before its training; None: as many as that has.
    """

    recipe: RunConfig
    variants: tuple[str, ...]
    budgets: tuple[int, ...]
    num_seeds: int = 3
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    sigmas: tuple[Sigma, ...] = (Sigma(value=3.0), Sigma(value=1.0, relative=True))
    num_pages: int = 128
    num_validation: int = 64
    grounded_steps: int | None = None

    def __post_init__(self) -> None:
        variants.check(self.variants, self.recipe.model)
        step = self.recipe.batches.num_samples
        for budget in self.budgets:
            if budget < step:
                raise ConfigurationError(
                    f"A budget of {budget} samples is less than one step of {step}: raise it, or "
                    "lower batches.num_samples"
                )
        if sorted(set(self.budgets)) != list(self.budgets) or not self.budgets:
            raise ConfigurationError("The budgets must rise, and there must be one: give 1k,4k")
        for rate in self.rates:
            if not 0 < rate < 1:
                raise ConfigurationError(
                    f"The learning rate {rate:g} is not between 0 and 1: give rates such as 1e-3"
                )
        if not self.rates or len(set(self.rates)) != len(self.rates):
            raise ConfigurationError("A learning rate is missing or there twice: name each once")
        if other := [part.source for part in self.recipe.data if part.source != "synth"]:
            raise ConfigurationError(
                f"A comparison is scored on drawn pages that its training has not seen, and the "
                f"recipe's data are of source {other[0]}: set data.0.source=synth"
            )
        for place, part in enumerate(self.recipe.data):
            if part.path is not None:
                raise ConfigurationError(
                    f"The source 'synth' draws its pages and reads no {part.path!r}: set "
                    f"data.{place}.path=none"
                )
        if self.recipe.rates.connector is None:
            raise ConfigurationError(
                "The recipe freezes the connector, which is what is compared: set rates.connector"
            )

    def search(self, variant: str) -> list[Cell]:
        """The cells that the learning rate is chosen by: smallest budget, first seed."""
        return [
            Cell(variant=variant, budget=self.budgets[0], seed=0, rate=rate) for rate in self.rates
        ]

    def scored(self, variant: str, rate: float) -> Iterator[Cell]:
        """The cells that the tables are made of, at the rate chosen."""
        for budget in self.budgets:
            for seed in range(self.num_seeds):
                yield Cell(variant=variant, budget=budget, seed=seed, rate=rate)

    def num_steps(self, budget: int) -> int:
        """Optimizer steps of a budget; what fills no whole step is left out."""
        return budget // self.recipe.batches.num_samples

    def num_grounded_steps(self, cell: Cell) -> int:
        """Steps before a cell's own in which its connector learns tokens under cells."""
        if not variants.is_grounded(cell.variant):
            return 0
        return self.num_steps(cell.budget) if self.grounded_steps is None else self.grounded_steps

    def config(self, cell: Cell) -> RunConfig:
        """The configuration of a cell's training run."""
        recipe = self.recipe
        connector = variants.options_of(cell.variant, recipe.model)
        return replace(
            recipe,
            model=replace(recipe.model, connector=connector),
            rates=replace(recipe.rates, connector=cell.rate),
            seed=cell.seed,
            num_steps=self.num_steps(cell.budget),
            trackers=(),
        )

    def identity(self) -> dict[str, Any]:
        """What every cell in a folder has in common, as JSON values.

        Connectors, budgets, seeds and rates are not part of it: more of them may be added later.
        """
        return {
            "recipe": json.loads(to_json(self.recipe)),
            "connector options": {name: dict(o) for name, o in variants.OPTIONS.items()},
            "sigmas": [str(sigma) for sigma in self.sigmas],
            "pages": self.num_pages,
            "validation pages": self.num_validation,
            "grounded steps": self.grounded_steps,
        }


def settle(comparison: Comparison, out: Path) -> None:
    """Make a folder the comparison's own, or see that it is already.

    Raises:
        ConfigurationError: the folder holds another comparison, or other files.
    """
    path, ours = out / SETTINGS, comparison.identity()
    if path.is_file():
        try:
            theirs = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise ConfigurationError(
                f"{path} is damaged: choose another folder with --out, or delete this one"
            ) from error
        if changed := _changed(theirs, json.loads(json.dumps(ours))):
            raise ConfigurationError(
                f"{out} holds a comparison with another {', '.join(changed[:3])}: give the same "
                "settings to go on with it, or choose another folder with --out"
            )
        return
    if out.is_dir() and any(out.iterdir()):
        raise ConfigurationError(
            f"{out} holds files and no comparison: choose another folder with --out"
        )
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(ours, indent=1) + "\n")


def parse_budgets(text: str) -> tuple[int, ...]:
    """Numbers of samples from text such as `500,1k,4k`.

    Raises:
        ConfigurationError: it is no list of numbers.
    """
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,7}(?:\.\d+)?)([km]?)", part.strip().lower())
        if match is None:
            raise ConfigurationError(f"The budget {part!r} is no number of samples: write 500,4k")
        found.append(round(float(match[1]) * _UNITS[match[2]]))
    return tuple(sorted(set(found)))


def parse_sigmas(text: str) -> tuple[Sigma, ...]:
    """Noise from text such as `3,1x`, where `x` stands for the root mean square of F.

    Raises:
        ConfigurationError: it is no list of positive numbers.
    """
    found = []
    for part in (part.strip() for part in text.split(",") if part.strip()):
        match = re.fullmatch(r"(\d{1,4}(?:\.\d{1,6})?)(x?)", part)
        if match is None or float(match[1]) == 0:
            raise ConfigurationError(f"The noise {part!r} is no positive number: write 3 or 0.5x")
        found.append(Sigma(value=float(match[1]), relative=bool(match[2])))
    return tuple(found)


def _changed(theirs: Any, ours: Any, where: str = "") -> list[str]:
    """Names of the settings that differ, as `--set` would call them."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        names: Sequence[str] = [*ours, *(name for name in theirs if name not in ours)]
        return [
            found
            for name in names
            for found in _changed(theirs.get(name), ours.get(name), f"{where}.{name}".lstrip("."))
        ]
    return [] if theirs == ours else [where.removeprefix("recipe.")]
