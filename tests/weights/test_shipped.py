from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from alignvlm.errors import WeightsError
from alignvlm.weights import shipped


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Shipped files of a model of one matrix."""
    monkeypatch.setattr(shipped, "SHIPPED_FOLDER", tmp_path)
    parts = {"vision_model.norm.weight": torch.ones(4).bfloat16(), "connector.w1": torch.ones(2)}
    save_file(parts, tmp_path / shipped.PARTS)
    down, up = torch.arange(6.0).reshape(2, 3), torch.eye(3)[:, :2].contiguous()
    lora = {"base_model.model.up.lora_A.weight": down, "base_model.model.up.lora_B.weight": up}
    save_file(lora, tmp_path / shipped.ADAPTER)
    config = {"r": 2, "lora_alpha": 4, "peft_type": "LORA"}
    (tmp_path / shipped.ADAPTER_CONFIG).write_text(json.dumps(config), "utf-8")
    return tmp_path


def model() -> nn.ModuleDict:
    return nn.ModuleDict({"up": nn.Linear(3, 3, bias=False)})


def test_vision_weights_have_the_encoder_s_own_names(folder: Path) -> None:
    weights = shipped.vision_weights()
    assert list(weights) == ["norm.weight"]
    assert weights["norm.weight"].dtype == torch.float32


def test_the_adapter_is_added(folder: Path) -> None:
    made = model()
    before = made["up"].weight.detach().clone()
    shipped.add_adapter(made)
    delta = 2 * torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [0.0, 0.0, 0.0]])
    assert torch.allclose(made["up"].weight, before + delta)


@pytest.mark.parametrize("name", [shipped.ADAPTER, shipped.ADAPTER_CONFIG])
@pytest.mark.parametrize("content", [None, b"{"])
def test_missing_and_damaged_files_are_one_sentence(
    folder: Path, name: str, content: bytes | None
) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(WeightsError, match=f"{name} cannot be read: run `pip install"):
        shipped.add_adapter(model())


def test_an_adapter_of_another_model(folder: Path) -> None:
    with pytest.raises(WeightsError, match="no matching pair for up"):
        shipped.add_adapter(nn.ModuleDict({"down": nn.Linear(3, 3)}))
