"""Several processes on this machine, over gloo: what they learn is what one learns."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny_vlm as tiny
import torch
from accelerate.commands.launch import _validate_launch_command as resolve
from accelerate.commands.launch import launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from several import GENTLE, MIXED, assert_same_model, end, launch, losses, norms, start, train_here
from torch.distributed.tensor import DTensor

import alignvlm.training
from alignvlm.errors import ConfigurationError
from alignvlm.training.loop import _check_same_step, _Root
from alignvlm.training.processes import DataParallel, leave, open_processes
from alignvlm.training.schedule import TrainConfig
from alignvlm.training.task import Share
from alignvlm.training.tracking import read_log

LAUNCH = Path(alignvlm.training.__file__).with_name("launch")


def config(**options: Any) -> TrainConfig:
    return TrainConfig(num_steps=1, batch_size=1, learning_rate=1.0, **options)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("alone")
    train_here(run, config=GENTLE, evaluate=True)
    return run


def test_a_process_with_text_alone_does_not_hang(tmp_path: Path) -> None:
    """Twenty steps under data parallelism, and what one process learns from the same."""
    start(tmp_path / "two", MIXED)
    train_here(tmp_path / "one", **MIXED)
    assert len(losses(tmp_path / "two")) == 20
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-6)
    assert norms(tmp_path / "two") == pytest.approx(norms(tmp_path / "one"), rel=1e-4)


def test_fsdp2_learns_what_one_process_does(tmp_path: Path) -> None:
    """Stopped after three steps sharded, and on from there alone: a checkpoint is whole.

    A step is one row for each process, so that a look at the model comes right before the next.
    """
    options = MIXED | {"config": MIXED["config"] | {"num_steps": 6, "inspect_every": 1}}
    train_here(tmp_path / "one", **options)
    sharded = options | {"config": options["config"] | {"sharding": "fsdp2"}}
    start(tmp_path / "two", sharded | {"stop_at": 2})
    assert len(losses(tmp_path / "two")) == 3
    train_here(tmp_path / "two", **options)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-6)
    assert norms(tmp_path / "two") == pytest.approx(norms(tmp_path / "one"), rel=1e-4)


def test_fsdp2_goes_on_where_one_process_stopped(alone: Path, tmp_path: Path) -> None:
    """With text alone in one process; the model that is left is that of one process."""
    train_here(tmp_path, stop_at=2, config=GENTLE)
    assert len(losses(tmp_path)) == 3
    start(tmp_path, {"config": GENTLE | {"sharding": "fsdp2"}, "evaluate": True})
    assert losses(tmp_path) == pytest.approx(losses(alone), rel=1e-6)
    assert norms(tmp_path) == pytest.approx(norms(alone), rel=1e-4)
    assert_same_model(tmp_path, alone)
    found = [read_log(run)[-1]["eval/logit"] for run in (tmp_path, alone)]
    assert found[0] == pytest.approx(found[1], rel=1e-4)


@pytest.fixture
def group_of_one() -> Iterator[None]:
    """A process group of this process alone, which FSDP2 shards over all the same."""
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("group_of_one")
def test_fsdp2_shares_gradients_out_after_every_row() -> None:
    """`alignvlm plan` counts them so; whole ones would lie on every GPU until the last row."""
    task = tiny.make_task()
    processes = open_processes(config(sharding="fsdp2"))
    root = _Root(task.module)
    processes.prepare(root, lambda: torch.optim.AdamW(root.parameters()))
    batches = list(task.micro_batches(tiny.config(num_steps=1), 0, Share()))
    assert len(batches) > 1
    expected = tiny.gradients(tiny.make_task(), batches)[1]
    for batch in batches:
        loss = processes.call(partial(task.loss, batch.tensors))
        processes.backward(loss.total / batch.step_weight, is_last=batch.is_last)
        held = dict(task.module.named_parameters())
        assert {type(held[name].grad) for name in expected} == {DTensor}
    for name, gradient in expected.items():
        torch.testing.assert_close(held[name].grad.full_tensor(), gradient)


def test_sigterm_to_all_processes_saves(tmp_path: Path) -> None:
    """As a batch system sends it; each ends with 0, and the run can go on."""
    options = {"config": {"num_steps": 10_000, "checkpoint_every": 10_000}}
    running = launch(tmp_path, [options] * 2)
    log = tmp_path / "log.jsonl"
    while not (log.exists() and log.read_text().count("\n") > 1):
        assert all(process.is_alive() for process in running)
        time.sleep(0.02)
    for process in running:
        process.terminate()
    end(tmp_path, running)
    (saved,) = tmp_path.glob("step-*")
    assert saved.name == f"step-{len(losses(tmp_path)):08d}"


def test_different_settings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything else is exchanged."""

    def others(self: DataParallel, value: dict[str, Any]) -> list[dict[str, Any]]:
        assert "device" not in value  # numbered
        return [value, value | other]

    monkeypatch.setattr(DataParallel, "gather", others)
    other: dict[str, Any] = {}
    open_processes(config())
    other = {"seed": 3, "data": "others"}
    with pytest.raises(ConfigurationError, match=r"Process 1 .* with another data, seed than proc"):
        open_processes(config())


def test_what_ends_the_main_process_ends_all(tmp_path: Path) -> None:
    """The run folder is looked at by one of them alone."""
    (tmp_path / "config.json").write_text('{"seed": 7}')
    said = end(tmp_path, launch(tmp_path, [{}] * 2), status=1)
    assert all("was started with another seed" in text for text in said)


def test_processes_that_see_other_checkpoints_are_refused(tmp_path: Path) -> None:
    _check_same_step(tmp_path, [4, 4])
    with pytest.raises(ConfigurationError, match=r"Process 2 would go on from step 0 and process"):
        _check_same_step(tmp_path, [4, 4, 0])


@pytest.mark.parametrize("sharding", ["fsdp2", "none"])
def test_one_process_alone(sharding: str) -> None:
    processes = open_processes(config(sharding=sharding))
    root = torch.nn.Linear(1, 1)
    if sharding == "none":
        processes.prepare(root, lambda: torch.optim.AdamW(root.parameters()))
        assert processes.gather(3) == [3] and processes.is_main
        return
    with pytest.raises(ConfigurationError, match="one process alone: start the run with accel"):
        processes.prepare(root, lambda: torch.optim.AdamW(root.parameters()))


@pytest.mark.parametrize(
    ("variable", "layout", "sharding"),
    [("ACCELERATE_USE_FSDP", "fsdp2", "none"), ("ACCELERATE_USE_DEEPSPEED", "zero3", "fsdp2")],
)
def test_the_launcher_contradicts_the_recipe(
    monkeypatch: pytest.MonkeyPatch, variable: str, layout: str, sharding: str
) -> None:
    monkeypatch.setenv(variable, "true")
    with pytest.raises(ConfigurationError, match=f"for {layout} and the recipe .*={sharding}:"):
        open_processes(config(sharding=sharding))


def test_who_leaves_has_no_connections_left() -> None:
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    leave()
    assert not torch.distributed.is_initialized()
    leave()  # one process alone has none to begin with


@pytest.mark.parametrize("variable", ["LOCAL_WORLD_SIZE", "LOCAL_RANK"])
def test_every_process_needs_a_gpu(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv(variable, "3")
    with pytest.raises(ConfigurationError, match=r"\d processes .* with 2 GPUs .*: start 2"):
        open_processes(config(device="cuda"))


@pytest.mark.parametrize(
    ("name", "layouts"),
    [("ddp", set()), ("fsdp2", {"ACCELERATE_USE_FSDP"}), ("zero3", {"ACCELERATE_USE_DEEPSPEED"})],
)
def test_the_shipped_launch_configurations(
    monkeypatch: pytest.MonkeyPatch, name: str, layouts: set[str]
) -> None:
    """As accelerate launch reads them."""
    for variable in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        monkeypatch.delenv(variable)
    command = ["--config_file", str(LAUNCH / f"{name}.yaml"), "-m", "alignvlm", "train", "smol"]
    arguments, _, _ = resolve(launch_command_parser().parse_args(command))
    assert arguments.num_processes == 8 and arguments.mixed_precision == "no"
    assert arguments.use_deepspeed == (name == "zero3")
    if name == "zero3":
        assert arguments.zero_stage == 3
        return
    env = prepare_multi_gpu_env(arguments)
    assert {key for key in env if key.startswith("ACCELERATE_USE_") and env[key] == "true"} == (
        layouts
    )
