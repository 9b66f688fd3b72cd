"""Which folder a name means, and one sentence for each that means none."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from alignvlm.cli import run
from alignvlm.errors import ConfigurationError, UsageError, WeightsError
from alignvlm.inference import loading
from alignvlm.inference.answerer import ModelAnswerer
from alignvlm.inference.ask import ask
from alignvlm.inference.loading import find_model, load_config, load_model, load_processor
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


def set_in(path: Path, **values: Any) -> None:
    """Change settings of a JSON file; those of a part are given as a dictionary."""
    content = json.loads(path.read_text())
    for name, value in values.items():
        content[name] = {**content[name], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(content))


def break_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{% if %}")


def forget_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def refuse_in_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no such role') }}")


def unknown_tiling(folder: Path) -> None:
    set_in(folder / "config.json", tiling={"max_tile": 3})


def unknown_tiling_of_the_processor(folder: Path) -> None:
    content = json.loads((folder / "processor_config.json").read_text())
    content["image_processor"]["tiling"]["max_tile"] = 3
    (folder / "processor_config.json").write_text(json.dumps(content))


def unknown_connector(folder: Path) -> None:
    set_in(folder / "config.json", connector={"name": "aling"})


def strange_config(folder: Path) -> None:
    set_in(folder / "config.json", text_config=3)


def cut_config(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text()[:-20])


def config_that_is_a_list(folder: Path) -> None:
    (folder / "config.json").write_text("[]")


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (break_template, "The chat template in FOLDER is missing or cannot be used: save"),
        (forget_template, "The chat template in FOLDER is missing or cannot be used: save"),
        (refuse_in_template, "The chat template in FOLDER is missing or cannot be used: save"),
        (unknown_tiling, "max_tile"),
        (unknown_tiling_of_the_processor, "The processor in "),
        (unknown_connector, "There is no connector 'aling'"),
        (strange_config, "The config.json in FOLDER is damaged: save"),
        (cut_config, "The config.json in FOLDER is damaged: save"),
        (config_that_is_a_list, "The config.json in FOLDER is damaged: save"),
    ],
    ids=lambda part: getattr(part, "__name__", ""),
)
def test_a_bad_folder_on_the_command_line(
    spoil: Callable[[Path], None],
    expected: str,
    own_folder: Path,
    page_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    spoil(own_folder)
    assert run(["ask", str(page_path), "Why?", "--model", str(own_folder), "--device", "cpu"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    said = [line for line in err.splitlines() if not line.startswith("Running on ")]
    assert len(said) == 1 and said[0].startswith("Error: ")
    assert expected.replace("FOLDER", f"'{own_folder}'") in said[0]
    assert str(own_folder) in said[0] and "internal" not in said[0]


def test_a_language_model_is_no_model_of_ours(base_folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="of type 'llama', not an AlignVLM model"):
        load_config(base_folder)


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


def test_an_absent_device_is_told_before_the_default_is_assembled(
    page_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "find_model", lambda _: pytest.fail("assembled it"))
    answerer = ModelAnswerer(None, "mps" if torch.cuda.is_available() else "cuda")
    with pytest.raises(UsageError, match="has no device"):
        ask(page_path, "Why?", model=answerer)


@pytest.mark.parametrize("command", ["ask", "lens"])
@pytest.mark.parametrize("model", ["nowhere", "config.json"])
def test_a_wrong_model_is_told_without_torch(page_path: Path, command: str, model: str) -> None:
    arguments = [command, str(page_path), *(["Why?"] if command == "ask" else [])]
    code = (
        "import sys; from alignvlm.cli import run\n"
        f"assert run({[*arguments, '--model', model]!r}) == 1\n"
        "assert 'torch' not in sys.modules"
    )
    (page_path.parent / "config.json").touch()
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=page_path.parent, capture_output=True, text=True
    )
    assert (process.returncode, process.stderr.count("\n")) == (0, 1), process.stderr
    assert f"'{model}'" in process.stderr


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
