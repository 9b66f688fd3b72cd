"""Where the data of a benchmark is: what the user names, the data home, or the Hub."""

from __future__ import annotations

import os
from pathlib import Path

from alignvlm.errors import AlignVLMError, InputError, UsageError
from alignvlm.evaluation.benchmarks.drawn import DrawnHome
from alignvlm.evaluation.benchmarks.hub_home import HubHome
from alignvlm.evaluation.benchmarks.own import OwnHome
from alignvlm.evaluation.benchmarks.record import Benchmark, QuestionSet
from alignvlm.imaging.sources import quoted
from alignvlm.paths import cache_dir

__all__ = ["data_folder", "open_questions"]


def data_folder(benchmark: Benchmark) -> Path:
    """Where a benchmark's files are looked for; the folder need not exist.

    Its name in `ALIGNVLM_DATA` if that is set, else in `benchmarks` of the cache folder.
    """
    if home := os.environ.get("ALIGNVLM_DATA"):
        return Path(home).expanduser() / benchmark.name
    return cache_dir() / "benchmarks" / benchmark.name


def open_questions(benchmark: Benchmark, data: str | Path | None = None) -> QuestionSet:
    """The questions of a benchmark; rows are read when they are asked for.

    Args:
        benchmark: which one.
        data: a file or folder in any of its forms. None: `data_folder`, then the Hub.

    Raises:
        InputError: there is no data, columns are missing, ids are not different, or a file that
            is called as a published one is not it.
        UsageError: `data` is given where none is read.
        MissingDependencyError: pyarrow is needed and not installed.
    """
    first = benchmark.homes[0]
    if isinstance(first, DrawnHome):
        if data is not None:
            raise UsageError(f"{benchmark.title} are drawn, nothing is read: {first.remedy}")
        return first.open(benchmark, Path())
    if data is not None:
        return _open_given(benchmark, Path(data).expanduser())
    if isinstance(first, OwnHome):
        return _open_given(benchmark, first.path)
    folder = data_folder(benchmark)
    if folder.is_dir() and (found := _open(benchmark, folder)):
        return found
    return _fetched(benchmark, folder)


def _open(benchmark: Benchmark, place: Path) -> QuestionSet | None:
    for home in benchmark.homes:
        if (found := home.find(place)) is not None:
            return home.open(benchmark, found)
    return None


def _open_given(benchmark: Benchmark, place: Path) -> QuestionSet:
    if not place.exists():
        raise InputError(f"There is no file or folder {quoted(str(place))}: check the path")
    if found := _open(benchmark, place):
        return found
    raise InputError(
        f"{quoted(str(place))} holds no {benchmark.split} split of {benchmark.title}: "
        f"{_remedy(benchmark)}"
    )


def _fetched(benchmark: Benchmark, folder: Path) -> QuestionSet:
    """From the Hub, if it is there and can be reached."""
    home = next((home for home in benchmark.homes if isinstance(home, HubHome)), None)
    reason = ""
    if home is not None:
        try:
            return home.open(benchmark, home.fetch())
        except AlignVLMError:
            raise
        except Exception as error:  # network libraries raise many kinds
            reason = f" and the Hub could not be reached ({type(error).__name__})"
    raise InputError(
        f"There is no data of {benchmark.title} in {quoted(str(folder))}{reason}: "
        f"{_remedy(benchmark)}"
    )


def _remedy(benchmark: Benchmark) -> str:
    return ", or ".join(home.remedy for home in benchmark.homes)
