from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import tiny_vlm as tiny
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from alignvlm.connectors import registry
from alignvlm.errors import ConfigurationError, TrainingError
from alignvlm.training.configuration import LoraConfig, Rates
from alignvlm.training.loop import train
from alignvlm.training.models import _add_lora
from alignvlm.training.task import Share
from alignvlm.training.tracking import read_log
from alignvlm.training.vlm import part_of


def rows_of(task: Any, num_samples: int = 4) -> list[Any]:
    return list(task.micro_batches(tiny.config(num_steps=1, batch_size=num_samples), 0, Share()))


@pytest.mark.parametrize("name", registry.available())
def test_every_connector_trains(name: str) -> None:
    task = tiny.make_task(model=tiny.make_model(name), max_tokens=4096, num_samples=2)
    _, gradients = tiny.gradients(task, rows_of(task, 2))
    moved = {part_of(n) for n, gradient in gradients.items() if gradient.abs().sum() > 0}
    assert moved == {"vision", "connector", "llm"}


def test_the_loss_is_the_models_own() -> None:
    """Against transformers' loss function over all logits, one sample after the other."""
    task = tiny.make_task(pack=False)
    total, count = 0.0, 0
    for row in rows_of(task):
        found = task.loss(row.tensors)
        output = task.module(**row.tensors)
        assert found.total.item() / found.weight == pytest.approx(output.loss.item(), rel=1e-5)
        total, count = total + found.total.item(), count + found.weight
    (packed, *more) = rows_of(tiny.make_task(max_tokens=1024, max_tiles=99))
    assert not more and packed.step_weight == count
    assert task.loss(packed.tensors).total.item() == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize(
    ("rates", "parts"),
    [(Rates(connector=1e-3), {"connector"}),
     (Rates(connector=1e-3, llm=1e-4), {"connector", "llm"}),
     (Rates(vision=1e-5, connector=1e-3, llm=1e-4), {"vision", "connector", "llm"})],
)  # fmt: skip
def test_a_part_without_a_rate_is_frozen(tmp_path: Path, rates: Rates, parts: set[str]) -> None:
    task = tiny.make_task(rates=rates)
    before = {name: p.detach().clone() for name, p in task.module.named_parameters()}
    train(task, tiny.config(num_steps=2, learning_rate=1e-3), tmp_path)
    after = dict(task.module.named_parameters())
    changed = {part_of(name) for name in after if not torch.equal(after[name], before[name])}
    assert changed == parts
    keys = {key.partition("/")[2] for key in read_log(tmp_path)[0] if key.startswith("learning")}
    assert keys == (parts if len(parts) > 1 else {""})


def test_rates_are_relative_to_the_largest() -> None:
    task = tiny.make_task(rates=Rates(vision=2e-6, connector=1e-5, llm=1e-5))
    factors = {
        part_of(name): task.learning_rate_factor(name) for name, _ in task.module.named_parameters()
    }
    assert factors == {"vision": pytest.approx(0.2), "connector": 1.0, "llm": 1.0}


def test_aligns_gradient_reaches_the_table_both_ways() -> None:
    """E is looked up for text and mixed for images: frozen text alone would still move it."""
    task = tiny.make_task()
    (row, *_) = rows_of(task)
    text_only = {k: v for k, v in row.tensors.items() if k not in ("pixel_values", "tile_grids")}
    table = task.module.get_input_embeddings().weight
    grads = []
    for batch in (row.tensors, text_only):
        task.module.zero_grad()
        task.loss(batch).total.backward()
        grads.append(table.grad.clone())
    unseen = ~torch.isin(torch.arange(len(table)), row.tensors["input_ids"])
    task.module.lm_head.weight.requires_grad_(True)
    assert not torch.allclose(grads[0][unseen], grads[1][unseen])


def test_a_row_without_images_touches_every_part() -> None:
    task = tiny.make_task(tiny.DrawnSamples(alternate=True), num_samples=2, pack=False)
    rows = rows_of(task, 2)
    (text_only,) = [row for row in rows if "pixel_values" not in row.tensors]
    task.loss(text_only.tensors).total.backward()
    assert all(p.grad is not None for n, p in task.module.named_parameters() if "post_lay" not in n)


def test_every_row_takes_the_same_way() -> None:
    """Processes gather the layers in the order of use: whoever has no image must not swap them."""
    task = tiny.make_task(tiny.DrawnSamples(alternate=True), num_samples=2, pack=False)
    ways = [tiny.way(task, row.tensors) for row in rows_of(task, 2)]
    assert ways[0] == ways[1]
    forward, backward = ways[0]
    assert len(forward) == 4 and "vision_model" in backward[-1]
    assert "vision" in forward[0] and "language" in forward[-1] and "language" in backward[0]


def test_a_row_of_padding_counts_nothing() -> None:
    model = tiny.make_model(tie_word_embeddings=False)
    task = tiny.make_task(model=model)
    (row, *_) = rows_of(task)
    empty = {
        name: row.tensors[name][:, :0].new_zeros(1, 128) + (-100 if name == "labels" else 0)
        for name in ("input_ids", "labels", "position_ids")
    }
    loss = task.loss(empty)
    loss.total.backward()
    assert loss.weight == 0 and loss.total.item() == 0
    assert all(not p.grad.any() for p in task.module.parameters() if p.grad is not None)
    untouched = {name for name, p in model.named_parameters() if p.grad is None}
    assert all("post_layernorm" in name for name in untouched), "other processes' have gradients"
    assert model.lm_head.weight.grad is not model.get_input_embeddings().weight.grad


def test_a_model_that_condenses_trains_unpacked() -> None:
    """Its rows are as long as its images turn out to be, padded on the left."""
    model = tiny.make_model(condense={"prune": True}, vocabulary=[50, 51, 52])
    task = tiny.make_task(model=model, pack=False)
    assert any(row.counts["visual_tokens"] for row in rows_of(task))
    for row in rows_of(task):
        found = task.loss(row.tensors)
        output = task.module(**row.tensors)
        assert found.total.item() / found.weight == pytest.approx(output.loss.item(), rel=1e-5)


def test_the_run_leaves_a_model_that_loads(tmp_path: Path) -> None:
    task = tiny.make_task()
    train(task, tiny.config(num_steps=2), tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "model")
    for ours, theirs in zip(
        task.module.state_dict().items(), loaded.state_dict().items(), strict=True
    ):
        assert ours[0] == theirs[0] and torch.equal(ours[1], theirs[1])
    assert AutoProcessor.from_pretrained(tmp_path / "model").placeholders_per_tile == 4


@pytest.mark.parametrize("writes", [True, False])
def test_what_is_gathered_are_the_parameters_themselves(tmp_path: Path, writes: bool) -> None:
    """DeepSpeed's marks are on them and on no copy; tied ones once, and in every process alike."""
    task, asked = tiny.make_task(), []

    def whole(tensor: torch.Tensor) -> torch.Tensor:
        asked.append(tensor)
        return tensor.detach()

    task.finish(tmp_path, whole, writes=writes)
    given = {id(tensor) for tensor in asked}
    assert given >= {id(parameter) for parameter in task.module.parameters()}
    assert len(asked) == len(given)
    assert (tmp_path / "model").exists() == writes


def test_adapters_train_alone_and_are_merged(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    model = tiny.make_model()
    _add_lora(model, LoraConfig(rank=2, alpha=4))
    task = tiny.make_task(model=model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(task, tiny.config(num_steps=3), tmp_path)
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    llm = {name for name in changed if part_of(name) == "llm"}
    assert llm and all("lora_" in name for name in llm)
    (row, *_) = rows_of(task)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "model")
    merged = tiny.make_task(model=loaded)
    with torch.no_grad():
        ours, theirs = task.loss(row.tensors).total, merged.loss(row.tensors).total
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-4)


def test_a_rate_for_a_part_that_is_not_there() -> None:
    model = tiny.make_model()
    model.model.connector = torch.nn.Identity()
    with pytest.raises(ConfigurationError, match=r"rates\.connector is set and the model has no"):
        tiny.make_task(model=model)


def test_health_is_logged_now_and_then(tmp_path: Path) -> None:
    train(tiny.make_task(), tiny.config(num_steps=4, inspect_every=2), tmp_path)
    looked = [any(key.startswith("health/") for key in record) for record in read_log(tmp_path)]
    assert looked == [True, False, True, False]


def test_evaluation_runs_in_eval_mode(tmp_path: Path) -> None:
    modes = []

    def evaluate(module: torch.nn.Module, step: int) -> dict[str, float]:
        modes.append((module.training, torch.is_grad_enabled(), step))
        return {"anls": 0.5}

    task = tiny.make_task()
    train(task, tiny.config(num_steps=3, evaluate_every=2), tmp_path, evaluate=evaluate)
    assert modes == [(False, False, 2), (False, False, 3)]
    assert [r.get("eval/anls") for r in read_log(tmp_path)] == [None, 0.5, 0.5]
    assert task.module.training


@pytest.mark.parametrize(
    ("name", "part"),
    [("model.connector.w1.weight", "connector"), ("model.vision_model.x", "vision"),
     ("model.visual.merger.mlp.0.weight", "connector"), ("model.visual.blocks.0", "vision"),
     ("model.multi_modal_projector.linear_1", "connector"), ("lm_head.weight", "llm"),
     ("model.language_model.layers.0.mlp.up_proj.weight", "llm")],
)  # fmt: skip
def test_parts_by_their_names(name: str, part: str) -> None:
    assert part_of(name) == part


def test_one_row_of_eight_is_eight_rows_of_one() -> None:
    """Accumulation weighs tokens, not rows, whose answers differ in length."""
    losses, found = [], []
    for pack in (True, False):
        task = tiny.make_task(pack=pack, num_samples=8, max_tokens=2048, max_tiles=99)
        rows = rows_of(task, 8)
        assert len(rows) == (1 if pack else 8)
        loss, gradients = tiny.gradients(task, rows)
        losses.append(loss)
        found.append(gradients)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for name, gradient in found[0].items():
        largest = max(float(g.abs().max()) for g in found[0].values())
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=3e-6 * largest)


def test_the_connector_learns_through_a_frozen_language_model() -> None:
    """Its gradient is what it would be if everything trained."""
    every = tiny.gradients(task := tiny.make_task(), rows_of(task))[1]
    alone = tiny.gradients(task := tiny.make_task(rates=Rates(connector=1e-3)), rows_of(task))[1]
    assert alone and {part_of(name) for name in alone} == {"connector"}
    for name, gradient in alone.items():
        torch.testing.assert_close(gradient, every[name], rtol=1e-5, atol=1e-7)
        assert gradient.abs().sum() > 0


def test_bfloat16_is_near_float32_on_a_cpu(tmp_path: Path) -> None:
    """Under autocast, weights and Adam's state in float32, frozen weights in bfloat16."""
    losses = {}
    for precision in ("float32", "bfloat16"):
        model = tiny.make_model()
        if precision == "bfloat16":
            model.model.vision_model.to(torch.bfloat16)
        task = tiny.make_task(model=model, rates=Rates(connector=1e-3, llm=1e-4))
        train(task, tiny.config(num_steps=4, precision=precision), tmp_path / precision)
        losses[precision] = [record["loss"] for record in read_log(tmp_path / precision)]
        states = load_file(tmp_path / precision / "step-00000004" / "optimizer.safetensors")
        assert {value.dtype for value in states.values()} == {torch.float32}
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.03)
    assert losses["bfloat16"] != losses["float32"]


def test_memory_does_not_grow(tmp_path: Path) -> None:
    """A hundred steps, after the first thirty have filled what caches there are."""
    process, seen = psutil.Process(), []

    def note(step: int) -> None:
        if step in (30, 80, 130):
            gc.collect()
            tensors = sum(type(held) is torch.Tensor for held in gc.get_objects())
            seen.append((process.memory_info().rss, tensors))

    task = tiny.make_task(num_samples=1, max_tokens=128)
    options = {"num_steps": 130, "batch_size": 1, "checkpoint_every": 1000}
    train(task, tiny.config(**options), tmp_path, on_step=note)
    first, _, last = seen
    assert last[0] - first[0] < 12e6, seen
    assert last[1] - first[1] < 10, seen  # a row with an image holds some more


def test_a_row_without_images_is_inspected_with_the_others() -> None:
    """A sharded encoder must be passed through by every process; what it says of nothing is not."""
    task, passed = tiny.make_task(), []
    task.module.model.vision_model.register_forward_hook(lambda *_: passed.append(1))
    assert task.inspect({"input_ids": torch.ones(1, 5, dtype=torch.long)}) == {}
    assert passed == [1]


def test_a_full_disk_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last checkpoint is there; the same command writes the model alone."""
    with monkeypatch.context() as patch:

        def refuse(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(tiny.AlignVLMProcessor, "save_pretrained", refuse)
        with pytest.raises(TrainingError) as raised:
            train(tiny.make_task(), tiny.config(num_steps=2), tmp_path)
    assert str(raised.value) == (
        f"The trained model cannot be written to {tmp_path / 'model'} (No space left on device): "
        "free some space and run the same command again, it only writes the model"
    )
    assert not (tmp_path / "model").exists() and (tmp_path / "step-00000002").is_dir()
    assert train(tiny.make_task(), tiny.config(num_steps=2), tmp_path) == 2
    assert (tmp_path / "model" / "config.json").is_file()


def test_the_wait_for_data_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tiny.DrawnSamples.read

    def slow(self: Any, position: int, attempt: int = 0) -> Any:
        time.sleep(0.02)
        return real(self, position, attempt)

    monkeypatch.setattr(tiny.DrawnSamples, "read", slow)
    train(tiny.make_task(), tiny.config(num_steps=3), tmp_path)
    for record in read_log(tmp_path):
        waited = record["data_wait_share"] * record["seconds_per_step"]
        assert waited > 4 * 2 * 0.02  # four samples, each read to be measured and to be made
