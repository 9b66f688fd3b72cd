"""`alignvlm train`: what it says, what it leaves, and how it ends."""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from alignvlm.cli import run
from alignvlm.training import recipes
from alignvlm.training.configuration import (
    BatchConfig,
    DataPart,
    ModelConfig,
    OptimizerConfig,
    Rates,
    RunConfig,
)

TRAINING = Path(__file__).parent.parent / "training"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, TRAINING / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    return load("tiny_vlm")


@pytest.fixture(scope="session")
def recipe_files(tmp_path_factory: pytest.TempPathFactory, tiny: ModuleType) -> Path:
    """A model and two kinds of data."""
    folder = tmp_path_factory.mktemp("recipe")
    model = tiny.make_model()
    model.save_pretrained(folder / "model")
    tiny.AlignVLMProcessor.build(tiny.make_tokenizer(), model.config).save_pretrained(
        folder / "model"
    )
    rows = []
    for number in range(6):
        Image.new("RGB", (20 + 7 * number, 30), "white").save(folder / f"{number}.png")
        content = [{"type": "image"}, {"type": "text", "text": f"What is {number}?"}]
        answer = [{"type": "text", "text": "abc"[: 1 + number % 3]}]
        messages = [
            {"role": "user", "content": content},
            {"role": "assistant", "content": answer},
        ]
        rows.append(json.dumps({"messages": messages, "images": [f"{number}.png"]}))
    (folder / "pages.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "empty.jsonl").write_text("")
    return folder


@pytest.fixture
def tiny_recipe(recipe_files: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """A recipe called "tiny" beside the package's."""
    config = RunConfig(
        recipe="tiny",
        model=ModelConfig(pretrained=str(recipe_files / "model")),
        rates=Rates(connector=1e-3, llm=1e-4),
        data=(DataPart(source="messages", path=str(recipe_files / "pages.jsonl")),),
        batches=BatchConfig(num_samples=2, max_tokens=256, max_tiles=12, max_text_tokens=100),
        optimizer=OptimizerConfig(warmup_ratio=0.0),
        num_steps=3, num_workers=0, precision="float32", checkpoint_every=1, inspect_every=2,
    )  # fmt: skip
    monkeypatch.setitem(recipes._RECIPES, "tiny", lambda: config)
    return config


@dataclass
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str


@pytest.fixture
def train(
    tiny_recipe: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """`alignvlm train tiny --run RUN` with settings."""

    def call(
        *settings: str, recipe: str = "tiny", run_folder: Path | None = None, asked: str = ""
    ) -> Ended:
        arguments = ["train", recipe, "--run", str(run_folder or tmp_path / "run"), "--device",
                     "cpu", "--threads", "1", *asked.split()]  # fmt: skip
        for setting in settings:
            arguments += ["--set", setting]
        capsys.readouterr()
        status = run(arguments)
        said = capsys.readouterr()
        return Ended(status, said.out, said.err)

    return call


def sentence(ended: Ended) -> str:
    """The last line of stderr, checked to be the only thing that is said about an error."""
    lines = ended.err.splitlines()
    errors = [line for line in lines if line.startswith("Error: ")]
    assert errors == lines[-1:], ended.err
    assert not any(word in ended.err for word in ("Traceback", "Errno", "internal error"))
    return errors[0].removeprefix("Error: ")


def test_without_a_recipe_their_names_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed == ["read", "answer", "read-gpu", "answer-gpu", *recipes.names()]


def test_a_run_says_what_trains_and_leaves_what_it_says(
    train: Callable[..., Ended], tmp_path: Path
) -> None:
    ended = train()
    assert ended.status == 0 and ended.out == ""
    lines = [line.split() for line in ended.err.splitlines()]
    assert lines[0] == ["part", "parameters", "trained", "learning", "rate"]
    table = {line[0]: line[1:] for line in lines[1:4]}
    assert table["vision"][1:] == ["0", "frozen"]
    assert table["connector"] == [table["connector"][1]] * 2 + ["0.001"]
    assert table["llm"][2] == "0.0001" and int(table["llm"][0].replace(",", "")) > 20_000
    assert "tiny: 3 steps of 2 samples on cpu" in ended.err
    folder = tmp_path / "run"
    assert f"3 of 3 steps done in {folder}: see {folder / 'report.html'}" in ended.err
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "config.json", "environment.json", "log.jsonl", "model", "recipe.json",
        "report.html", "starts.jsonl", "step-00000002", "step-00000003", "trained_parts.json",
    }  # fmt: skip
    assert json.loads((folder / "recipe.json").read_text())["rates"]["llm"] == 1e-4
    parts = {p["part"]: p for p in json.loads((folder / "trained_parts.json").read_text())}
    assert f"{parts['llm']['num_trained']:,}" == table["llm"][1]
    losses = [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert len(losses) == 3
    assert "<svg" in (folder / "report.html").read_text("utf-8")


def test_settings_are_written_down(train: Callable[..., Ended], tmp_path: Path) -> None:
    assert train("num_steps=1", "rates.llm=none", "batches.num_samples=3").status == 0
    kept = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert (kept["num_steps"], kept["rates"]["llm"], kept["batches"]["num_samples"]) == (1, None, 3)


@pytest.mark.parametrize(
    ("recipe", "settings", "status", "said"),
    [
        ("raed", [], 2, "There is no recipe 'raed' (did you mean 'read'?): use one of read,"),
        ("smoll", [], 2, "There is no recipe 'smoll' (did you mean 'smol'?): use one of read,"),
        ("tiny", ["rates.lm=1"], 2, "There is no setting rates.lm (did you mean 'rates.llm'?): "),
        ("tiny", ["batches.max_tiels=3"], 2, "(did you mean 'batches.max_tiles'?)"),
        ("tiny", ["num_steps=many"], 2, "num_steps is a whole number or none, not 'many'"),
        ("tiny", ["rates.connector=none", "rates.llm=none"], 2, "Nothing would train, all three"),
        ("tiny", ["data.0.path=nowhere.jsonl"], 1, "nowhere.jsonl"),
        ("tiny", ["data.0.source=mesages"], 2, "There is no data source 'mesages' (did you mean"),
        ("tiny", ["data.0.options.image=x"], 2, "has no option 'image' (did you mean 'images'?)"),
        ("tiny", ["model.pretrained=nowhere"], 1, "No image-text-to-text model can be loaded from"),
        ("tiny", ["model.connector.name=mlp"], 2, 'has model.connector.name="align" and the run'),
        ("tiny", ["model.dtype=bfloat16"], 2, "model.dtype=bfloat16 needs precision=bfloat16"),
        ("tiny", ["sharding=fsdp2"], 2, "there is one process alone: start the run with accele"),
        ("tiny", ["sharding=zero3"], 2, "sharding=zero3 is DeepSpeed's and needs a GPU"),
        ("tiny", ["trackers=wandbb"], 2, "wandbb"),
        ("read", ["batchsize=3"], 2, "There is no setting batchsize (did you mean 'batch_size'?)"),
    ],
)
def test_bad_input_is_one_sentence(
    train: Callable[..., Ended], tmp_path: Path, recipe: str, settings: list[str], status: int,
    said: str,
) -> None:  # fmt: skip
    ended = train(*settings, recipe=recipe)
    assert said in sentence(ended), ended.err
    assert ended.status == status
    assert not list((tmp_path / "run").glob("step-*"))


@pytest.mark.parametrize("settings", [["empty.jsonl"], ["only-broken.jsonl"]])
def test_data_that_hold_nothing(
    train: Callable[..., Ended], recipe_files: Path, settings: list[str]
) -> None:
    (recipe_files / "only-broken.jsonl").write_text("{}\n[]\nno\n")
    ended = train(f"data.0.path={recipe_files / settings[0]}")
    said = sentence(ended)
    assert "no row" in said or "cannot be used" in said
    assert ended.status in (1, 2)


def test_an_epoch_without_end(train: Callable[..., Ended]) -> None:
    endless = ["data.0.source=synth", "data.0.path=none", "num_steps=none"]
    said = sentence(train(*endless))
    assert said.startswith("An epoch of data without end never ends: set num_steps, or give each")


@pytest.fixture
def on_loss(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int, Any], Any]], None]:
    """Has the n-th loss go through a function of n and itself."""

    def install(change: Callable[[int, Any], Any]) -> None:
        from alignvlm.training.vlm import VLMTask

        real, calls = VLMTask.loss, []

        def loss(self: VLMTask, batch: dict[str, Any]) -> Any:
            calls.append(None)
            return change(len(calls), real(self, batch))

        monkeypatch.setattr(VLMTask, "loss", loss)

    return install


def test_a_loss_that_is_no_number(
    train: Callable[..., Ended], on_loss: Callable[..., None], tmp_path: Path
) -> None:
    """Stops, keeps the last good checkpoint, names the samples, and reports what was."""
    on_loss(lambda n, loss: loss._replace(total=loss.total * float("nan")) if n == 3 else loss)
    ended = train()
    assert ended.status == 1
    said = sentence(ended)
    assert said.startswith("At step 3 the loss is nan and the gradient's norm nan: its samples")
    folder = tmp_path / "run"
    assert "bad-step-3-of-process-0.json" in said
    bad = json.loads((folder / "bad-step-3-of-process-0.json").read_text())
    assert bad["step"] == 3
    (keys,) = bad["samples"]
    assert len(keys) == 2 and all(key.startswith("messages/pages.jsonl:") for key in keys)
    assert sorted(p.name for p in folder.glob("step-*")) == ["step-00000001", "step-00000002"]
    assert not (folder / "model").exists()
    assert (folder / "report.html").is_file()
    assert train("rates.connector=1e-4", "rates.llm=1e-5").status == 0  # goes on from step 2


def test_a_run_goes_on_with_lower_rates(
    train: Callable[..., Ended], on_loss: Callable[..., None]
) -> None:
    """What the report of a bad step advises."""

    def stop(number: int, loss: Any) -> Any:
        if number == 1:
            signal.raise_signal(signal.SIGTERM)
        return loss

    on_loss(stop)
    first = train()
    assert first.status == 0 and "1 of 3 steps done" in first.err
    again = train("rates.connector=1e-4", "rates.llm=1e-5", "model.gradient_checkpointing=true")
    assert again.status == 0, again.err
    assert "3 of 3 steps done" in again.err


def test_a_signal_ends_it_well(
    train: Callable[..., Ended], on_loss: Callable[..., None], tmp_path: Path
) -> None:
    """SIGTERM: a checkpoint, status 0, and how to go on; the same command ends as if unbroken."""
    whole = train(run_folder=tmp_path / "whole")
    assert whole.status == 0

    def stop(number: int, loss: Any) -> Any:
        if number == 2:
            signal.raise_signal(signal.SIGTERM)
        return loss

    on_loss(stop)
    ended = train()
    assert ended.status == 0
    assert f"2 of 3 steps done in {tmp_path / 'run'}, the same command goes on from" in ended.err
    assert not (tmp_path / "run" / "model").exists()
    assert "3 of 3 steps done" in train().err
    files = ["model/model.safetensors", "step-00000003/optimizer.safetensors"]
    for file in files:
        ours, theirs = (tmp_path / run_name / file for run_name in ("run", "whole"))
        assert ours.read_bytes() == theirs.read_bytes()
    assert train().status == 0  # a finished run has nothing left to do


@pytest.mark.parametrize(
    "setting", ["seed=3", "batches.num_samples=3", "rates.llm=none", "batches.max_text_tokens=99"]
)
def test_a_folder_of_another_run_is_refused(
    train: Callable[..., Ended], tmp_path: Path, setting: str
) -> None:
    assert train("num_steps=1").status == 0
    before = (tmp_path / "run" / "log.jsonl").read_bytes()
    ended = train("num_steps=1", setting)
    assert ended.status == 2
    assert "was started with another" in sentence(ended)
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == before


def test_a_checkpoint_of_another_model(
    train: Callable[..., Ended], tmp_path: Path, tiny: ModuleType
) -> None:
    """Someone copied a checkpoint into the folder of another run."""
    assert train("num_steps=2").status == 0
    model = tiny.make_model("mlp")
    other = tmp_path / "other"
    model.save_pretrained(other)
    tiny.AlignVLMProcessor.build(tiny.make_tokenizer(), model.config).save_pretrained(other)
    (tmp_path / "run" / "config.json").unlink()
    ended = train("num_steps=2", f"model.pretrained={other}", "model.connector.name=mlp")
    assert ended.status == 2
    assert "of another model" in sentence(ended)


@pytest.mark.parametrize("stage", ["read", "answer"])
def test_the_default_models_stages(
    train: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, stage: str, tmp_path: Path
) -> None:
    tiny_task, asked = load("tiny_task"), []

    def stage_task(name: str, config: Any) -> Any:
        asked.append((name, config))
        return tiny_task.TinyTask()

    monkeypatch.setattr("alignvlm.training.stages.stage_task", stage_task)
    ended = train("num_steps=1", "num_workers=0", recipe=stage)
    assert ended.status == 0, ended.err
    ((name, config),) = asked
    assert (name, config.num_steps, config.device) == (stage, 1, "cpu")
    assert f"{stage}: 1 steps of {config.batch_size} samples on cpu" in ended.err
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize("room", [2.0, 1.0, 0.5])
def test_a_gpu_that_is_too_small_is_named_before_the_model_is_loaded(
    tiny_recipe: RunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    room: float, tmp_path: Path,
) -> None:  # fmt: skip
    """Beyond what the estimate may be off by; what may just fit is only warned of."""
    import torch

    from alignvlm.training import runs
    from alignvlm.training.cost.plan import RESERVE_BYTES, make_plan

    config = replace(tiny_recipe, precision="bfloat16")
    monkeypatch.setitem(recipes._RECIPES, "tiny", lambda: config)
    held = make_plan(config, 1, 10**12).memory.total
    limit = held + RESERVE_BYTES if room == 2.0 else int(room * held)
    device = SimpleNamespace(total_memory=limit)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: device)
    monkeypatch.setattr("alignvlm.inference.hardware.choose_device", lambda _: "cuda")
    opened = []

    def open_run(config: RunConfig, device: str) -> Any:
        opened.append(device)
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "open_run", open_run)
    ended = run(["train", "tiny", "--run", str(tmp_path), "--threads", "1"])
    err = capsys.readouterr().err
    start = {2.0: "", 1.0: "Warning: A step needs ", 0.5: "Error: A step needs "}[room]
    assert err.startswith(start) and bool(err) == (room < 2.0)
    assert ("and the GPU has" in err and "try --set " in err) == (room < 2.0)
    assert opened == ["cuda"] * (room > 0.5) and (ended == 2) == (room == 0.5)


def test_one_of_several_processes_speaks(
    train: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alignvlm.training.loop.train", lambda *_, **__: 3)
    monkeypatch.setenv("RANK", "1")
    ended = train()
    assert (ended.status, ended.out, ended.err) == (0, "", "")


def test_benchmarks_are_asked_meanwhile(train: Callable[..., Ended], tmp_path: Path) -> None:
    ended = train(asked="--eval synthdoc --eval-every 2 --eval-limit 1")
    assert ended.status == 0, ended.err
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert ["eval/synthdoc" in json.loads(line) for line in lines] == [False, True, True]
    steps = sorted(path.name for path in (tmp_path / "run" / "evaluation").iterdir())
    assert steps == ["step-00000002", "step-00000003"]
    assert "There is no benchmark 'docvqs'" in sentence(train(asked="--eval docvqs"))
    assert "--eval asks AlignVLM models" in sentence(train(asked="--eval pope", recipe="read"))
