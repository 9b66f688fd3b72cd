"""Which models can be opened, and what is said of those that cannot."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from alignvlm.errors import (
    ConfigurationError,
    MissingDependencyError,
    UsageError,
    WeightsError,
)
from alignvlm.evaluation.models import open_model
from alignvlm.evaluation.question import Prompt

Make = Callable[..., Prompt]


def test_other_weights_are_another_model(own_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(own_folder, copy)
    first = open_model(own_folder, device="cpu").describe()["sha256"]
    assert open_model(copy, device="cpu").describe()["sha256"] == first
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    assert open_model(copy, device="cpu").describe()["sha256"] != first


def test_a_snapshot_has_a_revision(own_folder: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123abcd"
    shutil.copytree(own_folder, snapshot)
    described = open_model(snapshot, device="cpu").describe()
    assert described["revision"] == "0123abcd" and "sha256" not in described


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def test_a_chat_template_for_text_alone(foreign_folders: dict[str, Path], tmp_path: Path) -> None:
    """As old repositories have it: asked through it, the model would never see its image."""
    folder = copied(foreign_folders["llava"], tmp_path / "copy")
    (folder / "chat_template.jinja").unlink()
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": "{{ messages }}"}))
    with pytest.raises(ConfigurationError, match="is its tokenizer's, which knows no images: save"):
        open_model(folder, device="cpu")


def test_a_model_that_reads_no_images(untuned: Any, own_folder: Path, tmp_path: Path) -> None:
    untuned.save_pretrained(tmp_path)
    shutil.copy(own_folder / "tokenizer.json", tmp_path)
    with pytest.raises(ConfigurationError, match="of type 'llama', which takes no images"):
        open_model(tmp_path, device="cpu")


def test_a_folder_without_a_processor(foreign_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(foreign_folders["llava"], tmp_path / "copy")
    for name in ("processor_config.json", "preprocessor_config.json"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises((ConfigurationError, WeightsError)) as told:
        open_model(folder, device="cpu")
    assert "processor" in str(told.value) and "\n" not in str(told.value)


def test_code_beside_the_weights_is_never_run(
    foreign_folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = copied(foreign_folders["llava"], tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "theirs.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
    with pytest.raises(WeightsError, match=r"its config\.json must be whole and of a kind"):
        open_model(folder, device="cpu")
    assert not (tmp_path / "run").exists()


def test_missing_and_damaged_weights(
    foreign_folders: dict[str, Path], make_prompt: Make, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = copied(foreign_folders["llava"], tmp_path / "copy")
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    gone = sorted(tensors)[0]
    save_file({k: v for k, v in tensors.items() if k != gone}, weights, {"format": "pt"})
    model = open_model(folder, device="cpu")
    with pytest.raises(WeightsError, match=r"lack 1 tensors of the model \(first: "):
        model.answer([make_prompt(0)])
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"its weights \(\*\.safetensors\) must be whole"):
        open_model(folder, device="cpu").answer([make_prompt(0)])


def test_pickles_are_not_read(foreign_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(foreign_folders["llava"], tmp_path / "copy")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"has no weights \(\*\.safetensors\)"):
        open_model(folder, device="cpu")


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is installed")
def test_a_missing_package_is_named(foreign_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(foreign_folders["qwen2_vl"], tmp_path / "copy")
    path = folder / "processor_config.json"
    videos = {"video_processor_type": "Qwen2VLVideoProcessor"}
    config = {"processor_class": "Qwen2VLProcessor", "video_processor": videos}
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    with pytest.raises(MissingDependencyError, match="torchvision is needed to load"):
        open_model(folder, device="cpu")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch_size": 0}, "A batch of 0 prompts is none"),
        ({"dtype": "int8"}, "There is no number format 'int8': choose one of float32"),
        ({"device": "tpu"}, "There is no device 'tpu'"),
    ],
)
def test_misuse(own_folder: Path, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        open_model(own_folder, **options)


def test_no_such_model() -> None:
    with pytest.raises(WeightsError, match="There is no model folder"):
        open_model("no/such/folder")


def test_the_default_model_by_its_name(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def find(name: str | None) -> Path:
        asked.append(name)
        return own_folder

    monkeypatch.setattr("alignvlm.inference.loading.find_model", find)
    model = open_model("default", device="cpu")
    assert asked == [None] and model.name == "default"
