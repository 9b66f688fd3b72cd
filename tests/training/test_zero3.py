"""DeepSpeed's ZeRO-3, where DeepSpeed is installed: what two processes learn is what one learns."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from several import GENTLE, MIXED, assert_same_model, losses, start, train_here

import alignvlm.training
from alignvlm.errors import ConfigurationError, MissingDependencyError
from alignvlm.training.processes import open_processes
from alignvlm.training.schedule import TrainConfig
from alignvlm.training.tracking import read_log
from alignvlm.training.zero3 import engine_config

SHIPPED = Path(alignvlm.training.__file__).with_name("launch") / "zero3.json"

# Importing it here would turn its warnings into errors.
needs_deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="no deepspeed")


@pytest.fixture
def launched(tmp_path: Path) -> dict[str, str]:
    """As accelerate launch sets it, on a CPU: even the smallest weights are spread."""
    path = tmp_path / "zero3.json"
    zero = {"stage": 3, "stage3_param_persistence_threshold": 0}
    path.write_text(json.dumps({"zero_optimization": zero}))
    return {
        "DS_ACCELERATOR": "cpu", "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(path),
    }  # fmt: skip


@needs_deepspeed
def test_zero3_goes_on_where_one_process_stopped_and_back(
    tmp_path: Path, launched: dict[str, str]
) -> None:
    """Its checkpoints are whole; the optimizer's state goes in and comes out."""
    train_here(tmp_path / "whole", config=GENTLE)
    run = tmp_path / "run"
    train_here(run, stop_at=1, config=GENTLE)
    assert len(losses(run)) == 2
    start(run, {"config": GENTLE | {"sharding": "zero3"}, "stop_at": 3}, launched)
    assert len(losses(run)) == 4
    train_here(run, config=GENTLE)
    assert losses(run) == pytest.approx(losses(tmp_path / "whole"), rel=1e-6)
    assert_same_model(run, tmp_path / "whole")


@needs_deepspeed
def test_zero3_learns_what_one_process_does(tmp_path: Path, launched: dict[str, str]) -> None:
    """With text alone in one process, accumulation, health and evaluation."""
    options: dict[str, Any] = {
        "config": MIXED["config"] | {"num_steps": 4, "batch_size": 5, "inspect_every": 2},
        "batches": {"num_samples": 5, "pack": False},
        "samples": MIXED["samples"],
        "evaluate": True,
    }
    sharded = {**options, "config": options["config"] | {"sharding": "zero3"}}
    start(tmp_path / "two", sharded, launched)
    train_here(tmp_path / "one", **options)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-6)
    assert_same_model(tmp_path / "two", tmp_path / "one")
    for name in ("gradient_norm", "eval/logit"):
        two, one = (read_log(tmp_path / run)[-1][name] for run in ("two", "one"))
        assert two == pytest.approx(one, rel=1e-4)


def config(**options: Any) -> TrainConfig:
    return TrainConfig(num_steps=1, batch_size=1, learning_rate=1.0, sharding="zero3", **options)


def test_zero3_needs_deepspeed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(MissingDependencyError, match=r"pip install \"alignvlm\[zero3\]\""):
        open_processes(config())


def test_the_recipe_decides_what_it_names() -> None:
    base = json.loads(SHIPPED.read_text()) | {
        "gradient_clipping": 7.0, "train_batch_size": "auto", "bf16": {"enabled": True},
        "steps_per_print": 5,
    }  # fmt: skip
    base["zero_optimization"] |= {"offload_param": {"device": "cpu"}, "reduce_bucket_size": "auto"}
    made = engine_config(base, config(clip_norm=0.5))
    assert made["gradient_clipping"] == 0.5 and made["gradient_accumulation_steps"] == 1
    assert made["torch_autocast"]["enabled"] and "bf16" not in made
    assert made["steps_per_print"] == 5
    zero = made["zero_optimization"]
    assert zero["stage"] == 3 and zero["offload_param"] == {"device": "cpu"}
    assert "reduce_bucket_size" not in zero and "train_batch_size" not in made
    assert not engine_config(base, config(precision="float32"))["torch_autocast"]["enabled"]


def test_another_stage_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="is for ZeRO stage 2: set its stage to 3"):
        engine_config({"zero_optimization": {"stage": 2}}, config())
