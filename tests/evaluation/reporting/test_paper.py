"""The paper's numbers: as many as it prints, and averages that fit their rows."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from alignvlm.evaluation.reporting.paper import PaperTable, paper_tables, paper_vcr

TABLES = {table.name: table for table in paper_tables()}

# Averages that are not the mean of their row rounded to two decimals: (table, model, printed).
# All but one are cut instead of rounded.
CUT = {
    ("Table 1", "GPT-4o 20240806", "64.91"),
    ("Table 1", "Qwen2-VL-2B", "55.84"),
    ("Table 1", "Qwen2.5-VL-3B", "65.10"),
    ("Table 1", "InternVL-3-2B", "57.64"),
    ("Table 1", "Ovis-1.6-Gemma2-9B", "62.96"),
    ("Table 1", "Llama3.2-11B", "34.04"),
    ("Table 1", "ALIGNVLM-Llama-3.2-3B (ours)", "58.81"),
    ("Table 1", "DocOwl1.5-8B (base+)", "57.56"),
    ("Table 2", "Llama-3.2-3B-MLP", "53.06"),
    ("Table 2", "Llama-3.2-3B-Perciever R.", "50.68"),
    ("Table 2", "Llama-3.2-3B-Ovis", "54.72"),
    ("Table 2", "Llama-3.2-3B-ALIGN (ours)", "58.81"),
    ("Table 3", "Llama-3.2-3B-MLP", "53.59"),
    ("Table 3", "Llama-3.2-3B-Perceiver", "33.64"),
    ("Table 3", "Llama-3.2-3B-Perceiver", "53.17"),
    ("Table 3", "Llama-3.2-3B-Hreducer", "54.18"),
    ("Table 3", "Llama-3.2-3B-HoneyBee", "47.16"),
    ("Table 3", "Llama-3.2-3B-ALIGN (ours)", "56.88"),
}
WRONG = {("Table 1", "Fuyu-8B", "22.97")}


def averages(table: PaperTable) -> list[tuple[str, str, Fraction, Fraction]]:
    """(model, as printed, the average, the mean of its columns), without rounding."""
    found = []
    for row in table.rows:
        start = 0
        for group in table.column_groups:
            stop = start + len(group.benchmarks)
            values = [Fraction(f"{value:.2f}") for value in row.values[start:stop]]
            printed = f"{row.values[stop]:.2f}"
            found.append((row.model, printed, Fraction(printed), sum(values) / len(values)))
            start = stop + 1
    return found


def test_every_row_and_column_is_there() -> None:
    assert [(name, len(table.rows)) for name, table in TABLES.items()] == [
        ("Table 1", 26), ("Table 2", 4), ("Table 3", 6),
    ]  # fmt: skip
    for table in TABLES.values():
        num = sum(len(group.headings) + 1 for group in table.column_groups)
        assert all(len(row.values) == num for row in table.rows)
        assert all(len(group.headings) == len(group.benchmarks) for group in table.column_groups)
        assert all(0 < value < 100 for row in table.rows for value in row.values)
    sections = [row.section.split(" (")[0] for row in TABLES["Table 1"].rows]
    assert [sections.count(name) for name in dict.fromkeys(sections)] == [3, 17, 6]


@pytest.mark.parametrize("name", TABLES)
def test_averages_are_the_means_of_their_rows(name: str) -> None:
    for model, printed, average, mean in averages(TABLES[name]):
        rounded = Fraction(math.floor(100 * mean + Fraction(1, 2)), 100)
        cut = Fraction(math.floor(100 * mean), 100)
        at = (name, model, printed)
        if at in WRONG:
            assert abs(average - mean) > 1
        elif at in CUT:
            assert average == cut != rounded, at
        else:
            assert average == rounded, at


def test_tables_agree_where_they_show_the_same_model() -> None:
    (one,) = [r for r in TABLES["Table 1"].rows if r.model == "ALIGNVLM-Llama-3.2-3B (ours)"]
    (two,) = [r for r in TABLES["Table 2"].rows if r.model == "Llama-3.2-3B-ALIGN (ours)"]
    assert one.values == two.values
    assert TABLES["Table 1"].benchmarks == TABLES["Table 2"].benchmarks


def test_what_the_paper_says_in_words_stands_in_its_tables() -> None:
    """Section 5: 58.81, and +9.22, +2.62, +2.97 and +1.17 between averages."""
    last = {row.model: row.values[-1] for row in TABLES["Table 1"].rows}
    ours = last["ALIGNVLM-Llama-3.2-3B (ours)"]
    assert ours == 58.81
    assert ours - last["Qwen2-VL-2B (base+)"] == pytest.approx(9.22)
    assert ours - last["Qwen2-VL-2B"] == pytest.approx(2.97)
    assert ours - last["InternVL-3-2B"] == pytest.approx(1.17)
    eight = last["ALIGNVLM-Llama-3.1-8B (ours)"]
    assert eight - last["Llama3.2-11B (base+)"] == pytest.approx(2.62)


def test_vcr_has_differences_alone() -> None:
    vcr = paper_vcr()
    assert vcr.differences == {"vcr_easy": 14.41, "vcr_hard": 10.18}
    assert "10.18% on the hard" in vcr.quote and "14.41% on the easy" in vcr.quote
