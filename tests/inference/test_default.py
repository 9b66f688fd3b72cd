"""The default model put together from its parts, and what can be wrong with them."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from alignvlm.errors import WeightsError
from alignvlm.inference import default
from alignvlm.inference.default import default_model_folder, ensure_default_model
from alignvlm.inference.loading import load_model, load_processor
from alignvlm.weights.cache import is_complete

CPU = torch.device("cpu")


def test_every_weight_is_where_it_belongs(shipped: Any) -> None:
    folder = ensure_default_model(progress=False)
    stored = load_file(folder / "model.safetensors")
    base = load_file(shipped.base / "model.safetensors")
    adapter = load_file(shipped.folder / default.ADAPTER)
    for name, weight in base.items():
        expected = weight.double().numpy()
        key = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{key}.lora_A.weight" in adapter:
            half_a, half_b = (adapter[f"{key}.lora_{half}.weight"].double() for half in "AB")
            expected = expected + 8 / 4 * (half_b.numpy() @ half_a.numpy())
        found = stored[name.replace("model.", "model.language_model.", 1)].double().numpy()
        assert abs(found - expected).max() <= 2**-8 * max(1, abs(expected).max()), name
    for name, tensor in load_file(shipped.folder / default.PARTS).items():
        assert torch.equal(stored[f"model.{name}"], tensor), name
    assert sum("lora" in name for name in adapter) == 8


def test_the_folder_is_an_ordinary_one(model_folder: Path) -> None:
    assert is_complete(model_folder)
    model = load_model(model_folder, CPU, torch.float32)
    processor = load_processor(model_folder)
    assert not model.training
    assert model.dtype == torch.float32
    assert processor.image_token_id == model.config.image_token_id
    assert model.generation_config.eos_token_id == 2


def test_it_is_assembled_once(shipped: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ensure_default_model(progress=False)
    monkeypatch.setattr(default, "_assemble", lambda *_: pytest.fail("assembled again"))
    assert ensure_default_model() == folder == default_model_folder()


def test_other_files_make_another_folder(shipped: Any) -> None:
    before = default_model_folder()
    shipped.save(adapter_config={"r": 4, "lora_alpha": 16})
    assert default_model_folder() != before


def test_another_source_of_the_language_model_makes_another_folder(
    shipped: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folder_of(*sources: str) -> Path:
        monkeypatch.setattr(default, "possible_sources", lambda: sources)
        return default_model_folder()

    hub = folder_of("hub")
    assert folder_of("package") != hub == folder_of("hub", "package")
    folder_of("package").mkdir(parents=True)
    assert folder_of("hub", "package") == folder_of("package"), "the one that is there"
    assert folder_of("hub") == hub


def test_the_name_waits_for_what_the_language_model_turns_out_to_be(
    shipped: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(_: bool) -> Path:
        monkeypatch.setattr(default, "possible_sources", lambda: ("package",))
        return shipped.base

    monkeypatch.setattr(default, "possible_sources", lambda: ("hub",))
    monkeypatch.setattr(default, "ensure_smollm2", fetch)
    expected_of_the_hub = default_model_folder()
    assert ensure_default_model() == default_model_folder() != expected_of_the_hub
    assert not expected_of_the_hub.exists()


def refused(match: str) -> None:
    with pytest.raises(WeightsError, match=match) as caught:
        ensure_default_model(progress=False)
    assert str(caught.value).isprintable()
    assert "pip install" in str(caught.value)


@pytest.mark.parametrize("name", default._FILES)
def test_a_missing_file_is_named(shipped: Any, name: str) -> None:
    (shipped.folder / name).unlink()
    refused(f"no default model, .* lacks {re.escape(name)}")


def test_an_adapter_of_another_kind_is_refused(shipped: Any) -> None:
    shipped.save(adapter_config={"r": 4, "lora_alpha": 8, "use_dora": True})
    refused("sets use_dora")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"base_model.model.lm_head.weight": (2, 2)}, "holds base_model.model.lm_head.weight"),
        (
            {"base_model.model.model.layers.9.mlp.up_proj.lora_A.weight": (4, 32)},
            "no matching pair for model.layers.9",
        ),
        (
            {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": (4, 31)},
            r"has \[32, 31\] for model.layers.0.self_attn.q_proj",
        ),
    ],
)
def test_an_adapter_for_another_model_is_refused(
    shipped: Any, change: dict[str, tuple[int, int]], match: str
) -> None:
    tensors = load_file(shipped.folder / default.ADAPTER)
    shipped.save(adapter=tensors | {key: torch.zeros(shape) for key, shape in change.items()})
    refused(match)


def test_parts_of_other_shapes_are_refused(shipped: Any) -> None:
    tensors = load_file(shipped.folder / default.PARTS)
    name = "connector.norm_d.weight"
    shipped.save(parts=tensors | {name: torch.zeros(5)})
    refused(r"has \[5\] for connector.norm_d.weight")
    shipped.save(parts={key: value for key, value in tensors.items() if key != name})
    refused("lacks or has too much: connector.norm_d.weight")


@pytest.mark.parametrize("name", default._FILES)
def test_a_damaged_file_is_refused(shipped: Any, name: str) -> None:
    path = shipped.folder / name
    path.write_bytes(path.read_bytes()[:40])
    refused("do not fit this version")


def test_a_full_disk_leaves_nothing(shipped: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default, "_NEEDED_BYTES", 10**18)
    with pytest.raises(WeightsError, match=r"is full .* free some space"):
        ensure_default_model(progress=False)
    assert [name for name in os.listdir(shipped.cache) if not name.endswith(".lock")] == []


def test_a_disk_that_fills_up_leaves_nothing(shipped: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(folder: Path, _: Path) -> None:
        (folder / "half").write_bytes(b"x")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(default, "_assemble", fill)
    with pytest.raises(WeightsError, match="is full"):
        ensure_default_model(progress=False)
    assert [name for name in os.listdir(shipped.cache) if not name.endswith(".lock")] == []


def test_a_truncated_cache_is_built_again(
    model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = model_folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    assert ensure_default_model() == model_folder
    assert weights.read_bytes() == whole
    assert "are damaged (model.safetensors); building them again" in capsys.readouterr().err


def test_a_corrupt_cache_is_built_again_when_it_does_not_load(model_folder: Path) -> None:
    weights = model_folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(b"\xff" * 64 + whole[64:])  # the same size, no readable header
    assert load_model(model_folder, CPU, torch.float32) is not None
    assert weights.read_bytes() == whole


@pytest.mark.parametrize("marked", [True, False])
def test_a_users_own_damaged_folder_is_left_alone(
    model_folder: Path, tmp_path: Path, marked: bool
) -> None:
    """Also a copy of the cache's folder, in which the marker of a folder of ours lies."""
    own = tmp_path / "own"
    shutil.copytree(model_folder, own)
    if not marked:
        (own / "complete.json").unlink()
    (own / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(WeightsError, match="complete safetensors"):
        load_model(own, CPU, torch.float32)
    assert (own / "model.safetensors").stat().st_size == 64
    assert (own / "complete.json").exists() is marked


def test_a_damaged_folder_is_told_of_without_the_shipped_files(
    shipped: Any, model_folder: Path
) -> None:
    (model_folder / "model.safetensors").write_bytes(b"\xff" * 64)
    (shipped.folder / default.SETTINGS).unlink()
    with pytest.raises(WeightsError, match="complete safetensors"):
        load_model(model_folder, CPU, torch.float32)


def test_merging_keeps_what_the_adapter_leaves_out() -> None:
    linear = torch.nn.Sequential(torch.nn.Linear(3, 2, bias=False), torch.nn.Linear(2, 2))
    before = {name: weight.clone() for name, weight in linear.state_dict().items()}
    tensors = {
        "base_model.model.0.lora_A.weight": torch.ones(1, 3),
        "base_model.model.0.lora_B.weight": torch.tensor([[1.0], [2.0]]),
    }
    default.merge_lora(linear, tensors, {"r": 1, "lora_alpha": 3})
    after = linear.state_dict()
    change = after["0.weight"] - before["0.weight"]
    torch.testing.assert_close(change, torch.tensor([[3.0] * 3, [6.0] * 3]))
    assert torch.equal(after["1.weight"], before["1.weight"])
