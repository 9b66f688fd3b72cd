"""Everything a report says, as JSON: scores, tables, tests, groups, cases and failures.

Scores are fractions; what is printed is in per cent, as in the paper.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignvlm import __version__
from alignvlm.evaluation.question import Prediction
from alignvlm.evaluation.reporting.cases import (
    Case,
    all_cases,
    disagreeing_cases,
    verdict,
    worst_cases,
)
from alignvlm.evaluation.reporting.estimates import (
    Difference,
    Draws,
    Figure,
    compare_runs,
    figure,
    mean_difference,
)
from alignvlm.evaluation.reporting.paper import paper_tables
from alignvlm.evaluation.reporting.runs import Result, Run
from alignvlm.evaluation.reporting.tables import Figures, make_tables, remarks
from alignvlm.evaluation.reporting.text import shortened
from alignvlm.evaluation.scorers import PAPER_DIALECT
from alignvlm.markup import clean

__all__ = ["Summary", "summarise"]

_DIGITS = 10
_MOST_CHARACTERS = 4000  # of an answer
_VARYING = re.compile(r"('[^']*'|\"[^\"]*\"|(?<!status )(?<!\d)\d+(?:[.,]\d+)*)")
"""What may differ between failures of one kind: names and numbers, but not an HTTP status."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A report before it is written.

    Attributes:
        content: of report.json.
        cases: those that are shown, by what they show, in the content's order.
    """

    content: dict[str, Any]
    cases: tuple[tuple[str, Case], ...]


def summarise(runs: Sequence[Run], draws: Draws, num_cases: int) -> Summary:
    """All numbers of the report and the cases that it shows.

    Args:
        runs: in the order of the tables' rows.
        draws: for intervals and tests.
        num_cases: at most, of each kind and benchmark.

    Raises:
        InputError: scores of one benchmark cannot be put together.
    """
    figures: Figures = {
        (run.label, name): [
            figure(result.scored(place), result.headline, draws, name, str(place))
            for place in range(result.num_measures)
        ]
        for run in runs
        for name, result in run.results.items()
    }
    differences = compare_runs(runs, draws)
    names = list(dict.fromkeys(name for run in runs for name in run.results))
    cases = [found for name in names for found in _chosen(runs, name, num_cases)]
    content = {
        "settings": _settings(runs, draws),
        "runs": [_run(run) for run in runs],
        "results": [
            _result(run, result, figures[run.label, name], runs, draws)
            for run in runs
            for name, result in run.results.items()
        ],
        "tables": make_tables(runs, figures),
        "differences": [_difference(one) for one in differences],
        "mean_differences": _mean_differences(differences),
        "cases": [_case(kind, case) for kind, case in cases],
        "failures": _failures(runs),
    }
    return Summary(content=rounded(content), cases=tuple(cases))


def rounded(value: Any) -> Any:
    """The same with floats to ten decimals, and none for what is no number."""
    if isinstance(value, float):
        return round(value, _DIGITS) + 0.0 if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: rounded(part) for key, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, (list, tuple)) else value


def _settings(runs: Sequence[Run], draws: Draws) -> dict[str, Any]:
    return {
        "alignvlm": __version__,
        "dialect": runs[0].dialect,
        "paper_dialect": PAPER_DIALECT,
        "confidence": 0.95,
        "bootstrap": draws.num,
        "seed": draws.seed,
    }


def _run(run: Run) -> dict[str, Any]:
    known = ("description", "prompt_dialect", "score_dialect", "limit", "versions", "scorers")
    return {
        "label": run.label,
        "folder": run.name,
        "unfinished": list(run.unfinished),
        **{key: _cleaned(run.record[key]) for key in known if key in run.record},
    }


def _cleaned(value: Any) -> Any:
    """The same without home folders and secrets."""
    if isinstance(value, str):
        return clean(value)
    return {k: _cleaned(v) for k, v in value.items()} if isinstance(value, dict) else value


def _result(
    run: Run, result: Result, figures: Sequence[Figure], runs: Sequence[Run], draws: Draws
) -> dict[str, Any]:
    metrics = [
        "+".join(dict.fromkeys(one.score.metric for one in result.scored(place)))
        for place in range(result.num_measures)
    ]
    answered = [one for one in result.predictions if one.error is None]
    tokens = [one.tokens for one in answered if one.tokens is not None]
    firsts = [found[0] for found in result.scores if found]
    return {
        "run": run.label,
        "benchmark": result.name,
        "title": result.title,
        "headline": result.headline,
        "metrics": [
            {"metric": metric, **_numbers(one)}
            for metric, one in zip(metrics, figures, strict=True)
        ],
        "num_questions": len(result.predictions),
        "num_expected": result.num_expected,
        "num_failed": len(result.predictions) - len(answered),
        "num_unparsed": sum(bool(one.parts.get("unparsed")) for one in firsts),
        "num_cut": sum(not one.complete for one in answered),
        "seconds": _mean([one.seconds for one in answered]),
        "tokens": _mean(tokens),
        "remarks": remarks(run, result, runs, figures),
        "groups": _groups(result, draws),
    }


def _groups(result: Result, draws: Draws) -> list[dict[str, Any]]:
    if len(result.groups) < 2:
        return []
    made = []
    for name in result.groups:
        members = [one.alone(name) for one in result.scored() if name in one.groups]
        found = figure(members, "mean", draws, result.name, "group", name)
        made.append({"group": name, **_numbers(found), "num_questions": len(members)})
    return made


def _numbers(found: Figure) -> dict[str, Any]:
    return {
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "units": found.kind,
        "num_units": found.num_units,
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _difference(one: Difference) -> dict[str, Any]:
    return {key: value for key, value in vars(one).items() if key != "values"}


def _mean_differences(differences: Sequence[Difference]) -> list[dict[str, Any]]:
    """Of every two runs, over the columns of Table 1 and of each part of Table 3."""
    pairs = dict.fromkeys((one.first, one.second) for one in differences)
    sets = dict.fromkeys(
        group.benchmarks for table in paper_tables() for group in table.column_groups
    )
    made = []
    for first, second in pairs:
        of_pair = [one for one in differences if (one.first, one.second) == (first, second)]
        for names in sets:
            found = [one for one in of_pair if one.benchmark in names]
            if len(found) > 1:
                made.append({"first": first, "second": second, **mean_difference(found)})
    return list({json.dumps(one): one for one in made}.values())


def _chosen(runs: Sequence[Run], benchmark: str, most: int) -> list[tuple[str, Case]]:
    """Cases of a benchmark, none of them twice."""
    cases = all_cases(runs, benchmark)
    apart = disagreeing_cases(cases, most)
    shown = {case.question.id for case in apart}
    worst = worst_cases([case for case in cases if case.question.id not in shown], most)
    return [("disagreeing", case) for case in apart] + [("worst", case) for case in worst]


def _case(kind: str, case: Case) -> dict[str, Any]:
    return {
        "benchmark": case.benchmark,
        "kind": kind,
        "id": case.question.id,
        "group": case.question.group,
        "question": case.question.question,
        "answers": case.question.answers,
        "said": [
            {
                "run": one.run,
                "answer": None
                if one.prediction.raw is None
                else shortened(one.prediction.raw, _MOST_CHARACTERS),
                "verdict": verdict(one.value),
                "value": one.value,
                "metric": one.score.metric,
                "parts": dict(one.score.parts),
                "complete": one.prediction.complete,
                "error": one.prediction.error,
            }
            for one in case.said
        ],
    }


def _failures(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """By run, benchmark and reason, names and numbers in it aside; the most frequent first."""
    made = []
    for run in runs:
        for name, result in run.results.items():
            failed = [one for one in result.predictions if one.error is not None]
            kinds: dict[tuple[str, ...], list[Prediction]] = defaultdict(list)
            for one in failed:
                kinds[tuple(_VARYING.split(clean(one.error))[::2])].append(one)
            for alike in sorted(kinds.values(), key=len, reverse=True):
                made.append({
                    "run": run.label, "benchmark": name,
                    "reason": _common([clean(one.error) for one in alike]),
                    "num_failed": len(alike),
                    "example": {"id": alike[0].id, "error": clean(alike[0].error)},
                    "ids": [one.id for one in alike],
                })  # fmt: skip
    return made


def _common(errors: Sequence[str]) -> str:
    """Texts of one kind as one, with "…" where they differ."""
    places = zip(*map(_VARYING.split, errors), strict=True)
    return "".join(found[0] if len(set(found)) == 1 else "…" for found in places)
