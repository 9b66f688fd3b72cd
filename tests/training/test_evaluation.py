"""Benchmarks while a model trains: the scores of that moment, and a training that is the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_vlm as tiny
import torch
from PIL import Image

from alignvlm.evaluation.benchmarks import Benchmark, own_benchmark
from alignvlm.evaluation.models import open_model
from alignvlm.evaluation.running import Settings, evaluate_model, read_predictions
from alignvlm.evaluation.running.in_training import evaluator
from alignvlm.training.loop import train
from alignvlm.training.tracking import read_log


@pytest.fixture
def questions(tmp_path: Path) -> Benchmark:
    rows = []
    for number in range(3):
        Image.new("RGB", (40 + 9 * number, 30), (number * 90, 10, 10)).save(
            tmp_path / f"{number}.png"
        )
        rows.append({"image": f"{number}.png", "question": f"Q{number}?", "answers": ["a"]})
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return own_benchmark(tmp_path / "mine.jsonl", "anls", prompt="{question}")


def run(folder: Path, questions: Benchmark | None, **changes: Any) -> list[dict[str, Any]]:
    task = tiny.make_task()
    config = tiny.config(num_steps=4, **changes)
    evaluate = None if questions is None else evaluator(
        task.processor, [questions], folder, Settings(max_failed=0.0),
        precision=getattr(torch, config.precision),
    )  # fmt: skip
    train(task, config, folder, evaluate=evaluate)
    return read_log(folder)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_is_what_it_is_without(
    tmp_path: Path, questions: Benchmark, precision: str
) -> None:
    plain = run(tmp_path / "plain", None, precision=precision)
    asked = run(tmp_path / "asked", questions, precision=precision, evaluate_every=2)
    assert ["eval/mine" in record for record in asked] == [False, True, False, True]
    assert [record["loss"] for record in asked] == [record["loss"] for record in plain]
    files = [tmp_path / name / "model" / "model.safetensors" for name in ("plain", "asked")]
    assert files[0].read_bytes() == files[1].read_bytes()
    configs = [path.with_name("generation_config.json").read_text() for path in files]
    assert configs[0] == configs[1]


def test_answers_are_those_of_the_model_of_that_moment(
    tmp_path: Path, questions: Benchmark
) -> None:
    folder = tmp_path / "run"
    log = run(folder, questions, evaluate_every=4)
    saved = open_model(folder / "model", device="cpu", dtype="float32")
    scores = evaluate_model(saved, [questions], tmp_path / "later", Settings())
    assert log[-1]["eval/mine"] == scores["mine"]["headline"]["value"]
    at_the_end = read_predictions(folder / "evaluation/step-00000004/mine/predictions.jsonl")
    later = read_predictions(tmp_path / "later/mine/predictions.jsonl")
    assert [one.raw for one in at_the_end] == [one.raw for one in later]
    facts = json.loads((folder / "evaluation/step-00000004/run.json").read_text())
    assert facts["description"]["version"] == "run, 4 steps"
