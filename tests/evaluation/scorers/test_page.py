"""The page about metrics: its examples run, its tables are what the package has."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

from alignvlm.evaluation import GOLDEN_NAMES, metric_name, metric_names

PAGE = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```pycon\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_the_examples_run() -> None:
    blocks = BLOCK.findall(PAGE)
    assert len(blocks) == PAGE.count("```pycon") >= 15
    examples = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "page", None, 0)
    assert len(examples.examples) >= 35
    assert doctest.DocTestRunner(verbose=False).run(examples).failed == 0


def test_the_table_of_recorded_names_is_whole() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(\S+@\S+)` \| (\w+) \|$", PAGE, re.MULTILINE)
    assert {name: (metric, part) for name, metric, part in rows} == GOLDEN_NAMES


def test_the_table_of_benchmarks_names_defaults() -> None:
    rows = re.findall(r"^\| [^|]+ \| (`\w+`[^|]*) \| `([\w.-]+)` \| [^|]+ \|$", PAGE, re.MULTILINE)
    assert len(rows) == 15
    for measures, dialect in rows:
        for measure in re.findall(r"`(\w+)`", measures):
            assert metric_name(measure) == f"{measure}@{dialect}"


def test_every_dialect_is_explained() -> None:
    text = PAGE[PAGE.index("### Dialects") : PAGE.index("| case |")]
    for name in metric_names():
        assert f"`{name.partition('@')[2].removesuffix('+pipeline')}`" in text
