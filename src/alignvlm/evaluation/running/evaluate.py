"""From a model and benchmarks to a run's folder with predictions and scores."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import alignvlm
from alignvlm.errors import InputError
from alignvlm.evaluation.benchmarks import (
    Benchmark,
    QuestionSet,
    find_benchmark,
    open_questions,
    put,
    rule_of,
)
from alignvlm.evaluation.models.base import EvaluatedModel
from alignvlm.evaluation.question import Prediction
from alignvlm.evaluation.running.folder import BenchmarkFolder, RunFolder
from alignvlm.evaluation.running.predicting import Asker
from alignvlm.evaluation.running.processes import Processes
from alignvlm.evaluation.running.progress import Count, Progress, check_failed
from alignvlm.evaluation.running.scoring import (
    check_dialect,
    check_judge,
    score_predictions,
    scorers_version,
)
from alignvlm.evaluation.scorers import PAPER_DIALECT, Judge
from alignvlm.evaluation.scorers.registry import PIPELINE

__all__ = ["Settings", "evaluate_model", "rescore"]

_PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "pillow", "rapidfuzz")
_NUM_COMPARED = 32


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a model is evaluated.

    Attributes:
        dialect: whose scores are computed; a measure that lacks it is taken in its own default.
        prompt_dialect: whose prompts are put; None: the dialect's own.
        limit: the first so many questions of each benchmark; None: all.
        data: benchmark's name to the file or folder that its questions are in; benchmarks that
            are not named are looked for where they usually are.
        max_failed: share of a benchmark's questions that may fail.
        judge: grades MM-Vet.
        command: for the run's record.
    """

    dialect: str = PAPER_DIALECT
    prompt_dialect: str | None = None
    limit: int | None = None
    data: Mapping[str, Path] | None = None
    max_failed: float = 0.05
    judge: Judge | None = None
    command: str = ""


Told = Callable[[Progress], None]


def evaluate_model(
    model: EvaluatedModel,
    benchmarks: Sequence[str | Benchmark],
    run: Path,
    settings: Settings | None = None,
    *,
    processes: Processes | None = None,
    told: Told | None = None,
) -> dict[str, dict[str, Any]]:
    """Ask a model all questions, write predictions and scores, and go on where a run ended.

    To be called by all processes of a run, and alike; each asks a part of the questions. Questions
    that failed at an earlier start are asked again.

    Args:
        model: is asked in batches of its `batch_size`.
        benchmarks: names or records; done in this order.
        run: folder; one that holds a run of the same settings is gone on with.
        settings: how.
        processes: this one among others; None: it is alone.
        told: how far this process is, after every answer.

    Returns:
        The content of each benchmark's `scores.json`, by its name.

    Raises:
        UsageError: the folder holds a run of other settings or other data, another command writes
            there, or MM-Vet has no judge.
        InputError: questions cannot be found, or more than the set share failed.
        AlignVLMError: the model cannot be loaded.
    """
    settings, processes = settings or Settings(), processes or Processes()
    folder = RunFolder(run)
    with folder.locked() if processes.is_main else nullcontext():
        with processes.together():
            check_dialect(settings.dialect)
            opened = [_open(each, folder, settings) for each in benchmarks]
            check_judge((m for one in opened for m in one.benchmark.measures), settings.judge)
            if processes.is_main:
                folder.begin(_facts(model, [one.benchmark.name for one in opened], settings,
                                    processes.num_processes))  # fmt: skip
        with processes.together():
            _check_shared(folder)
        found = {
            one.benchmark.name: _evaluate(one, model, settings, processes, told) for one in opened
        }
        if processes.is_main:
            folder.end()
    return found


def rescore(run: Path, dialect: str, judge: Judge | None = None) -> dict[str, dict[str, Any]]:
    """Score a run's predictions in another dialect; writes `scores-<dialect>.json`.

    Neither the model nor the benchmark is needed. Without a judge MM-Vet's answers are graded by
    the replies that were given before, where the dialect asks in the same words.

    Returns:
        The content of each benchmark's file, by its name.

    Raises:
        UsageError: there is no such dialect, or a judge is needed.
        InputError: the folder holds no run, or a benchmark of it is not whole.
    """
    check_dialect(dialect)
    folder = RunFolder(run)
    facts = folder.read()
    if facts is None:
        raise InputError(f"{run} holds no run.json: name the folder of a run of `alignvlm eval`")
    found = {}
    for name in facts["benchmarks"]:
        of_benchmark = folder.benchmark(name)
        headline = of_benchmark.record().get("headline", "mean")
        found[name] = score_predictions(
            of_benchmark.whole(),
            benchmark=name, headline=headline, dialect=dialect, judge=judge,
        )  # fmt: skip
        of_benchmark.write_scores(f"scores-{dialect}.json", found[name])
    return found


@dataclass(frozen=True)
class _Opened:
    benchmark: Benchmark
    questions: QuestionSet
    num_questions: int
    folder: BenchmarkFolder
    prompt_dialect: str


def _open(each: str | Benchmark, folder: RunFolder, settings: Settings) -> _Opened:
    benchmark = find_benchmark(each) if isinstance(each, str) else each
    data = (settings.data or {}).get(benchmark.name)
    questions = open_questions(benchmark, data)
    num_questions = min(len(questions), settings.limit or len(questions))
    wanted = settings.prompt_dialect or settings.dialect.removesuffix(PIPELINE)
    dialect, _ = rule_of(benchmark, wanted)
    return _Opened(
        benchmark, questions, num_questions, folder.benchmark(benchmark.name), dialect
    )  # fmt: skip


def _evaluate(
    one: _Opened,
    model: EvaluatedModel,
    settings: Settings,
    processes: Processes,
    told: Told | None,
) -> dict[str, Any]:
    with processes.together():
        if processes.is_main:
            one.folder.begin(_record(one))
        done = one.folder.done()
        _check_same_questions(one, done)
    _ask(one, model, settings, processes, told, done)
    scores: dict[str, Any] = {}
    with processes.together():
        processes.gather(None)  # all parts are whole now
        if processes.is_main:
            scores = _finish(one, settings)
    return processes.gather(scores)[0]


def _ask(
    one: _Opened,
    model: EvaluatedModel,
    settings: Settings,
    processes: Processes,
    told: Told | None,
    done: Mapping[int, Prediction],
) -> None:
    """Asks this process's part of what is not done."""
    name, own = one.benchmark.name, range(one.num_questions)
    own = own[processes.rank :: processes.num_processes]
    answered = [done[index] for index in own if index in done and done[index].error is None]
    pending = [index for index in own if index not in done or done[index].error is not None]
    asker = Asker(
        model=model,
        questions=one.questions.__getitem__,
        put=partial(put, one.benchmark, dialect=one.prompt_dialect),
        measures=one.benchmark.measures,
        dialect=settings.dialect,
        judge=settings.judge,
        batch_size=model.batch_size,
    )
    count = Count(name, len(own), answered, one.num_questions, settings.max_failed)
    if told is not None:
        told(count.progress())
    if not pending:
        return
    with one.folder.writer(processes.rank) as write:
        for index, prediction in asker.predict(pending):
            write(index, prediction)
            count.add(prediction)
            if told is not None:
                told(count.progress())
            count.check()


def _finish(one: _Opened, settings: Settings) -> dict[str, Any]:
    """Puts the parts together; returns the scores."""
    done = one.folder.done()
    missing = [index for index in range(one.num_questions) if index not in done]
    if missing:
        raise InputError(
            f"{len(missing)} predictions of {one.benchmark.name} are not in {one.folder.path}: "
            "the folder must be one that all processes see"
        )
    predictions = [done[index] for index in range(one.num_questions)]
    failed = [prediction for prediction in predictions if prediction.error is not None]
    check_failed(one.benchmark.name, failed, one.num_questions, settings.max_failed)
    scores = score_predictions(
        predictions, benchmark=one.benchmark.name, headline=one.benchmark.headline,
        dialect=settings.dialect,
    )  # fmt: skip
    one.folder.finish(predictions, scores)
    return scores


def _check_same_questions(one: _Opened, done: Mapping[int, Prediction]) -> None:
    """Compares some of the earlier predictions with what would be asked now."""
    beyond = [index for index in done if index >= one.num_questions]
    indices = sorted(index for index in done if done[index].error is None)
    # Lines of a file that has lost some cannot be told apart by their places.
    is_cut = one.folder.predictions.is_file() and len(done) < one.num_questions
    step = 1 if is_cut else max(1, len(indices) // _NUM_COMPARED)
    differing = beyond
    for index in indices[::step] if not beyond else []:
        question = one.questions[index]
        asked = put(one.benchmark, question, one.prompt_dialect)
        now = (question.id, asked.sha256, _as_json(question.answers))
        if (done[index].id, done[index].prompt_sha256, done[index].answers) != now:
            differing = [index]
            break
    if differing:
        raise InputError(
            f"{one.folder.path} holds an answer to another question than number "
            f"{differing[0] + 1} of {one.benchmark.name} now is: the data or the prompts have "
            "changed, choose another folder with --run"
        )


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _check_shared(folder: RunFolder) -> None:
    if folder.read() is None:
        raise InputError(
            f"{folder.path} is not the folder that process 0 writes into: it must be one that all "
            "processes see"
        )


def _record(one: _Opened) -> dict[str, Any]:
    """The content of `benchmark.json`."""
    return {
        **one.benchmark.to_record(),
        "num_questions": one.num_questions,
        "prompt_dialect": one.prompt_dialect,
        "prompt": asdict(rule_of(one.benchmark, one.prompt_dialect)[1]),
        "home": one.questions.home,
        "where": one.questions.where,
        "digest": one.questions.digest,
    }


def _facts(
    model: EvaluatedModel, benchmarks: list[str], settings: Settings, num_processes: int
) -> dict[str, Any]:
    """The content of `run.json` without the times."""
    versions = {"alignvlm": alignvlm.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "model": model.name,
        "description": model.describe(),
        "benchmarks": benchmarks,
        "score_dialect": settings.dialect,
        "prompt_dialect": settings.prompt_dialect or settings.dialect,
        "limit": settings.limit,
        "versions": versions,
        "scorers": scorers_version(),
        "command": settings.command,
        "num_processes": num_processes,
        "batch_size": model.batch_size,
    }
