"""Memory against what torch holds: states exactly, activations by its own saved-tensor hooks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from weakref import WeakSet

import pytest
import torch

from alignvlm.training import recipes
from alignvlm.training.configuration import (
    BatchConfig,
    DataPart,
    LoraConfig,
    ModelConfig,
    Rates,
    RunConfig,
)
from alignvlm.training.cost.activations import Row, activations
from alignvlm.training.cost.architecture import architecture, skeleton
from alignvlm.training.cost.memory import count_parameters, fullest_row, held_states, memory

ALL = Rates(vision=1e-4, connector=1e-4, llm=1e-4)
STAGE_3 = Rates(connector=1e-4, llm=1e-4)
CONNECTOR = Rates(connector=1e-4)
LORA = LoraConfig(rank=4)


def a_run(rates: Rates = ALL, **options: Any) -> RunConfig:
    model = {name: options.pop(name) for name in ("dtype", "attention", "gradient_checkpointing")
             if name in options}  # fmt: skip
    return RunConfig(
        recipe="test",
        model=ModelConfig(vision="v", llm="l", **model),
        rates=rates,
        data=(DataPart(source="synth"),),
        batches=options.pop("batches", BatchConfig(num_samples=8)),
        **{"precision": "float32", **options},
    )


class Held:
    """A tensor as the graph holds it."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


def measured(made: Any, run: RunConfig) -> int:
    """Bytes that a real forward pass keeps beside the parameters, bfloat16 copies included."""
    parameters = {p.untyped_storage().data_ptr() for p in made.model.parameters()}
    held: WeakSet[Held] = WeakSet()

    def pack(tensor: torch.Tensor) -> Held:
        kept = Held(tensor)
        held.add(kept)
        return kept

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=run.precision == "bfloat16"),
    ):
        out = made.model.model(**made.batch, use_cache=False)
    storages = {kept.tensor.untyped_storage().data_ptr(): kept.tensor.untyped_storage().nbytes()
                for kept in held}  # fmt: skip
    del out
    return sum(size for key, size in storages.items() if key not in parameters)


def prepared(small: Any, run: RunConfig, connector: dict[str, Any], **options: Any) -> Any:
    made = small(connector, attention=run.model.attention, **options)
    made.freeze(run.rates)
    if run.lora is not None:
        made.adapt(run.lora)
    if run.model.gradient_checkpointing:
        made.model.activation_checkpointing_enable()
        made.model.disable_input_require_grads()
    return made


def stated(made: Any, run: RunConfig) -> Any:
    row = Row(num_tiles=made.num_tiles, text_tokens=made.num_text)
    return activations(made.config, run, row)


RUNS = {
    "all": a_run(),
    "stage 3": a_run(STAGE_3),
    "connector": a_run(CONNECTOR),
    "autocast": a_run(precision="bfloat16"),
    "eager attention": a_run(attention="eager"),
    "adapters": a_run(STAGE_3, lora=LORA),
    "adapters, autocast": a_run(STAGE_3, lora=LORA, precision="bfloat16"),
}


@pytest.mark.parametrize(
    ("connector", "name"),
    [*(("align", name) for name in RUNS), ("mlp", "autocast"), ("perceiver", "stage 3")],
)
def test_activations_are_what_torch_saves(small: Any, connector: str, name: str) -> None:
    run = RUNS[name]
    made = prepared(small, run, {"name": connector}, num_text=200)
    found = stated(made, run)
    assert found.total + found.weight_copies == pytest.approx(measured(made, run), rel=0.15)
    assert found.recomputed == 0


@pytest.mark.parametrize("options", [{"implementation": "chunked"}, {"vocabulary": [1, 2, 3]}])
def test_ways_to_compute_align(small: Any, options: dict[str, Any]) -> None:
    run = a_run(precision="bfloat16")
    made = prepared(small, run, {"name": "align", **options}, num_text=200)
    found = stated(made, run)
    assert found.total + found.weight_copies == pytest.approx(measured(made, run), rel=0.15)


def test_document_encoder(small: Any) -> None:
    run = a_run()
    made = prepared(small, run, {"name": "align"}, encoder="document", num_tiles=2)
    assert stated(made, run).total == pytest.approx(measured(made, run), rel=0.15)


@pytest.mark.parametrize("rates", [ALL, STAGE_3], ids=["all", "stage 3"])
def test_checkpointing(small: Any, rates: Rates) -> None:
    """Layers keep their inputs; what one of them recomputes is a layer's share of the rest."""
    run, without = a_run(rates, gradient_checkpointing=True), a_run(rates)
    made = prepared(small, run, {"name": "mlp"}, num_text=200)
    found, plain = stated(made, run), stated(made, without)
    kept = found.total - found.recomputed
    assert kept == pytest.approx(measured(made, run), rel=0.15)
    assert found.vision + found.llm < 0.5 * (plain.vision + plain.llm)
    assert (plain.llm - found.llm) / 3 == pytest.approx(found.recomputed, rel=0.3)


def test_activations_of_the_paper_s_layers_follow_their_formula() -> None:
    """Sizes counted by hand for one Llama layer under autocast, in bytes a token.

    Residuals and norms in float32: 2 inputs and 2 normalised copies of width D. In bfloat16: 5
    copies of the norms' outputs for q, k, v, gate and up, the attention's output, and q, k, v as
    rotated; K and V once more for all heads; gate, its activation, up, their product.
    """
    run = recipes.find("llama-3.2-1b-stage2")()
    flash = replace(run, model=replace(run.model, attention="flash_attention_2"))
    config = architecture(flash.model)
    tokens, width, inner, keys = 729 + 271, 2048, 8192, 512
    of_token = 4 * (4 * width) + 2 * (5 * width + 2 * width + 2 * width + 4 * inner)
    found = activations(config, flash, Row(num_tiles=1, text_tokens=271))
    assert keys < width
    assert found.recomputed / tokens == pytest.approx(of_token, rel=0.15)


@pytest.mark.parametrize("lora", [None, LORA], ids=["whole", "adapters"])
@pytest.mark.parametrize("rates", [ALL, STAGE_3], ids=["all", "stage 3"])
def test_states_are_exactly_what_torch_holds(
    small: Any, rates: Rates, lora: LoraConfig | None
) -> None:
    run = a_run(rates, lora=lora, dtype="bfloat16")
    made = prepared(small, run, {"name": "align"})
    for parameter in made.model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    trained = [p for p in made.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moments = [
        tensor
        for state in optimizer.state.values()
        for name, tensor in state.items()
        if name != "step"
    ]
    plain = small({"name": "align"})
    said = held_states(count_parameters(plain.model, plain.config, run), run, 1)
    held = {
        "weights": sum(p.nbytes for p in made.model.parameters()),
        "gradients": sum(p.grad.nbytes for p in trained),
        "optimizer": sum(tensor.nbytes for tensor in moments),
    }
    assert {name: sum(parts.values()) for name, parts in said.items()} == held


def test_sharding_divides_states_and_gathers_layers(small: Any) -> None:
    config = small({"name": "align"}).config
    alone, together = (memory(config, a_run(), gpus) for gpus in (1, 8))
    shared = memory(config, a_run(sharding="fsdp2"), 8)
    assert shared.states == pytest.approx(alone.states / 8, rel=1e-3)
    assert together.states == alone.states
    assert together.backward == alone.backward, "gradients are exchanged where they lie"
    everything = sum(alone.weights.values())
    assert 0 < shared.workspace["gathered weights"] < 2 * everything


def test_zero3_has_float32_weights_of_its_own(small: Any) -> None:
    """Its `fp32_partitioned_groups_flat`, beside the parts of the model's own in float32."""
    config, trained = small({"name": "align"}).config, 0
    fsdp2, zero3 = (memory(config, a_run(STAGE_3, sharding=s), 8) for s in ("fsdp2", "zero3"))
    for part, gradient in fsdp2.gradients.items():
        assert zero3.optimizer[part] - fsdp2.optimizer[part] == pytest.approx(gradient, abs=1)
        trained += gradient
    assert zero3.workspace == fsdp2.workspace and zero3.weights == fsdp2.weights
    assert zero3.total - fsdp2.total == pytest.approx(trained, abs=3)


def test_four_bits_hold_the_language_model_s_layers_alone() -> None:
    run = recipes.find("llama-3.2-3b-qlora")()
    config = architecture(run.model)
    assert run.lora is not None
    plain, four = (
        held_states(count_parameters(skeleton(config), config, made), made, 1)["weights"]
        for made in (replace(run, lora=replace(run.lora, quantize=False)), run)
    )
    layers = 28 * (3072 * (2 * 3072 + 2 * 1024) + 3 * 3072 * 8192)
    assert plain["llm"] - four["llm"] == pytest.approx(layers * (2 - 0.5625), rel=1e-6)
    assert plain["vision"] == four["vision"]


def test_the_fullest_moment_is_one_of_two(small: Any) -> None:
    """ALIGN's blocks and the loss's take turns; the optimizer's step comes after both."""
    held = memory(small({"name": "align"}).config, a_run(), 1)
    work = held.workspace
    others = sum(work.values()) - work["ALIGN"] - work["loss"] - work["optimizer step"]
    backward = sum(held.activations.values()) + others + max(work["ALIGN"], work["loss"])
    assert held.backward == backward
    assert held.total == held.states + max(backward, work["optimizer step"])
    large = replace(held, workspace={**work, "optimizer step": 10**12})
    assert large.total == held.states + 10**12


def test_the_fullest_row_is_as_batches_allow() -> None:
    run = recipes.find("llama-3.2-1b-stage1")()
    config = architecture(run.model)
    packed = fullest_row(config, run)
    assert packed.num_tiles == 14
    assert packed.num_tiles * 729 + packed.text_tokens == run.batches.max_tokens
    single = fullest_row(config, replace(run, batches=replace(run.batches, pack=False)))
    assert (single.num_tiles, single.text_tokens, single.num_samples) == (10, 1024, 1)


def test_the_mask_of_a_packed_row_counts_without_flash_attention(small: Any) -> None:
    made = small({"name": "mlp"})
    rows = [Row(num_tiles=1, text_tokens=500, num_samples=n) for n in (1, 2)]
    one, two = (activations(made.config, a_run(), row).llm for row in rows)
    flash = a_run(attention="flash_attention_2")
    assert two > one
    assert activations(made.config, flash, rows[1]).llm == one
