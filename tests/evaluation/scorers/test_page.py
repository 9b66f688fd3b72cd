"""The page about metrics: its examples run, its tables are what the package has."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any

import pytest

from alignvlm.evaluation import GOLDEN_NAMES, aggregate, metric_name, metric_names, score

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


OPTIONS = {"options": {"A": "x", "B": "y", "C": "z"}}
TEN = ["15"] * 10
READ = "normalised_prediction"
V25, V26, LMMS = "vlmevalkit-2025.05", "vlmevalkit-2026.08", "lmms-eval"

# Of each row of the table of differences: measure, prediction, answers, part of the score if not
# its value, and what it is in each dialect.
DIFFERENCES: dict[str, list[tuple[str, Any, Any, str, dict[str, Any]]]] = {
    "ANLS of exactly 0.5": [
        (
            "anls",
            "ab",
            ["abcd"],
            "",
            dict.fromkeys((V25, V26, LMMS, "mmf", "anls_star-1.0.1"), 0.5),
        ),
        ("anls", "ab", ["abcd"], "", dict.fromkeys(("due", "pix2struct", "anls-0.0.2"), 0.0)),
        ("anls", "ab", ["abcd"], "", {"strict": 0.0}),
    ],
    "ANLS divides by": [
        ("anls", "abc", ["abd  e"], "length", {V25: 6, V26: 6, LMMS: 6, "strict": 5, "mmf": 6}),
    ],
    "ANLS, blanks": [
        ("anls", "a  b", ["a b"], "distance", {V25: 0, V26: 0, LMMS: 0, "strict": 0}),
        ("anls", "a  b", ["a b"], "distance", {"due": 1, "pix2struct": 1, "mmf": 1}),
        ("anls", "a  b", ["a b"], "distance", {"anls-0.0.2": 0, "anls_star-1.0.1": 0}),
        ("anls", " ab", ["ab"], "distance", {"due": 1, "pix2struct": 1, "mmf": 0}),
    ],
    "ChartQA, 14.71 for 14": [
        ("relaxed_accuracy", "14.71", ["14"], "", {V25: 1, V26: 0, LMMS: 0, "pix2struct": 0}),
        ("relaxed_accuracy", "14.71", ["14"], "", {"docowl": 0, "strict": 0}),
    ],
    'ChartQA, gold "[2018, 2019]"': [
        ("relaxed_accuracy", "2019", ["[2018, 2019]"], "", {V25: 1, V26: 1, LMMS: 0, "docowl": 0}),
        ("relaxed_accuracy", "[2018, 2019]", ["[2018, 2019]"], "", {V25: 0, V26: 0, LMMS: 1}),
    ],
    'ChartQA, 1.05 for 1; "0.0" for "0"': [
        ("relaxed_accuracy", "1.05", ["1"], "", {V25: 1, V26: 0, LMMS: 0, "strict": 1}),
        ("relaxed_accuracy", "0.0", ["0"], "", {V25: 0, V26: 0, LMMS: 0, "strict": 1}),
    ],
    'TextVQA, "15." for "15"': [
        ("vqa_soft_accuracy", "15.", TEN, "", {V25: 1, V26: 0, LMMS: 1, "mmf": 1, "official": 0}),
        ("vqa_soft_accuracy", "15.", ["15"] * 9 + ["16"], "", {"official": 1}),
    ],
    'TextVQA, "hello,world" is read': [
        ("vqa_soft_accuracy", "hello,world", [], READ, {V25: "hello world", V26: "hello world"}),
        ("vqa_soft_accuracy", "hello,world", [], READ, {LMMS: "helloworld", "mmf": "helloworld"}),
    ],
    'GQA, "Yes." for "yes"': [("exact_match", "Yes.", ["yes"], "", {V25: 0, V26: 0, LMMS: 1})],
    'GQA, "b" where "a" and "b" are right': [
        ("exact_match", "b", ["a", "b"], "", {V25: 0.5, V26: 0.5, LMMS: 1}),
    ],
    "VTabFact's gold": [
        ("tablevqa_tabfact", "true", "1", "", {V25: 1, V26: 1, "official": 0}),
        ("tablevqa_tabfact", "false", 0, "", {V25: 0, V26: 0, "official": 1}),
    ],
    "choice, letter before the last five words": [
        ("seed_choice", "B it is, as one can see", ["B"], "extracted", {V25: "B", V26: "Z"}),
    ],
    'choice, "A or B: the answer is **C**"': [
        ("seed_choice", "A or B: the answer is **C**", ["C"], "extracted", {V25: "Z", V26: "C"}),
    ],
    'SEED-Bench, "(C)" and "d"': [
        ("seed_choice", "(C)", ["C"], "extracted", {V25: "C", V26: "C", LMMS: "("}),
        ("seed_choice", "(C)", ["C"], "unparsed", {V25: False, V26: False, LMMS: True}),
        ("seed_choice", "d", ["D"], "", {V25: 0, V26: 0, LMMS: 1}),
    ],
    'MMMU, "A then B"': [
        ("mmmu_choice", "A then B", "B", "", {V25: 0, V26: 0, LMMS: 1, "official": 1}),
        ("mmmu_choice", "A then B", "B", "unparsed", {V25: True, V26: True}),
    ],
    'MMMU, "A. then 5" and "xB it"': [
        ("mmmu_choice", "A. then 5", "A", "", {V25: 1, V26: 1, LMMS: 1, "official": 0}),
        ("mmmu_choice", "xB it", "B", "", {V25: 0, V26: 0, LMMS: 1, "official": 0}),
    ],
    "MMMU, no choice found": [
        ("mmmu_choice", "none", "B", "", {V25: 0, V26: 0, LMMS: 0, "official": 0}),
        ("mmmu_choice", "none", "B", "unparsed", {V25: True, LMMS: True, "official": True}),
    ],
    "MMMU, open question": [
        ("mmmu_open", "so 5.30", "5.3", "", {V25: 1, V26: 1, LMMS: 0, "official": 1}),
        ("mmmu_open", "other answers", "5.3", "extracted", {V25: "B", V26: "B"}),
    ],
    'POPE, "Yes, a dog"': [
        ("pope", "Yes, a dog", "Yes", "", {V25: 1, V26: 1, LMMS: 0}),
        ("pope", "Yes, a dog", "Yes", "unparsed", {V25: False, V26: False, LMMS: True}),
    ],
    'MM-Vet, reply "0.5 because"': [
        ("mmvet_judge_parse", ["0.5 because", "1"], None, "", {V25: 1, V26: 1, LMMS: 0.5}),
    ],
    'MM-Vet, reply "nan"': [
        ("mmvet_judge_parse", ["nan"], None, "judge_calls", {V25: 1, V26: 1, LMMS: 32}),
        ("mmvet_judge_parse", ["nan"], None, "", {LMMS: 0.0}),
    ],
    'VCR, "Assistant: " before the answer': [
        ("vcr_exact_match", "a Assistant: b", ["a"], "", {V25: 0, V26: 0, LMMS: 1}),
    ],
    '`+pipeline`, "n/a" and "= 14" are read': [
        ("anls", "n/a", ["nan"], "", {f"{V25}+pipeline": 1, f"{V26}+pipeline": 1}),
        ("relaxed_accuracy", "= 14", ["0"], "", {f"{V25}+pipeline": 1, f"{V26}+pipeline": 0}),
    ],
}
ELSEWHERE = {  # below, and in test_values and test_judge
    'WTQ, "17" for "17 years"',
    "POPE over a set",
    "MM-Vet, the prompt's examples",
}


@pytest.mark.parametrize("case", DIFFERENCES)
def test_the_table_of_differences_is_true(case: str) -> None:
    for measure, said, golds, part, wanted in DIFFERENCES[case]:
        for dialect, value in wanted.items():
            options = OPTIONS if measure.endswith("_choice") else {}
            found = score(f"{measure}@{dialect}", said, golds, **options)
            assert (found.parts[part] if part else found.value) == value, (dialect, said)


def test_pope_over_a_set_differs_by_toolkit() -> None:
    pairs = [("Yes", "Yes"), ("maybe", "Yes"), ("no", "No")]
    paper, later, other = (
        aggregate([score(f"pope@{dialect}", said, gold) for said, gold in pairs])
        for dialect in (V25, V26, LMMS)
    )
    report = paper.parts["report"]["Overall"]
    assert paper.value == later.value == report["Overall"] / 100 == pytest.approx(2 / 3)
    assert (report["recall"], other.parts["report"]["recall"]) == (50.0, 1.0)
    assert other.value == other.parts["report"]["accuracy"] == 2 / 3


def test_every_difference_is_shown_to_be_true() -> None:
    table = PAGE[PAGE.index("| case |") :].split("\n\n")[0]
    cases = [row.split(" | ")[0].removeprefix("| ") for row in table.splitlines()[2:]]
    assert sorted(cases) == sorted({*DIFFERENCES, *ELSEWHERE})
