"""Which folder a name means, and one sentence for each that means none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from alignvlm.cli import run
from alignvlm.errors import ConfigurationError, WeightsError
from alignvlm.inference import loading
from alignvlm.inference.answerer import ModelAnswerer
from alignvlm.inference.loading import find_model, load_model, load_processor
from alignvlm.model import compat

CPU = torch.device("cpu")


@pytest.fixture
def own_folder(model_folder: Path, tmp_path: Path) -> Path:
    """A copy that no marker says to be ours."""
    folder = tmp_path / "own"
    shutil.copytree(model_folder, folder)
    (folder / "complete.json").unlink()
    return folder


def test_the_default_and_a_folder_are_found(model_folder: Path, own_folder: Path) -> None:
    assert find_model(None) == model_folder
    assert find_model(own_folder) == find_model(str(own_folder)) == own_folder


def test_a_folder_below_home_is_found(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(own_folder.parent))
    assert find_model("~/own") == own_folder


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("config.json", "has no config.json: name a folder"),
        ("model.safetensors", "has no weights"),
        ("tokenizer.json", "has no tokenizer.json"),
    ],
)
def test_a_folder_that_lacks_a_file(own_folder: Path, missing: str, expected: str) -> None:
    (own_folder / missing).unlink()
    with pytest.raises(WeightsError, match=expected):
        find_model(own_folder)


@pytest.mark.parametrize("name", ["nowhere", "./no/where", "../no", "/no/such/folder", "a/b/c"])
def test_a_path_that_is_not_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "_from_hub", lambda _: pytest.fail("asked the Hub"))
    with pytest.raises(WeightsError, match=r"There is no model folder .*: check the path"):
        find_model(name)


def test_a_file_is_no_folder(own_folder: Path) -> None:
    with pytest.raises(WeightsError, match="is a file and no model folder"):
        find_model(own_folder / "model.safetensors")


def test_weights_of_wrong_shapes(own_folder: Path) -> None:
    path = own_folder / "model.safetensors"
    tensors = load_file(path)
    tensors["model.connector.norm_d.weight"] = torch.zeros(7)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="matching shapes") as caught:
        load_model(own_folder, CPU, torch.float32)
    assert str(caught.value).isprintable()


def test_a_missing_tensor(own_folder: Path) -> None:
    path = own_folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.connector.norm_d.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"1 tensors are missing, e.g. .*norm_d.weight"):
        load_model(own_folder, CPU, torch.float32)


def test_another_kind_of_model(base_folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="of type 'llama', not an AlignVLM model"):
        load_model(base_folder, CPU, torch.float32)


@pytest.mark.parametrize("name", ["tokenizer.json", "processor_config.json"])
def test_a_damaged_processor(own_folder: Path, name: str) -> None:
    (own_folder / name).write_text("{")
    with pytest.raises(WeightsError, match=r"The processor in .* save the processor") as caught:
        load_processor(own_folder)
    assert str(caught.value).isprintable()


def test_a_bad_folder_on_the_command_line(
    own_folder: Path, page_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (own_folder / "config.json").write_text("[]")
    assert run(["ask", str(page_path), "Why?", "--model", str(own_folder)]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1 and err.startswith("Error: ")


def test_a_hub_id_without_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    def fail() -> Any:
        raise ConnectionError("<socket at 0x7f>")

    monkeypatch.setattr("huggingface_hub.get_session", fail)
    with pytest.raises(WeightsError, match=r"not in the local Hub cache .*\(ConnectionError\)"):
        find_model("someone/something")


def test_a_hub_id_in_the_local_cache_needs_no_network(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    repository = tmp_path / "hub" / "models--someone--something"
    revision = "0" * 40
    shutil.copytree(own_folder, repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.get_session", lambda: pytest.fail("asked the Hub"))
    assert find_model("someone/something").samefile(repository / "snapshots" / revision)


def test_an_absent_device_is_told_before_the_model_is_looked_for(page_path: Path) -> None:
    from alignvlm.errors import UsageError
    from alignvlm.inference.ask import ask

    answerer = ModelAnswerer("nowhere", "mps" if torch.cuda.is_available() else "cuda")
    with pytest.raises(UsageError, match="has no device"):
        ask(page_path, "Why?", model=answerer)


def test_quiet_restores_what_was_set() -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with compat.quiet():
        assert not logging.is_progress_bar_enabled()
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_the_saved_configuration_names_no_place_of_this_machine(model_folder: Path) -> None:
    for path in model_folder.glob("*.json"):
        if path.name != "tokenizer.json":
            assert str(model_folder.parents[1]) not in json.dumps(json.loads(path.read_text()))
