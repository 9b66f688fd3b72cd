from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignvlm.evaluation.encoder import PDF_KIND
from alignvlm.evaluation.report import DOCUMENTS, markdown, read_rows, summarise, write_results


def _answer(system: str, kind: str, seed: int, anls: float, seconds: float) -> dict[str, Any]:
    return {
        "row": "answer",
        "system": system,
        "kind": kind,
        "seed": seed,
        "anls": anls,
        "contains": anls == 1.0,
        "page_seconds": 0.5,
        "answer_seconds": seconds,
        "num_tokens": 10,
    }


def _reading(kind: str, seed: int, edits: int, length: int, shared: int) -> dict[str, Any]:
    return {
        "row": "reading", "system": "alignvlm", "kind": kind, "seed": seed, "edits": edits,
        "length": length, "shared": 2 * shared, "both_lengths": 2 * length,
    }  # fmt: skip


def _cells(right: int, total: int, band: list[int]) -> dict[str, Any]:
    return {
        "row": "cells", "band_px": band, "degraded": False, "seed": 0, "text_right": right,
        "text_near": total, "text": total, "spaces_right": 0, "spaces": 0, "empty_right": 9,
        "empty": 10,
    }  # fmt: skip


ROWS: list[dict[str, Any]] = [
    _cells(9, 10, [14, 18]),
    _cells(30, 30, [19, 24]),
    _reading("easy", 0, 1, 10, 9),
    _reading("easy", 1, 2, 40, 40),
    _reading("invoice", 0, 5, 10, 10),
    _reading(PDF_KIND, 0, 10, 10, 8),
    _answer("alignvlm", "easy", 0, 1.0, 1.0),
    _answer("alignvlm", "easy", 0, 0.5, 2.0),
    _answer("alignvlm", "easy", 1, 0.0, 3.0),
    _answer("alignvlm", "invoice", 0, 1.0, 1.0),
    _answer("alignvlm", "letter", 0, 0.0, 1.0),
    _answer("rapidocr, tuned LLM", "easy", 0, 0.25, 1.0),
    {**_answer("spell", "easy", 0, 1.0, 1.5), "row": "condense", "num_tokens": 40},
    {"row": "cold", "kind": "easy", "seconds": 9.0, "peak_bytes": 3_500_000_000},
]


def test_numbers_are_ratios_over_pages() -> None:
    summary = summarise(ROWS)
    assert summary["anls"]["alignvlm"]["easy"]["value"] == pytest.approx(0.5)
    assert summary["anls"]["alignvlm"]["easy"]["num_units"] == 2  # pages, not questions
    assert summary["anls"]["alignvlm"][DOCUMENTS]["value"] == pytest.approx(0.5)
    assert summary["anls"]["rapidocr, tuned LLM"]["easy"]["value"] == 0.25
    assert summary["contains"]["alignvlm"]["easy"]["value"] == pytest.approx(1 / 3)
    assert summary["seconds"]["alignvlm"]["easy"]["value"] == pytest.approx(2.5)
    assert summary["character_error"]["alignvlm"]["easy"]["value"] == pytest.approx(3 / 50)
    assert summary["condense"]["spell"]["tokens"]["value"] == 40
    assert summary["cold"]["easy"]["peak_gb"]["value"] == 3.5
    assert summary["num_questions"] == {"easy": 3, "invoice": 1, "letter": 1}


def test_pages_of_pdfs_are_told_apart_from_drawn_ones() -> None:
    summary = summarise(ROWS)
    errors = summary["character_error"]["alignvlm"]
    assert {kind: number["value"] for kind, number in errors.items()} == {
        "easy": 0.06, "invoice": 0.5, DOCUMENTS: 0.5, PDF_KIND: 1.0,
    }  # fmt: skip
    overlap = summary["character_overlap"]["alignvlm"]
    assert overlap["easy"]["value"] == pytest.approx(49 / 50)
    assert overlap[PDF_KIND]["value"] == pytest.approx(0.8)
    table = markdown({"run": {}, "results": summary})
    assert f"| {PDF_KIND} | 0.800 [0.800, 0.800] (n = 1) |" in table


def test_patch_accuracy_is_over_cells_of_all_sizes_and_of_each() -> None:
    clean = summarise(ROWS)["patches"]["clean"]
    assert clean["14-24 px"]["accuracy"]["value"] == pytest.approx(39 / 40)
    assert clean["14-18 px"]["accuracy"]["value"] == pytest.approx(0.9)
    assert clean["14-18 px"]["accuracy_near"]["value"] == 1.0
    assert clean["14-24 px"]["empty"]["value"] == pytest.approx(0.9)
    assert "spaces" not in clean["14-24 px"]  # there was none to be right about


def test_bars_are_reached_from_the_right_side() -> None:
    bars = {bar["name"]: bar["reached"] for bar in summarise(ROWS)["bars"]}
    assert bars == {
        "character error, easy pages": False,  # 0.06 > 0.05
        "ANLS, easy pages": False,
        "ANLS, documents": True,
        "seconds cold, easy pages": True,
        "seconds warm, easy pages": True,
        "peak memory, easy pages, GB": False,
    }


def test_rows_in_a_file_give_the_same_numbers(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    assert summarise(read_rows(path)) == summarise(ROWS)


def test_no_rows_no_tables() -> None:
    text = markdown({"run": {"commit": "abc"}, "results": summarise([])})
    assert "- commit: abc" in text
    assert "|" not in text


def test_results_are_written_whole(tmp_path: Path) -> None:
    record = {
        "run": {"commit": "abc", "machine": {"cores": 2}, "kinds": ("easy", "form")},
        "results": summarise(ROWS),
    }
    paths = write_results(tmp_path / "results", "default_model", record)
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == [
        "default_model.json",
        "default_model.md",
    ]
    assert json.loads(paths[0].read_text("utf-8"))["results"] == record["results"]
    table = paths[1].read_text("utf-8")
    assert "- machine: cores 2" in table
    assert "- kinds: easy, form" in table
    assert "| ANLS, easy pages | 0.500 [0.000, 0.750] (n = 2) | >= 0.75 | no |" in table
    assert "| kind | alignvlm | rapidocr, tuned LLM |" in table
    assert "| invoice | 1.000 [1.000, 1.000] (n = 1) | - |" in table
