"""lmms-eval, as installed, asks a model of ours about a task of ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DIALECT = "lmms-eval"

TASK = """
task: alignvlm_pages
dataset_path: json
dataset_kwargs:
  data_files:
    test: {rows}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.doc_to_visual
doc_to_text: !function utils.doc_to_text
doc_to_target: answers
generation_kwargs:
  max_new_tokens: 32
  temperature: 0
metric_list:
  - metric: anls
    aggregation: mean
    higher_is_better: true
"""

UTILS = """
from PIL import Image


def doc_to_visual(doc):
    return [Image.open(doc["image"]).convert("RGB")]


def doc_to_text(doc):
    return doc["question"] + "\\nAnswer the question using a single word or phrase."
"""


@pytest.fixture(scope="module")
def expected(ask: Callable[..., list[Any]]) -> list[Any]:
    return ask(DIALECT)


@pytest.fixture(scope="module")
def task(expected: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    rows = folder / "pages.jsonl"
    rows.write_text(
        "".join(
            json.dumps(
                {"image": str(one.image), "question": one.question, "answers": one.answers}
            ) + "\n"
            for one in expected
        )
    )  # fmt: skip
    (folder / "alignvlm_pages.yaml").write_text(TASK.format(rows=rows))
    (folder / "utils.py").write_text(UTILS)
    return folder


@pytest.mark.parametrize("batch_size", [1, 4])
def test_predictions_and_scores_are_ours(
    task: Path, expected: list[Any], model_folder: str, start: Callable[..., str],
    tmp_path: Path, batch_size: int,
) -> None:  # fmt: skip
    start(
        "lmms_eval",
        ["--model", "alignvlm", "--model_args", f"pretrained={model_folder},dtype=float32",
         "--device", "cpu", "--tasks", "alignvlm_pages", "--include_path", task,
         "--batch_size", batch_size, "--output_path", tmp_path, "--log_samples"],
    )  # fmt: skip
    samples = sorted(tmp_path.rglob("*_samples_alignvlm_pages.jsonl"))
    rows = [json.loads(line) for line in samples[0].read_text().splitlines()]
    rows.sort(key=lambda row: row["doc_id"])
    assert [row["filtered_resps"] for row in rows] == [one.text for one in expected]
    assert [row["input"] for row in rows] == [one.prompt for one in expected]

    results = json.loads(next(tmp_path.rglob("*_results.json")).read_text())
    value = results["results"]["alignvlm_pages"]["anls,none"]
    assert value == pytest.approx(sum(one.score for one in expected) / len(expected), abs=1e-9)
