"""Code that lies beside a model's files is not run, whoever loads them and whatever is answered."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from alignvlm.errors import AlignVLMError, WeightsError
from alignvlm.evaluation.models import open_model
from alignvlm.inference.loading import load_processor
from alignvlm.model import AlignVLM, AlignVLMProcessor
from alignvlm.model.foreign import load_foreign_part, reason
from alignvlm.training.configuration import ModelConfig
from alignvlm.training.cost.architecture import architecture, processor_of
from alignvlm.training.models import build_model

make: Any = AlignVLM  # type checkers take a class that refuses to be made for a function


@pytest.fixture
def hostile(
    processor: AlignVLMProcessor, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A model folder whose files want code of its own; who is asked says yes."""
    folder = tmp_path / "model"
    tiny.config().save_pretrained(folder)
    processor.save_pretrained(folder)
    for file, wanted in {
        "config.json": {"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.Theirs"}},
        "tokenizer_config.json": {
            "tokenizer_class": "Theirs", "auto_map": {"AutoTokenizer": [None, "theirs.Theirs"]},
        },
        "processor_config.json": {
            "processor_class": "Theirs", "auto_map": {"AutoProcessor": "theirs.Theirs"},
        },
    }.items():  # fmt: skip
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | wanted))
    (folder / "theirs.py").write_text(
        f"open({str(tmp_path / 'run')!r}, 'w').close()\nTheirs = object\n"
    )
    monkeypatch.setattr(builtins, "input", lambda *_: "y")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    return folder


LOADERS: dict[str, Callable[[str], Any]] = {
    "a processor": lambda folder: load_processor(Path(folder)),
    "a processor, by its class": AlignVLMProcessor.from_pretrained,
    "a model to evaluate": lambda folder: open_model(folder, device="cpu"),
    "a model to train": lambda folder: build_model(ModelConfig(pretrained=folder)),
    "a model to plan": lambda folder: architecture(ModelConfig(pretrained=folder)),
    "the processor of a plan": lambda folder: processor_of(ModelConfig(pretrained=folder)),
    "a vision encoder": lambda folder: make.build(vision=folder, llm=folder, connector="mlp"),
    "a tokenizer": lambda folder: AlignVLMProcessor.build(folder, None),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("what", LOADERS)
def test_no_answer_makes_a_folder_s_code_run(what: str, hostile: Path, tmp_path: Path) -> None:
    with pytest.raises((AlignVLMError, ValueError)):
        LOADERS[what](str(hostile))
    assert not (tmp_path / "run").exists()


def test_the_fixture_would_run_it(hostile: Path, tmp_path: Path) -> None:
    with pytest.raises(AttributeError):
        AutoConfig.from_pretrained(hostile)
    assert (tmp_path / "run").exists()


def test_a_message_names_the_model_as_it_was_called(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"loaded from 'theirs/model' .*: its config\.json must"):
        load_foreign_part(AutoConfig, tmp_path, "config.json", name="theirs/model")


@pytest.mark.parametrize(
    ("said", "wanted"),
    [("", ""), ("No file.\nSecond line", ": No file"), ("x" * 200, ": " + "x" * 120)],
)
def test_a_reason_is_one_short_line(said: str, wanted: str) -> None:
    assert reason(ValueError(said)) == wanted
