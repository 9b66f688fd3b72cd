from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from alignvlm.files import read_lines
from alignvlm.training.run_folder import (
    TrainedPart,
    clean_command,
    write_provenance,
    write_trained_parts,
)

RECIPE = {"recipe": "smol", "seed": 7, "rates": {"connector": 1e-3}}


def test_a_start_and_a_resume_are_both_on_record(tmp_path: Path) -> None:
    run = tmp_path / "smol"
    command = ["/opt/venv/bin/alignvlm", "train", "smol", "--run", "runs/smol"]
    write_provenance(run, RECIPE, command, num_steps=40)
    write_provenance(run, RECIPE, [*command, "-v"], step=20, num_steps=40, num_processes=2)
    assert json.loads((run / "recipe.json").read_text()) == RECIPE
    facts = json.loads((run / "environment.json").read_text())
    assert facts["seed"] == 7
    assert facts["processes"] == 2
    assert facts["device"] == "cpu"
    assert facts["machine"]["threads"] == torch.get_num_threads()
    assert {"alignvlm", "python", "torch", "transformers", "accelerate"} <= set(facts["versions"])
    first, second = read_lines(run / "starts.jsonl")
    assert first["command"] == "alignvlm train smol --run runs/smol"
    assert (first["step"], second["step"], second["processes"]) == (0, 20, 2)
    assert first["time"] <= second["time"]
    assert first["versions"] == facts["versions"]


def test_the_readme_says_what_every_file_is_and_how_to_go_on(tmp_path: Path) -> None:
    run = tmp_path / "smol"
    write_provenance(run, RECIPE, ["alignvlm", "train", "smol"])
    write_trained_parts(run, [TrainedPart(part="llm", num_parameters=3, num_trained=0)])
    text = (run / "README.md").read_text()
    for path in run.iterdir():
        assert f"- `{path.name}`: " in text
    assert "recipe `smol`" in text
    assert "$ alignvlm train smol\n" in text
    assert "--model ./model" in text
    assert 'AlignVLM.from_pretrained("model")' in text
    assert "processes" not in text


def test_trained_parts_are_a_table(tmp_path: Path) -> None:
    part = TrainedPart(
        part="connector", num_parameters=9, num_trained=8, learning_rate=0.1, num_decayed=7
    )
    write_trained_parts(tmp_path, [part])
    assert json.loads((tmp_path / "trained_parts.json").read_text()) == [
        {"part": "connector", "num_parameters": 9, "num_trained": 8, "learning_rate": 0.1,
         "num_decayed": 7}
    ]  # fmt: skip


def test_a_write_that_fails_leaves_the_old_files_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_provenance(tmp_path, RECIPE, ["alignvlm"])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_provenance(tmp_path, {"seed": 8}, ["alignvlm"], step=3)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["/x/bin/alignvlm", "train"], "alignvlm train"),
        (["/x/alignvlm/__main__.py", "train"], "python -m alignvlm train"),
        (["a", "--hub-token", "abc", "--run", "r"], "a --hub-token *** --run r"),
        (["a", "--hub-token=abc", "wandb.api_key=k"], "a --hub-token=*** wandb.api_key=***"),
        (["a", "--password", "--run", "r"], "a --password --run r"),
        (["a", "--set", "batches.max_tokens=8192"], "a --set batches.max_tokens=8192"),
        (["a", "--tokens", "8"], "a --tokens 8"),
        (["a", "x hf_AbCdEfGhIjKlMnOpQrSt"], "a 'x ***'"),
        (["a", "https://me:pw@host/d"], "a https://host/d"),
        (["a", "/home/jane/data/x"], "a ~/data/x"),
        (["a", "data=/Users/jane/x"], "a data=~/x"),
        (["a", "my file", "*.pdf", ""], "a 'my file' '*.pdf' ''"),
    ],
)
def test_a_command_is_shown_without_secrets_and_homes(command: list[str], shown: str) -> None:
    assert clean_command(command) == shown


def test_several_processes_are_started_by_a_launcher(tmp_path: Path) -> None:
    """The command alone would go on in one process."""
    write_provenance(tmp_path, {"recipe": "smol"}, ["alignvlm", "train", "smol"], num_processes=2)
    text = (tmp_path / "README.md").read_text("utf-8")
    assert "It ran in 2 processes, which accelerate launch or torchrun start." in text
