"""From the results of cells to what is said of connectors: means, spreads, paired tests, curves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Final

from alignvlm.analysis.compare.cell import RESULT, VALIDATION, read
from alignvlm.analysis.compare.pages import TEST_SEED, draw_pages
from alignvlm.analysis.compare.plan import Cell, Comparison
from alignvlm.analysis.compare.run import rate_of
from alignvlm.analysis.compare.statistics import paired
from alignvlm.evaluation.statistics import holm
from alignvlm.files import each_line
from alignvlm.training.curves import smoothed

__all__ = ["METRICS", "REFERENCE", "summarise"]

REFERENCE: Final = "align"
"""What the others are tested against; the first connector where it is not compared."""

METRICS: Final = {
    "anls": "ANLS",
    "exact": "exact match",
    "loss": "loss a token of the answer",
    "gain": "how much larger the loss is beside another page",
}
"""Figures of a cell and what they are. The gain is what the page is worth to the model: it is 0
for one that guesses from the question alone, whatever its loss."""

_TESTED = ("anls", "loss")
_NOISE = ("anls", "exact", "noise_distance", "patch_distance", "feature_rms")
_NUM_EXAMPLES = 12
_CURVE_POINTS = 200
_ALIKE = 1e-6  # mean cosine distance


def summarise(comparison: Comparison, out: Path) -> dict[str, Any]:
    """What a comparison has found so far, as JSON values.

    Returns:
        `rows`: connectors with their sizes, rate and, for each budget, the mean and the spread
        (standard deviation over seeds) of each metric; `tests`; `noise`; `search`: validation
        losses of all rates; `curves`: training losses at the largest budget; `examples`: answers
        to the same pages after `examples_budget` samples; `diverged`: cells whose loss has become
        no number, which nothing else counts; `cells` and `cells_wanted`: how many of the scored
        cells are there, with these.
    """
    found = {v: _cells(comparison, out, v) for v in comparison.variants}
    done = {
        variant: {cell: result for cell, result in cells.items() if result["loss"] is not None}
        for variant, cells in found.items()
    }
    names = [variant for variant, cells in done.items() if cells]
    budget = _common_budget([done[name] for name in names])
    reference = REFERENCE if REFERENCE in names else (names[0] if names else "")
    wanted = len(comparison.variants) * len(comparison.budgets) * comparison.num_seeds
    return {
        "budgets": list(comparison.budgets),
        "num_seeds": comparison.num_seeds,
        "num_pages": comparison.num_pages,
        "reference": reference,
        "cells": sum(map(len, found.values())),
        "cells_wanted": wanted,
        "rows": [_row(comparison, out, name, done[name]) for name in names],
        "tests": _tests(comparison, done, reference),
        "noise": [row for name in names for row in _noise(comparison, name, done[name])],
        "diverged": [
            result["cell"]
            for cells in found.values()
            for result in cells.values()
            if result["loss"] is None
        ],
        "search": [_search(comparison, out, variant) for variant in comparison.variants],
        "curves": [curve for name in names if (curve := _curve(comparison, out, done[name], name))],
        "examples_budget": budget,
        "examples": _examples(comparison, {name: done[name] for name in names}, budget),
    }


def _cells(comparison: Comparison, out: Path, variant: str) -> dict[Cell, dict[str, Any]]:
    """Results of a variant's scored cells, at the rate chosen."""
    rate = rate_of(comparison, out, variant)
    if rate is None:
        return {}
    paths = {cell: out / cell.name / RESULT for cell in comparison.scored(variant, rate)}
    return {cell: read(path) for cell, path in paths.items() if path.is_file()}


def _row(
    comparison: Comparison, out: Path, variant: str, cells: dict[Cell, dict[str, Any]]
) -> dict[str, Any]:
    first = next(iter(cells.values()))
    budgets = []
    for budget in comparison.budgets:
        found = [result for cell, result in cells.items() if cell.budget == budget]
        if found:
            budgets.append(
                {
                    "budget": budget,
                    "num_seeds": len(found),
                    "train_seconds": fmean(result["train_seconds"] for result in found),
                    **{metric: _spread(result[metric] for result in found) for metric in METRICS},
                }
            )
    return {
        "connector": variant,
        "rate": rate_of(comparison, out, variant),
        "parameters": first["connector_parameters"],
        "trained_parameters": first["trained_parameters"],
        "visual_tokens": first["visual_tokens"],
        "cpu_seconds_per_sample": fmean(r["cpu_seconds_per_sample"] for r in cells.values()),
        "budgets": budgets,
    }


def _tests(
    comparison: Comparison, done: dict[str, dict[Cell, dict[str, Any]]], reference: str
) -> list[dict[str, Any]]:
    """Each connector against the reference, pages paired, corrected over connectors."""
    tests = []
    for budget in comparison.budgets:
        for metric in _TESTED:
            family = []
            for name, cells in done.items():
                if name == reference or not reference:
                    continue
                pair = _paired(cells, done[reference], budget, metric)
                if pair is not None:
                    family.append({"connector": name, "budget": budget, "metric": metric, **pair})
            adjusted = holm([test["p"] for test in family])
            tests += [{**test, "p_holm": p} for test, p in zip(family, adjusted, strict=True)]
    return tests


def _paired(
    ours: dict[Cell, dict[str, Any]], theirs: dict[Cell, dict[str, Any]], budget: int, metric: str
) -> dict[str, Any] | None:
    """The test of a page's mean over the seeds that both have."""
    by_seed = [
        {cell.seed: result["pages"][metric] for cell, result in cells.items()
         if cell.budget == budget}
        for cells in (ours, theirs)
    ]  # fmt: skip
    seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
    if not seeds:
        return None
    means = [
        [fmean(page) for page in zip(*(scores[seed] for seed in seeds), strict=True)]
        for scores in by_seed
    ]
    found = paired(*means)
    return {"difference": found.difference, "low": found.low, "high": found.high, "p": found.p,
            "num_pages": found.num_pages, "num_seeds": len(seeds)}  # fmt: skip


def _noise(
    comparison: Comparison, variant: str, cells: dict[Cell, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Table 5 for a connector: one row for each amount of noise, means over seeds."""
    rows = []
    for place, sigma in enumerate(comparison.sigmas):
        pairs = [(r, r["noise"][place]) for r in cells.values() if len(r["noise"]) > place]
        if not pairs:
            continue
        row: dict[str, Any] = {"connector": variant, "sigma": str(sigma), "num_seeds": len(pairs)}
        row |= {f"noisy_{m}" if m in METRICS else m: _spread(noisy[m] for _, noisy in pairs)
                for m in _NOISE}  # fmt: skip
        for metric in ("anls", "exact"):
            row[f"{metric}_drop"] = _spread(clean[metric] - noisy[metric] for clean, noisy in pairs)
        row["ratio"] = _ratio([noisy for _, noisy in pairs])
        rows.append(row)
    return rows


def _ratio(noisy: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """How far noise moves tokens, in units of how far a page's tokens lie apart.

    There is none where all tokens of a page are the same, but for the last digits of float32.
    """
    moved, apart = ([run[name] for run in noisy] for name in ("noise_distance", "patch_distance"))
    if min(apart) < _ALIKE:
        return {"mean": None, "spread": None}
    spread = _spread(one / other for one, other in zip(moved, apart, strict=True))
    return {**spread, "mean": fmean(moved) / fmean(apart)}


def _search(comparison: Comparison, out: Path, variant: str) -> dict[str, Any]:
    losses, diverged = {}, []
    for cell in comparison.search(variant):
        path, name = out / cell.name / VALIDATION, f"{cell.rate:g}"
        losses[name] = read(path)["loss"] if path.is_file() else None
        if path.is_file() and losses[name] is None:
            diverged.append(name)
    chosen = rate_of(comparison, out, variant)
    return {"connector": variant, "losses": losses, "diverged": diverged, "chosen": chosen}


def _curve(
    comparison: Comparison, out: Path, cells: Iterable[Cell], variant: str
) -> dict[str, Any] | None:
    """Training loss against samples at the largest budget, mean over seeds, smoothed."""
    series = []
    for cell in cells:
        if cell.budget == comparison.budgets[-1]:
            log = each_line(out / cell.name / "log.jsonl")
            series.append([record["loss"] for record in log if record])
    if not series:
        return None
    length = min(map(len, series))
    means = [fmean(values) for values in zip(*(s[:length] for s in series), strict=True)]
    every = max(1, length // _CURVE_POINTS)
    batch = comparison.recipe.batches.num_samples
    points = smoothed(means)[every - 1 :: every]
    return {
        "connector": variant,
        "samples": [batch * every * (place + 1) for place in range(len(points))],
        "loss": points,
    }


def _common_budget(done: Sequence[dict[Cell, dict[str, Any]]]) -> int | None:
    """The largest budget at which every connector that has results has one of the first seed."""
    each = [{cell.budget for cell in cells if cell.seed == 0} for cells in done]
    return max(set.intersection(*each), default=None) if each else None


def _examples(
    comparison: Comparison, done: dict[str, dict[Cell, dict[str, Any]]], budget: int | None
) -> list[dict[str, Any]]:
    """The first pages with the answer of each connector, first seed."""
    chosen = {
        name: result
        for name, cells in done.items()
        for cell, result in cells.items()
        if (cell.budget, cell.seed) == (budget, 0)
    }
    number = min(_NUM_EXAMPLES, comparison.num_pages)
    pages = draw_pages(comparison.recipe, TEST_SEED, number) if chosen else []
    return [
        {
            "key": page.key,
            "question": page.question,
            "answer": page.answer,
            "said": {
                name: {
                    "answer": result["answers"][place],
                    "anls": result["pages"]["anls"][place],
                    "exact": result["pages"]["exact"][place],
                }
                for name, result in chosen.items()
            },
        }
        for place, page in enumerate(pages)
    ]


def _spread(values: Iterable[float]) -> dict[str, float | None]:
    """Mean and standard deviation; the latter is unknown for one value."""
    found = list(values)
    return {"mean": fmean(found), "spread": stdev(found) if len(found) > 1 else None}
