"""Other makers' models: what is said of them beside what torch counts while they run for real."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakSet

import foreign_vlm
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig

from alignvlm.errors import ConfigurationError
from alignvlm.training import overrides, recipes
from alignvlm.training.configuration import LoraConfig, Rates, RunConfig
from alignvlm.training.cost import foreign, plan
from alignvlm.training.cost.foreign import ForeignModel
from alignvlm.training.cost.plan import RESERVE_BYTES, Plan, make_plan
from alignvlm.training.models import _add_lora
from alignvlm.training.vlm import VLMTask

GB = 10**9
PAGE = (64, 48)
TEXT = 120
ALL = Rates(vision=1e-4, connector=1e-4, llm=1e-4)
STAGE_3 = Rates(connector=1e-4, llm=1e-4)
MODELS = pytest.mark.parametrize("name", foreign_vlm.MODELS)
LORA = LoraConfig(rank=4)


def a_run(rates: Rates = ALL, **options: Any) -> RunConfig:
    run = recipes.find("base-vlm-stage2")()
    model = replace(run.model, gradient_checkpointing=options.pop("checkpointing", False))
    return replace(run, model=model, rates=rates, **{"precision": "float32", **options})


Make = Callable[[str, RunConfig], tuple[Any, ForeignModel]]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    """A small model as a run trains it, and what is said of it."""

    def made(name: str, run: RunConfig) -> tuple[Any, ForeignModel]:
        model, processor = foreign_vlm.MODELS[name]()
        monkeypatch.setattr(foreign, "processor_of", lambda _: processor)
        said = ForeignModel(model.config, run)
        if run.lora is not None:
            _add_lora(model, run.lora)
        if run.model.gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
            model.disable_input_require_grads()
        return VLMTask(model.train(), processor, None, run.rates, lora=run.lora), said

    return made


def row_of(said: ForeignModel) -> dict[str, torch.Tensor]:
    """The same sample, with its pixels."""
    example = said._example(PAGE, TEXT)
    one_row = {"input_ids", "labels"}
    return {name: t[None] if name in one_row else t for name, t in example.tensors.items()}


RUNS = {
    "all": a_run(),
    "stage 3": a_run(STAGE_3),
    "connector": a_run(Rates(connector=1e-4)),
    "checkpointing": a_run(checkpointing=True),
    "adapters": a_run(STAGE_3, lora=LORA),
}


@pytest.mark.parametrize(
    ("name", "run"),
    [*(("qwen2_vl", run) for run in RUNS), ("mllama", "checkpointing"), ("llava", "stage 3")],
)  # fmt: skip
def test_operations_are_what_torch_counts(make: Make, name: str, run: str) -> None:
    task, said = make(name, RUNS[run])
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss = task.loss(row_of(said)).total
        forward = counter.get_total_flops()
        loss.backward()
    found = said.flops(PAGE, TEXT)
    assert found.forward == pytest.approx(forward, rel=0.01)
    assert found.total == pytest.approx(counter.get_total_flops(), rel=0.05)
    parts = dict(found.parts())
    assert all(part.forward > 0 for part in parts.values())
    assert (parts["vision"].backward > 0) == (RUNS[run].rates.vision is not None)
    assert (parts["llm"].recomputed > 0) == RUNS[run].model.gradient_checkpointing
    assert parts["connector"].recomputed == parts["head"].recomputed == 0


@pytest.mark.parametrize(
    ("name", "run"),
    [("qwen2_vl", "all"), ("qwen2_vl", "checkpointing"), ("mllama", "all"), ("llava", "stage 3")],
)
def test_activations_are_what_torch_saves(make: Make, name: str, run: str) -> None:
    task, said = make(name, RUNS[run])
    parameters = {p.untyped_storage().data_ptr() for p in task.module.parameters()}
    held: WeakSet[Any] = WeakSet()

    class Held:
        def __init__(self, tensor: torch.Tensor) -> None:
            self.tensor = tensor
            held.add(self)

    row = row_of(said)
    with torch.autograd.graph.saved_tensors_hooks(Held, lambda kept: kept.tensor):
        loss = task.loss(row).total
    storages = {kept.tensor.untyped_storage() for kept in held}
    sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
    measured = sum(size for place, size in sizes.items() if place not in parameters)
    assert loss.requires_grad
    found = said._activations(said._example(PAGE, TEXT))
    assert found.total - found.recomputed == pytest.approx(measured, rel=0.15)
    assert (found.recomputed > 0) == (run == "checkpointing")


@MODELS
def test_a_sample_is_as_long_as_asked_for(make: Make, name: str) -> None:
    said = make(name, RUNS["connector"])[1]
    for text_tokens in (60, 300):
        measured = said._example(PAGE, text_tokens).measured
        text = measured.num_tokens - measured.num_visual_tokens
        assert text == pytest.approx(text_tokens, abs=2)
    images, visual = said.measure(*PAGE)
    assert images == 1 and (visual > 0) == (name != "mllama")
    assert said.flops(PAGE, 60, 2).vision.forward > said.flops(PAGE, 60).vision.forward


def in_folder(tmp_path: Path) -> list[str]:
    """Settings that name a small Llava with its processor, saved without weights."""
    model, processor = foreign_vlm.llava()
    model.config.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    return [f"model.pretrained={tmp_path}"]


@pytest.fixture(scope="module")
def base_plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Plan]:
    """What the recipes that train other models will do with a small Llava."""
    settings = in_folder(tmp_path_factory.mktemp("llava"))
    runs = [overrides.apply(recipes.find(f"base-vlm-stage{n}")(), settings) for n in "23"]
    return {run.recipe: make_plan(run, 8, 80 * GB) for run in runs}


@pytest.mark.parametrize("name", ["base-vlm-stage2", "base-vlm-stage3"])
def test_base_vlms_are_planned(name: str, base_plans: dict[str, Plan]) -> None:
    made = base_plans[name]
    trained = {part: p.trained > 0 for part, p in made.parameters.items()}
    assert trained == {"vision": name.endswith("2"), "connector": True, "llm": True}
    assert made.fits and not made.changes
    step = made.step
    assert (step.samples, step.tiles, step.visual_tokens) == (256, 256, 256 * 4)
    assert step.rows_per_gpu == 32 and made.unit == "images"
    assert made.to_dict()["run_flops"] == step.flops.total * made.samples.num_steps > 0
    held = made.memory
    assert held.activations["llm"] > 0 and held.workspace["loss"] > 0
    assert held.workspace["gathered weights"] > 0 and held.total > held.states


def test_what_is_assumed_of_the_text_changes_no_memory(base_plans: dict[str, Plan]) -> None:
    made = base_plans["base-vlm-stage3"]
    long = make_plan(made.run, 8, 80 * GB, text_tokens=2 * made.samples.text_tokens)
    assert long.step.flops.llm.forward > 1.8 * made.step.flops.llm.forward
    assert long.memory == made.memory


def test_memory_can_be_asked_for_alone(base_plans: dict[str, Plan]) -> None:
    made = base_plans["base-vlm-stage2"]
    assert plan.needed_memory(made.run, 8) == made.memory


def test_advice_for_another_model(tmp_path: Path) -> None:
    run = overrides.apply(
        recipes.find("base-vlm-stage2")(),
        [*in_folder(tmp_path), "model.gradient_checkpointing=false", "sharding=none"],
    )
    made = make_plan(run, 1, RESERVE_BYTES)
    assert not made.fits
    settings = [change.setting for change in made.changes]
    assert settings[0] == "model.gradient_checkpointing=true"
    assert "lora.rank=16 model.dtype=bfloat16" in settings
    assert not any("max_tokens" in setting for setting in settings), "rows hold one sample each"


def test_a_processor_that_is_not_there(tmp_path: Path) -> None:
    foreign_vlm.llava()[0].config.save_pretrained(tmp_path)
    run = overrides.apply(recipes.find("base-vlm-stage2")(), [f"model.pretrained={tmp_path}"])
    with pytest.raises(ConfigurationError, match=r"The processor of .* cannot be loaded \("):
        make_plan(run, 8, 80 * GB)


def test_a_model_of_another_kind(tmp_path: Path) -> None:
    BertConfig().save_pretrained(tmp_path)
    run = overrides.apply(recipes.find("base-vlm-stage2")(), [f"model.pretrained={tmp_path}"])
    with pytest.raises(ConfigurationError, match="is a 'bert', which transformers does not know"):
        make_plan(run, 8, 80 * GB)
