from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import chat_tokenizer, tiny_chat_llama
from transformers import LlamaForCausalLM

from alignvlm.errors import ConfigurationError, WeightsError
from alignvlm.training import checkpoint, stages
from alignvlm.training.grounded import GroundedTask
from alignvlm.training.instruct import InstructTask
from alignvlm.training.labels import IGNORED
from alignvlm.training.task import Task


class OneTokenACharacter:
    """Stands for SmolLM2's tokenizer: every character is the token of its code point."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [ord(char) for char in text]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Checkpoints of the two stages, as the loop writes them, with two tensors each."""
    monkeypatch.setattr(stages, "load_smollm2", lambda dtype: (None, OneTokenACharacter()))
    read = {"vision_model.norm.weight": torch.ones(3), "connector.w1.weight": torch.ones(2, 3)}
    name = "model.layers.0.self_attn.q_proj.lora_{}.default.weight"
    answer = {name.format("A"): torch.ones(16, 4), name.format("B"): torch.zeros(4, 16)}
    for folder, weights in (("read", read), ("answer", answer)):
        found = checkpoint.Checkpoint(step=7, weights=weights, optimizer={}, state={})
        checkpoint.save(tmp_path / folder, found)
        (tmp_path / folder / "config.json").write_text('{"num_steps": 7}')
    return tmp_path / "read", tmp_path / "answer"


def test_export_writes_the_four_files_that_are_shipped(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    target = stages.export(*runs, tmp_path / "default")
    parts = load_file(target / "vision_connector.safetensors")
    assert set(parts) == {
        "vision_model.norm.weight",
        "connector.w1.weight",
        "connector.token_ids",
    }
    settings = json.loads((target / "default.json").read_text())
    assert settings["connector"]["vocabulary"] == parts["connector.token_ids"].tolist()
    assert settings["connector"]["vocabulary"][:2] == [ord("\n"), ord(" ")]
    assert settings["condense"] == {"prune": True, "merge": "spell"}
    adapter = load_file(target / "adapter_model.safetensors")
    prefix = "base_model.model.model.layers.0.self_attn.q_proj"
    assert set(adapter) == {f"{prefix}.lora_A.weight", f"{prefix}.lora_B.weight"}
    config = json.loads((target / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (16, 32)


def test_a_run_without_a_checkpoint_cannot_be_exported(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match="no whole checkpoint"):
        stages.export(tmp_path / "nothing", runs[1], tmp_path / "default")
    assert not (tmp_path / "default").exists()


def test_unfinished_and_swapped_runs_are_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="another stage"):
        stages.export(runs[1], runs[0], tmp_path / "default")
    (runs[0] / "config.json").write_text('{"num_steps": 8}')
    with pytest.raises(WeightsError, match="7 of 8 steps"):
        stages.export(*runs, tmp_path / "default")


@pytest.mark.parametrize("name", ["speak", "read-abacus"])
def test_unknown_stages_are_named(name: str) -> None:
    with pytest.raises(ConfigurationError, match="choose one of read, answer, read-gpu"):
        stages.stage_task(name, stages.STAGES["read"])


def test_only_the_first_stage_takes_data() -> None:
    with pytest.raises(ConfigurationError, match="'answer' draws its own pages"):
        stages.stage_task("answer", replace(stages.STAGES["answer"], data="pdfs"))


@pytest.fixture
def language_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LlamaForCausalLM:
    """Stands for SmolLM2, with a tokenizer that knows bytes; the recogniser's weights are twos."""
    torch.manual_seed(0)
    model, tokenizer = LlamaForCausalLM(tiny_chat_llama()), chat_tokenizer()
    tokenizer.save_pretrained(tmp_path)

    def load_trunk(trunk: torch.nn.Module) -> None:
        for parameter in trunk.parameters():
            torch.nn.init.constant_(parameter, 2.0)

    monkeypatch.setattr(stages, "load_smollm2", lambda dtype: (model.to(dtype), tokenizer))
    monkeypatch.setattr(stages, "ensure_smollm2", lambda: tmp_path)
    monkeypatch.setattr(stages, "load_trunk", load_trunk)
    return model


def open_stage(name: str, **changes: object) -> Task:
    return stages.stage_task(name, replace(stages.STAGES[name], **changes))


def test_read_starts_from_the_recogniser_and_the_head(
    language_model: LlamaForCausalLM, fonts: object
) -> None:
    task = open_stage("read")
    assert isinstance(task, GroundedTask)
    encoder, connector = task.module["vision_model"], task.module["connector"]
    assert all((parameter == 2.0).all() for parameter in encoder.trunk.parameters())
    ids = list(stages.character_tokens(chat_tokenizer()).values())
    assert len(ids) == 96  # a line break, a space and ASCII; all others are two bytes
    assert connector.token_ids.tolist() == ids
    assert torch.equal(connector.w2.weight, language_model.lm_head.weight[ids])
    assert (connector.norm_v.weight == 2.0).all()
    kernels = [parameter for parameter in encoder.parameters() if parameter.ndim == 4]
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)
    assert all(parameter.requires_grad for parameter in task.module.parameters())
    pixels, labels = task.source.sample(0)
    assert pixels.shape == (384, 384, 3) and labels.shape == (48, 96)
    assert labels.max() < len(ids) and (labels > 1).sum() > 50
    again = open_stage("read")
    assert all(map(torch.equal, task.module.parameters(), again.module.parameters()))
    assert (again.source.sample(0)[0] == pixels).all()
    assert (open_stage("read", seed=9).source.sample(0)[0] != pixels).any()


def test_answer_trains_adapters_alone_on_pages_as_text(
    language_model: LlamaForCausalLM, fonts: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft")
    # Where every byte is a token the stage's other kinds are too long, and none would be drawn.
    monkeypatch.setattr(stages, "ANSWER_KINDS", (("easy", 1.0),))
    task = open_stage("answer")
    assert isinstance(task, InstructTask)
    trained = {name for name, p in task.module.named_parameters() if p.requires_grad}
    matrices = [f"{target}.lora_{side}." for target in stages.LORA_TARGETS for side in "AB"]
    assert len(trained) == 2 * len(matrices)  # layers
    assert all(any(matrix in name for name in trained) for matrix in matrices)
    for name, parameter in task.module.named_parameters():
        assert parameter.dtype == (torch.float32 if name in trained else torch.bfloat16), name
        assert task.part(name) == ("adapter" if name in trained else "llm")
        assert "lora_A" not in name or parameter.shape[0] == stages.LORA_RANK == 16
    page, turns = task.source.sample(0)
    tokenizer = chat_tokenizer()
    assert tokenizer.decode(page).startswith("<|im_start|>user\n")
    assert 3 <= len(turns) <= 8
    for question, answer in turns:
        assert tokenizer.decode(question).endswith("<|im_end|>\n<|im_start|>assistant\n")
        assert tokenizer.decode(answer).endswith("<|im_end|>")
    batch = task.source.collate([(page, turns)])
    loss = task.loss(batch)
    assert loss.weight == sum(len(answer) for _, answer in turns)
    assert loss.weight == (batch["labels"] != IGNORED).sum()
    loss.total.backward()
    assert all(p.grad is not None for n, p in task.module.named_parameters() if n in trained)


@pytest.mark.parametrize("name", ["read-gpu", "answer-gpu"])
@pytest.mark.parametrize(("device", "has_cuda"), [("cpu", True), ("cpu", False), ("cuda", False)])
def test_stages_for_a_gpu_are_refused_without_one(
    monkeypatch: pytest.MonkeyPatch, name: str, device: str, has_cuda: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    monkeypatch.setattr(stages, "load_smollm2", lambda dtype: pytest.fail("too late"))
    kind = name.partition("-")[0]
    with pytest.raises(ConfigurationError, match=f"'{device}' is not here: train '{kind}'"):
        open_stage(name, device=device)


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_stages_for_a_gpu_are_opened_where_there_is_one(
    language_model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert isinstance(open_stage("read-gpu", device=device), GroundedTask)


def test_a_damaged_checkpoint_is_one_sentence(runs: tuple[Path, Path]) -> None:
    """The marker holds sizes, so the damage must keep the size to get as far as being read."""
    file = runs[0] / "step-00000007" / "weights.safetensors"
    file.write_bytes(b"\xff" * file.stat().st_size)
    with pytest.raises(WeightsError, match="cannot be read"):
        checkpoint.latest(runs[0])


def test_half_a_checkpoint_is_passed_over(runs: tuple[Path, Path]) -> None:
    whole = checkpoint.latest(runs[0])
    torn = runs[0] / "step-00000009"
    torn.mkdir()
    (torn / "state.json").write_text('{"step": 9}')
    found = checkpoint.latest(runs[0])
    assert whole is not None and found is not None
    assert found.step == whole.step == 7
