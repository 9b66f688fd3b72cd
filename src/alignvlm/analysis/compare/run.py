"""All cells of a comparison, one after the other or several at a time."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from alignvlm.analysis.compare.cell import RESULT, VALIDATION, Bench, Stopped, best_of, read
from alignvlm.analysis.compare.plan import Cell, Comparison, settle
from alignvlm.errors import ConfigurationError
from alignvlm.training.workers import end_with_parent

__all__ = ["Estimate", "compare", "estimate", "rate_of"]

Told = Callable[[str, int], None]
"""Called with what is being done and the samples trained on since the last call."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What is left of a comparison.

    Attributes:
        num_cells, num_done: training runs in all, and those that are scored or need no score.
        num_samples, samples_done: that they are trained on, grounded steps included.
        seconds_left: of this machine at the rates measured so far; None before the first cell.
    """

    num_cells: int
    num_done: int
    num_samples: int
    samples_done: int
    seconds_left: float | None


def compare(
    comparison: Comparison,
    out: Path,
    device: str,
    *,
    jobs: int = 1,
    threads: int = 1,
    keep_models: bool = False,
    told: Told = lambda what, samples: None,
) -> bool:
    """Run every cell that is not done yet.

    Args:
        comparison: what to run.
        out: its folder.
        device: where.
        jobs: cells at a time, each in a process of its own where there are several.
        threads: of each process.
        keep_models: leave the trained models in their run folders, 0.6 GB each for SmolLM2.
        told: for a progress bar.

    Returns:
        Whether all is done; else a signal came, and the same call goes on.

    Raises:
        ConfigurationError: the folder holds another comparison, or another process is at work.
    """
    settle(comparison, out)
    with _alone(out):
        _set_up(threads)
        bench = Bench(comparison, out, device, keep_models)
        try:
            _work(bench, [partial(Bench.search, variant=v) for v in comparison.variants],
                  list(comparison.variants), jobs, threads, told)  # fmt: skip
            cells = [cell for cell in _in_order(comparison, out) if not _is_done(out, cell)]
            _work(bench, [partial(Bench.score, cell=cell) for cell in cells],
                  [cell.name for cell in cells], jobs, threads, told)  # fmt: skip
        except (Stopped, KeyboardInterrupt):
            return False
    return True


def rate_of(comparison: Comparison, out: Path, variant: str) -> float | None:
    """The rate that was chosen for a variant; None while a run is missing, or if none was good."""
    cells = comparison.search(variant)
    paths = [out / cell.name / VALIDATION for cell in cells]
    if not all(path.is_file() for path in paths):
        return None
    losses = [read(path)["loss"] for path in paths]
    best = best_of(dict(zip(cells, losses, strict=True)))
    return None if best is None else best.rate


def estimate(comparison: Comparison, out: Path) -> Estimate:
    """How much there is to do, how much is done, and how long the rest takes."""
    seconds: dict[str, list[float]] = {}
    sizes: list[tuple[Cell, int, bool]] = []
    for cell in _all(comparison, out):
        grounded = comparison.num_grounded_steps(cell) * comparison.recipe.batches.num_samples
        path = out / cell.name / VALIDATION
        sizes.append((cell, cell.budget + grounded, path.is_file()))
        if path.is_file():
            found = read(path)
            spent = found["train_seconds"] / max(1, found["samples"])
            seconds.setdefault(cell.variant, []).append(spent)
    means = {variant: sum(values) / len(values) for variant, values in seconds.items()}
    usual = sum(means.values()) / len(means) if means else None
    left = None
    if usual is not None:
        left = sum(means.get(c.variant, usual) * size for c, size, done in sizes if not done)
    return Estimate(
        num_cells=len(sizes),
        num_done=sum(done for _, _, done in sizes),
        num_samples=sum(size for _, size, _ in sizes),
        samples_done=sum(size for _, size, done in sizes if done),
        seconds_left=left,
    )


def _all(comparison: Comparison, out: Path) -> Iterator[Cell]:
    """Every training run, those of rates not chosen included."""
    for variant in comparison.variants:
        search = comparison.search(variant)
        yield from search
        rate = rate_of(comparison, out, variant) or search[0].rate
        yield from (cell for cell in comparison.scored(variant, rate) if cell not in search)


def _in_order(comparison: Comparison, out: Path) -> list[Cell]:
    """Cells to score, so that a comparison that is cut short has whole columns of its table."""
    found = []
    for variant in comparison.variants:
        rate = rate_of(comparison, out, variant)
        assert rate is not None  # every search is over
        found += list(comparison.scored(variant, rate))
    return sorted(found, key=lambda cell: (cell.budget, cell.seed))


def _is_done(out: Path, cell: Cell) -> bool:
    return (out / cell.name / RESULT).is_file()


def _work(
    bench: Bench, calls: list[Any], names: list[str], jobs: int, threads: int, told: Told
) -> None:
    """Make calls on the bench, here or in processes."""
    if jobs == 1:
        for call, name in zip(calls, names, strict=True):
            told(name, 0)
            call(replace(bench, on_samples=partial(told, name)))
        return
    context = multiprocessing.get_context("spawn")
    start = partial(_set_up_worker, threads)
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=start) as pool:
        futures: dict[Future[Any], str] = {
            pool.submit(call, bench): name for call, name in zip(calls, names, strict=True)
        }
        try:
            for future in as_completed(futures):
                future.result()
                told(futures[future], 0)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _set_up(threads: int) -> None:
    """A process that runs cells: its threads, and no bars for every model loaded or saved."""
    import torch
    from transformers.utils import logging

    torch.set_num_threads(threads)
    logging.disable_progress_bar()


def _set_up_worker(threads: int) -> None:
    """The same in a process that must not go on without the one that gives it cells."""
    end_with_parent()
    _set_up(threads)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigurationError(
            f"Another process works on the comparison in {out}: wait until it ends, or choose "
            "another folder with --out"
        ) from error
    try:
        yield
    finally:
        lock.release()
