from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from alignvlm.errors import ConfigurationError, WeightsError
from alignvlm.training import checkpoint, stages


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
