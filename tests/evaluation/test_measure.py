from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from alignvlm.errors import ConfigurationError
from alignvlm.evaluation import measure as module
from alignvlm.evaluation.answers import CONDENSE_WAYS, Asker, Reader
from alignvlm.evaluation.encoder import PDF_KIND
from alignvlm.evaluation.measure import MeasureConfig, measure, planned_pages
from alignvlm.evaluation.report import markdown, read_rows, summarise
from alignvlm.synth.generate import generate
from alignvlm.synth.page import Page
from alignvlm.training.labels import cell_labels

SMALL = MeasureConfig(
    kinds=("easy",), num_easy_pages=1, num_tiles=1, num_condense_pages=1, num_cold=1, seed=3
)


class _Ocr:
    num_reads = 0

    def read(self, image: Image.Image) -> str:
        _Ocr.num_reads += 1
        return "Total: 12"


@pytest.fixture(scope="module")
def rows(model_folder: Path, untuned: Any, tmp_path_factory: Any) -> list[dict[str, Any]]:
    patch = pytest.MonkeyPatch()
    patch.setattr(module, "RapidOcr", _Ocr)
    patch.setattr(module, "load_smollm2", lambda dtype: (untuned.to(dtype), None))
    path = tmp_path_factory.mktemp("run") / "deep" / "predictions.jsonl"
    stages: list[tuple[str, int, int]] = []
    found = measure(
        model_folder,
        SMALL,
        cell_labels,
        path,
        dtype=torch.float32,
        ask_command=[sys.executable, "-S", "-c", "import sys; print(sys.argv[2])"],
        on_progress=lambda *stage: stages.append(stage),
    )
    patch.undo()
    assert read_rows(path) == found
    assert stages[0] == ("cold starts", 1, 1)  # a command that fails does so at once
    assert ("condense", len(CONDENSE_WAYS), len(CONDENSE_WAYS)) in stages
    assert stages[-1] == ("pages", 1, 1)
    assert [stage for stage in stages if stage[0] == "patches"][-1] == ("patches", 6, 6)
    return found


def test_defaults_fit_twelve_minutes_on_two_cores() -> None:
    config = MeasureConfig()
    assert (config.num_easy_pages, config.num_pages, config.questions_per_page) == (20, 3, 3)
    assert (config.num_condense_pages, config.num_pdf_pages) == (3, 10)


def _of(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["row"] == name]


def test_every_system_answers_every_question_of_the_page(rows: list[dict[str, Any]]) -> None:
    page = generate("easy", 3, "heldout")
    asked = [question.question for question in page.questions]
    systems = {row["system"]: [] for row in _of(rows, "answer")}
    for row in _of(rows, "answer"):
        systems[row["system"]].append(row["question"])
    assert list(systems) == [
        "alignvlm",
        "perfect text, tuned LLM",
        "rapidocr, tuned LLM",
        "rapidocr, untuned LLM",
    ]
    assert all(questions == asked for questions in systems.values())


def test_the_page_is_read_once_by_each_reader(rows: list[dict[str, Any]]) -> None:
    assert [row["system"] for row in _of(rows, "reading")] == ["alignvlm", "rapidocr"]
    assert _Ocr.num_reads == 1
    assert all(row["truth"] == generate("easy", 3, "heldout").text for row in _of(rows, "reading"))


def test_all_ways_to_condense_compete_on_one_page(rows: list[dict[str, Any]]) -> None:
    found = _of(rows, "condense")
    assert [row["system"] for row in found] == list(CONDENSE_WAYS)
    tokens = {row["system"]: row["num_tokens"] for row in found}
    assert tokens["none"] == 16 * 32
    assert tokens["prune + average"] <= tokens["prune"] <= tokens["none"]
    assert tokens["average"] <= tokens["none"]


def test_a_cold_start_is_a_process_that_gets_file_and_question(rows: list[dict[str, Any]]) -> None:
    (row,) = _of(rows, "cold")
    assert row["prediction"] == generate("easy", 3, "heldout").questions[0].question
    assert row["seconds"] > 0
    assert row["peak_bytes"] > 1_000_000


def test_the_rows_make_a_report(rows: list[dict[str, Any]]) -> None:
    text = markdown({"run": {"commit": "none"}, "results": summarise(rows)})
    assert "## Ways to condense, easy pages" in text
    json.dumps(summarise(rows))


def test_past_the_limit_no_page_is_begun(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter([0.0] + [100.0] * 1000)
    monkeypatch.setattr(module.time, "monotonic", lambda: next(ticks))
    config = MeasureConfig(kinds=("easy",), num_tiles=1, baselines=False, limit_s=50.0)
    found = measure(model_folder, config, cell_labels, tmp_path / "rows.jsonl", dtype=torch.float32)
    assert {row["row"] for row in found} == {"cells"}


def test_kinds_take_turns() -> None:
    config = MeasureConfig(kinds=("easy", "form"), num_easy_pages=3, num_pages=2, seed=10)
    drawn = [("easy", 10), ("form", 10), ("easy", 11), ("form", 11), ("easy", 12)]
    assert list(planned_pages(config, with_pdfs=False)) == drawn
    config = replace(config, num_pdf_pages=1)
    drawn.insert(2, (PDF_KIND, 10))
    assert list(planned_pages(config, with_pdfs=True)) == drawn


def test_pages_of_held_out_pdfs_are_read_and_not_asked_about(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = generate("easy", 1, "heldout").image
    line = generate("easy", 1, "heldout").lines[0]
    splits: list[str] = []

    def pdf_stream(folder: Path, seed: int, split: str) -> Iterator[Page]:
        assert (folder, seed) == (tmp_path / "pdfs", 3)
        splits.append(split)
        while True:  # files' pages have numbers of their own, here the same
            yield Page(image, (line,), (), "pdf", 7, "manual")

    monkeypatch.setattr(module, "pdf_stream", pdf_stream)
    found = measure(
        model_folder,
        replace(SMALL, num_easy_pages=0, num_condense_pages=0, num_pdf_pages=2, baselines=False),
        cell_labels,
        tmp_path / "rows.jsonl",
        dtype=torch.float32,
        pdfs=tmp_path / "pdfs",
    )
    assert splits == ["heldout"]
    readings = _of(found, "reading")
    assert [(row["kind"], row["seed"]) for row in readings] == [(PDF_KIND, 3), (PDF_KIND, 4)]
    assert all(row["truth"] == line.text for row in readings)
    assert not _of(found, "answer")
    assert summarise(found)["character_error"]["alignvlm"][PDF_KIND]["num_units"] == 2


@pytest.fixture(scope="module")
def reader(model_folder: Path) -> Reader:
    return Reader(model_folder, torch.float32)


def test_answers_are_those_of_the_models_own_generate(reader: Reader) -> None:
    page = generate("easy", 1, "heldout")
    question = page.questions[0].question
    encoded = reader.encode(page.image)
    answer = Asker(reader.model, reader.processor).ask(encoded.tokens, question)
    messages = [
        {
            "role": "user",
            "content": [{"type": "image", "image": page.image}, {"type": "text", "text": question}],
        }
    ]
    inputs = reader.processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    ids = reader.model.generate(**inputs, max_new_tokens=32, do_sample=False, pad_token_id=0)[
        0, inputs["input_ids"].shape[1] :
    ]
    expected = reader.processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
    assert answer.text == expected
    assert answer.text  # a tiny random model says something


def test_the_reading_does_not_depend_on_the_way_to_condense(reader: Reader) -> None:
    image = generate("easy", 1, "heldout").image
    stored = dict(reader.model.config.condense)
    texts = []
    for way in ("spell", "prune", "none"):
        reader.condense(CONDENSE_WAYS[way])
        texts.append(reader.encode(image).text)
    reader.condense(stored)
    assert len(set(texts)) == 1


def test_a_model_that_reads_no_characters_is_refused(
    model_folder: Path, tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(reader.model.config.connector, "vocabulary", None)
    monkeypatch.setattr(
        "alignvlm.evaluation.answers.AlignVLM.from_pretrained", lambda *a, **k: reader.model
    )
    with pytest.raises(ConfigurationError, match="does not read characters"):
        Reader(model_folder, torch.float32)
