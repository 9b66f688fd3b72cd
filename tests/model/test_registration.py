"""`import alignvlm.model` makes the Auto classes know AlignVLM."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
)

import alignvlm
from alignvlm.model import (
    AlignVLMConfig,
    AlignVLMForConditionalGeneration,
    AlignVLMImageProcessor,
    AlignVLMModel,
    AlignVLMProcessor,
)

Make = Callable[..., AlignVLMForConditionalGeneration]


@pytest.fixture
def folder(make: Make, processor: AlignVLMProcessor, tmp_path: Path) -> Path:
    make().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    return tmp_path


def test_auto_classes_load_a_folder(folder: Path, make: Make, tiny: SimpleNamespace) -> None:
    assert type(AutoConfig.from_pretrained(folder)) is AlignVLMConfig
    assert type(AutoImageProcessor.from_pretrained(folder)) is AlignVLMImageProcessor
    processor = AutoProcessor.from_pretrained(folder)
    assert type(processor) is AlignVLMProcessor
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert type(model) is AlignVLMForConditionalGeneration
    inputs = processor.apply_chat_template(
        tiny.ask("Total?", tiny.page(60, 40)), tokenize=True, return_dict=True, return_tensors="pt"
    )
    expected = make()
    assert torch.equal(model(**inputs).logits, expected(**inputs).logits)
    headless = AutoModel.from_pretrained(folder)
    assert type(headless) is AlignVLMModel
    assert torch.equal(
        headless(**inputs).last_hidden_state, expected.model(**inputs).last_hidden_state
    )


def test_servers_build_from_the_configuration(tiny: SimpleNamespace) -> None:
    with torch.device("meta"):
        model = AutoModel.from_config(tiny.config())
    assert type(model) is AlignVLMModel
    assert {name.partition(".")[0] for name, _ in model.named_parameters()} == {
        "vision_model",
        "connector",
        "language_model",
    }


def test_public_names_are_these_classes() -> None:
    assert alignvlm.AlignVLMConfig is AlignVLMConfig
    assert alignvlm.AlignVLMProcessor is AlignVLMProcessor


def test_one_public_name_registers_everything(folder: Path) -> None:
    code = (
        "import sys, alignvlm; assert 'transformers' not in sys.modules; alignvlm.AlignVLM;"
        "from transformers import AutoConfig; AutoConfig.from_pretrained(sys.argv[1])"
    )
    command = [sys.executable, "-c", code, str(folder)]
    assert subprocess.run(command, check=False).returncode == 0
