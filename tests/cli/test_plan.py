"""`alignvlm plan`: what it prints and how it ends."""

from __future__ import annotations

import json
import logging

import pytest
import typer
from huggingface_hub.utils import logging as hub_logging
from transformers import AutoConfig

from alignvlm.cli import plan, terminal


def run(*arguments: str) -> int:
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    plan.register(app)
    app.callback()(lambda: None)
    with terminal.session() as session:
        try:
            app(args=["plan", *arguments], prog_name="alignvlm")
        except SystemExit as end:
            session.status = end.code if isinstance(end.code, int) else 1
    return session.status


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize(
    ("arguments", "status", "last"),
    [
        (["llama-3.1-8b-stage3"], 0, "It fits: "),
        (["llama-3.1-8b-stage2", "--gpus", "64", "--memory", "80GiB"], 0, "It fits: "),
        (["llama-3.2-3b-lora", "--gpus", "1", "--memory", "23GB"], 1, "--set "),
        (
            ["llama-3.2-3b-qlora", "--gpus=1", "--memory=4GB", "--set", "batches.max_tokens=2560"],
            1,
            "No setting is enough",
        ),
    ],
)
def test_text(
    arguments: list[str], status: int, last: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == status
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert max(len(line) for line in lines) <= 80
    assert "…" not in printed.out
    assert lines[0].startswith(arguments[0])
    assert last in lines[-1]
    for word in ("trained", "steps", "recomputed layer", "activations", "ALIGN", "run, FLOPs"):
        assert word in printed.out


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--tiles", "1", "--text-tokens", "50", "--samples", "800", "--json"]
    assert run("smol", "--gpus", "1", "--set", "num_steps=none", *options) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["samples"] == {
        "num_steps": 200, "epoch_size": 800, "tiles": 1.0, "visual_tokens": 144.0,
        "text_tokens": 50.0,
    }  # fmt: skip
    assert found["step"]["visual_tokens"] == 4 * 144
    assert found["fits"] is True


def test_samples_that_no_row_holds_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["llama-3.2-1b-stage2", "--set", "batches.max_tokens=5120"]
    assert run(*arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    said = " ".join(lines)
    assert "Warning: A sample of bigdocs, as assumed, has 7,690 tokens and batches.max_tok" in said
    assert run(*arguments, "--json") == 0
    (warning,) = json.loads(capsys.readouterr().out)["warnings"]
    assert f"Warning: {warning}" in said


def test_without_a_network_there_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The Hub's client reports each of its tries."""

    def unreachable(*_: object, **__: object) -> None:
        hub_logging.get_logger("huggingface_hub.utils._http").warning("'[Errno -2] Name' thrown")
        raise OSError("We couldn't connect to 'https://huggingface.co'")

    monkeypatch.setattr(AutoConfig, "from_pretrained", unreachable)
    assert run("base-vlm-stage2") == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and "Qwen/Qwen2-VL-2B is not on this machine" in printed
    assert hub_logging.get_verbosity() < logging.CRITICAL, "only as long as that takes"


def test_one_gpu_shares_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """As `train` would say; what is planned is what it would then do."""
    assert run("llama-3.2-1b-stage3", "--gpus", "1", "--memory", "80GB") == 0
    printed = capsys.readouterr().out
    assert "gathered weights" not in printed
    assert printed.endswith("sharding=fsdp2 is refused there:\n  --set sharding=none\n")
    assert run("llama-3.2-1b-stage3", "--gpus=1", "--set=sharding=none") == 0
    assert printed.startswith(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["smoll"], "did you mean 'smol'?"),
        (["smol", "--set", "rates.lm=1"], "did you mean 'rates.llm'?"),
        (["smol", "--memory", "much"], "write it as 80GB or 24GiB"),
        (["smol", "--memory", "0GB"], "write it as 80GB or 24GiB"),
        (["smol", "--set", "num_steps=none"], "set num_steps"),
        (["smol", "--set", "model.connector.name=alig"], "There is no connector 'alig'"),
        (["smol", "--set", "model.tiling.max_tilez=3"], "max_tilez"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("Error: ") and said in printed.err
    assert printed.err.count("\n") == 1
