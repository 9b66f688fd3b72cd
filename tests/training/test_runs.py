"""From a run's configuration to the loop's settings and a task."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import foreign_vlm as foreign
import pytest
import tiny_vlm as tiny

from alignvlm.data.formats import synth
from alignvlm.data.formats.synth import ENDLESS
from alignvlm.data.sources import open_source
from alignvlm.errors import ConfigurationError, InputError, WeightsError
from alignvlm.model.processing import AlignVLMProcessor
from alignvlm.synth import find_fonts
from alignvlm.training.configuration import (
    BatchConfig,
    DataPart,
    LoraConfig,
    ModelConfig,
    OptimizerConfig,
    Rates,
    RunConfig,
)
from alignvlm.training.loop import train
from alignvlm.training.runs import num_steps, open_run, train_config
from alignvlm.training.task import Share


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    model = tiny.make_model()
    model.save_pretrained(folder / "model")
    AlignVLMProcessor.build(tiny.make_tokenizer(), model.config).save_pretrained(folder / "model")
    model, processor = foreign.llava()
    model.save_pretrained(folder / "llava")
    processor.save_pretrained(folder / "llava")
    rows = [
        {"messages": [{"role": "user", "content": "q" * (n + 1)},
                      {"role": "assistant", "content": "a" * (5 - n)}]}
        for n in range(5)
    ]  # fmt: skip
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def config(folder: Path, **changes: Any) -> RunConfig:
    start = RunConfig(
        recipe="tiny",
        model=ModelConfig(pretrained=str(folder / "model")),
        rates=Rates(connector=1e-3, llm=1e-4),
        data=(DataPart(source="messages", path=str(folder / "rows.jsonl")),),
        batches=BatchConfig(num_samples=2, max_tokens=256, max_tiles=12, max_text_tokens=100),
        precision="float32",
        num_workers=0,
    )
    return replace(start, **changes)


def test_a_run_is_opened_as_it_is_described(folder: Path) -> None:
    run = config(folder, epochs=2.0, optimizer=OptimizerConfig(warmup_ratio=0.4, eps=1e-6), seed=7)
    task, settings = open_run(run, "cpu")
    assert settings.num_steps == 5 and settings.warmup_steps == 2 and settings.batch_size == 2
    assert (settings.eps, settings.seed, settings.learning_rate) == (1e-6, 7, 1e-3)
    assert task.recipe() == json.loads(json.dumps(task.recipe()))
    assert task.recipe()["data"][0]["path"] == str(folder / "rows.jsonl")
    rows = list(task.micro_batches(settings, 0, Share()))
    keys = [key for row in rows for key in row.keys]
    expected = sorted(f"messages/rows.jsonl:{n}" for n in range(1, 6))
    assert sorted(keys[:5]) == sorted(keys[5:]) == expected


def test_another_model_gets_its_own_encoder(folder: Path) -> None:
    run = config(folder, model=ModelConfig(pretrained=str(folder / "llava")))
    task, settings = open_run(run, "cpu")
    rows = list(task.micro_batches(settings, 0, Share()))
    assert all(len(row.keys) == 1 for row in rows)  # it does not pack
    assert task.loss(rows[0].tensors).weight == int((rows[0].tensors["labels"] != -100).sum())


@pytest.mark.parametrize(
    ("epochs", "epoch_size", "steps"),
    [(1.0, 8, 2), (1.0, 9, 3), (0.5, 8, 1), (0.01, 8, 1), (2.5, 8, 5)],
)
def test_the_number_of_steps(folder: Path, epochs: float, epoch_size: int, steps: int) -> None:
    batches = BatchConfig(num_samples=4)
    assert num_steps(config(folder, epochs=epochs, batches=batches), epoch_size) == steps
    assert num_steps(config(folder, epochs=epochs, num_steps=77), epoch_size) == 77


def test_data_without_end_need_a_number_of_steps(folder: Path) -> None:
    endless = config(folder, data=(DataPart(source="synth", options={"kinds": ["easy"]}),))
    with pytest.raises(ConfigurationError, match="An epoch of data without end never ends: set n"):
        open_run(endless, "cpu")
    assert num_steps(replace(endless, num_steps=3), ENDLESS) == 3
    part = DataPart(source="synth", options={"num_pages": 5})
    assert num_steps(replace(endless, data=(part,)), 5) == 3


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"data": (DataPart(source="messages", path="no/where.jsonl"),)}, InputError, "no/where"),
        ({"data": (DataPart(source="messages"),)}, ConfigurationError, "needs files: give its pat"),
        ({"data": (DataPart(source="messages", path="{folder}/none.jsonl"),)}, ConfigurationError,
         "has no rows: check its path"),
        ({"model": ModelConfig(pretrained="no/where")}, WeightsError, "can be loaded from 'no/wh"),
        ({"model": ModelConfig(pretrained="{folder}/model", dtype="bfloat16")}, ConfigurationError,
         "needs precision=bfloat16"),
        ({"sharding": "zero3"}, ConfigurationError, "needs a GPU"),
        ({"lora": LoraConfig(quantize=True)}, ConfigurationError, "needs bitsandbytes and a GPU"),
    ],
)  # fmt: skip
def test_what_cannot_run(
    folder: Path, changes: dict[str, Any], error: type[Exception], said: str
) -> None:
    (folder / "none.jsonl").write_text("")
    text = str(folder)
    if "data" in changes and changes["data"][0].path:
        path = changes["data"][0].path.replace("{folder}", text)
        changes = {"data": (replace(changes["data"][0], path=path),)}
    if "model" in changes:
        place = changes["model"].pretrained.replace("{folder}", text)
        changes = {"model": replace(changes["model"], pretrained=place)}
    with pytest.raises(error) as raised:
        open_run(config(folder, **changes), "cpu")
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_a_mixture_of_nothing(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"The run has no data: set data\.0\.source"):
        config(folder, data=())


def data_of(run: RunConfig) -> str | None:
    return train_config(run, 100, "cpu").data


@pytest.mark.parametrize(
    "changes",
    [{"rates": Rates(connector=1e-5, llm=1e-6)}, {"num_workers": 3}, {"keep": 5},
     {"batches": BatchConfig(num_samples=2, max_tokens=128, max_tiles=3, max_text_tokens=100,
                             pack=False)},
     {"trackers": ("wandb",)}],
)  # fmt: skip
def test_what_may_change_when_a_run_goes_on(folder: Path, changes: dict[str, Any]) -> None:
    """Lower rates after a bad step, smaller rows after running out of memory."""
    assert data_of(config(folder, **changes)) == data_of(config(folder))
    model = ModelConfig(pretrained=str(folder / "model"), gradient_checkpointing=True)
    assert data_of(config(folder, model=model)) == data_of(config(folder))


@pytest.mark.parametrize(
    "changes",
    [{"rates": Rates(connector=1e-3)}, {"lora": LoraConfig()},
     {"data": (DataPart(source="messages", path="other.jsonl"),)},
     {"batches": BatchConfig(num_samples=2, max_tokens=256, max_tiles=12, max_text_tokens=99)},
     {"model": ModelConfig(pretrained="other")}],
)  # fmt: skip
def test_what_may_not(folder: Path, changes: dict[str, Any]) -> None:
    assert data_of(config(folder, **changes)) != data_of(config(folder))


def test_a_file_that_has_grown_is_other_data(folder: Path, tmp_path: Path) -> None:
    """Its rows would come in another order: some twice, some never."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text((folder / "rows.jsonl").read_text())
    run = config(folder, data=(DataPart(source="messages", path=str(rows)),), num_steps=2)
    train(*open_run(run, "cpu"), tmp_path / "run")
    rows.write_text(rows.read_text() * 2)
    with pytest.raises(ConfigurationError, match=r"started with another data \(rows\): give"):
        train(*open_run(run, "cpu"), tmp_path / "run")


@pytest.mark.usefixtures("fonts")
def test_other_fonts_are_other_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source("synth", None, {"kinds": ["easy"]})
    before = source.fingerprint()
    assert source.fingerprint() == before
    fewer = find_fonts("train")[1:]
    monkeypatch.setattr(synth, "find_fonts", lambda _: fewer)
    assert source.fingerprint() != before
