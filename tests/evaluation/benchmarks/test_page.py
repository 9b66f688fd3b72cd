"""The page about benchmarks: its examples run, its table is what the records say."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

from alignvlm.evaluation.benchmarks import BENCHMARKS

PAGE = (Path(__file__).parents[3] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
FORMS = {"tsv": "TSV", "hub": "Hub", "docdownstream": "DocDownstream", "drawn": "drawn"}
BLOCK = re.compile(r"^```pycon\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_the_examples_run() -> None:
    blocks = BLOCK.findall(PAGE)
    assert len(blocks) == PAGE.count("```pycon") == 3
    examples = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "page", None, 0)
    assert doctest.DocTestRunner(verbose=False).run(examples).failed == 0


def test_the_table_is_what_the_records_say() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE
    )
    shown = [row for row in rows if row[0] in BENCHMARKS]
    expected = []
    for one in BENCHMARKS.values():
        number = "not established" if one.num_expected is None else f"{one.num_expected:,}"
        known = f" ({one.num_source})" if one.num_source else ""
        forms = ", ".join(FORMS[home.kind] for home in one.homes)
        expected.append((one.name, one.title, one.split, number + known, forms))
    assert shown == expected
