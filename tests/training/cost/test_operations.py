"""FLOPs against what torch counts while real models run forward and backward on the CPU."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from alignvlm.training import recipes
from alignvlm.training.configuration import LoraConfig, Rates
from alignvlm.training.cost import flops, operations
from alignvlm.training.cost.architecture import architecture

ALL = Rates(vision=1e-4, connector=1e-4, llm=1e-4)
STAGE_3 = Rates(connector=1e-4, llm=1e-4)
CONNECTOR = Rates(connector=1e-4)
TRAINED = {"all": ALL, "stage 3": STAGE_3, "connector": CONNECTOR, "llm": Rates(llm=1e-4)}
CONNECTORS = {
    "align": {"name": "align"},
    "align in chunks": {"name": "align", "implementation": "chunked", "chunk_size": 64},
    "align pruned": {"name": "align", "vocabulary": list(range(200))},
    "align with a table": {"name": "align", "own_table": True},
    "mlp": {"name": "mlp"},
    "ovis": {"name": "ovis", "visual_vocab_size": 512},
    "perceiver": {"name": "perceiver", "num_latents": 8, "depth": 2},
    "h_reducer": {"name": "h_reducer"},
    "pixel_shuffle": {"name": "pixel_shuffle"},
    "c_abstractor": {"name": "c_abstractor", "hidden_dim": 64, "num_queries": 16, "depth": 1},
}


def gradient_of_convolution(
    grad: Any, x: Any, weight: Any, *arguments: Any, out_shape: Any, **_: Any
) -> int:
    """torch's own formula counts a depthwise weight's gradient once for each pair of channels."""
    mask = arguments[-1]
    product = 2 * prod(weight) * grad[0] * prod(grad[2:])
    return int(product * (mask[0] + mask[1]))


def gradients_of_align(hidden: Any, weight: Any, *arguments: Any, **_: Any) -> int:
    """The operator's formula has all gradients needed; here are those that are."""
    of_hidden, of_weight, _bias, _gamma, _beta, of_table = arguments[-1]
    return 2 * hidden[0] * hidden[1] * weight[0] * (2 + of_hidden + of_weight + of_table)


def counted(call: Any) -> tuple[int, int]:
    """FLOPs of the forward pass, and of both."""
    formula = {
        torch.ops.aten.convolution_backward: gradient_of_convolution,
        torch.ops.alignvlm.mixture_backward: gradients_of_align,
    }
    counter = FlopCounterMode(display=False, custom_mapping=formula)
    # The CPU's fused attention has no formula in torch's counter.
    with sdpa_kernel(SDPBackend.MATH), counter:
        loss = call()
        forward = counter.get_total_flops()
        loss.backward()
    return forward, counter.get_total_flops()


def stated(made: Any, rates: Rates, **options: Any) -> Any:
    return flops(
        made.config,
        text_tokens=made.num_text,
        visual_tokens=made.visual_tokens,
        num_tiles=made.num_tiles,
        sum_squared_lengths=made.length**2,
        trained=rates,
        loss_tokens=made.length,
        **{"checkpointing": False, **options},
    )


# By connector: what is worked out once for each is kept for a few.
CASES = [
    (name, trained)
    for name in CONNECTORS
    for trained, names in (
        ("all", CONNECTORS),
        ("stage 3", ("align", "align in chunks", "mlp", "perceiver")),
        ("connector", list(CONNECTORS)[:5]),
        ("llm", list(CONNECTORS)[:5]),
    )
    if name in names
]


@pytest.mark.parametrize(("name", "trained"), CASES)
def test_training_is_what_torch_counts(small: Any, name: str, trained: str) -> None:
    made = small(CONNECTORS[name])
    made.freeze(TRAINED[trained])
    said = stated(made, TRAINED[trained])
    forward, total = counted(made.loss)
    assert said.forward == pytest.approx(forward, rel=0.01)
    assert said.total == pytest.approx(total, rel=0.05)


@pytest.mark.parametrize("trained", ["all", "stage 3"])
def test_checkpointing_is_what_torch_counts(small: Any, trained: str) -> None:
    made = small({"name": "align"})
    made.freeze(TRAINED[trained])
    made.model.activation_checkpointing_enable()
    # transformers makes the inputs of frozen encoders require gradients too, which nothing needs.
    made.model.disable_input_require_grads()
    found = counted(made.loss)[1]
    said = stated(made, TRAINED[trained], checkpointing=True)
    assert said.total == pytest.approx(found, rel=0.02)
    assert said.model + said.llm.recomputed + said.vision.recomputed == said.total < found * 1.02
    assert said.llm.recomputed > said.llm.forward / 2


def test_features_of_an_inner_layer(small: Any) -> None:
    made = small({"name": "mlp"}, vision_feature_layer=-2)
    assert stated(made, ALL).total == pytest.approx(counted(made.loss)[1], rel=0.05)


@pytest.mark.parametrize("trained", ["all", "stage 3"])
def test_document_encoder(small: Any, trained: str) -> None:
    made = small({"name": "align"}, encoder="document", num_tiles=2)
    made.freeze(TRAINED[trained])
    assert stated(made, TRAINED[trained]).total == pytest.approx(counted(made.loss)[1], rel=0.05)


def test_adapters(small: Any) -> None:
    lora = LoraConfig(rank=8)
    made = small({"name": "mlp"})
    made.freeze(STAGE_3)
    made.adapt(lora)
    said = stated(made, STAGE_3, lora=lora)
    assert said.total == pytest.approx(counted(made.loss)[1], rel=0.05)
    assert said.total < stated(made, STAGE_3).total


def test_smol(blank: Any) -> None:
    """The recipe's model with all its layers, on a page of one small tile."""
    recipe = recipes.find("smol")()
    config = architecture(replace(recipe.model, vision_options={"tile_px": 16}))
    made = blank(config, "eager", num_tiles=1, num_text=16)
    made.adapt(recipe.lora)
    said = stated(made, recipe.rates, lora=recipe.lora)
    assert said.total == pytest.approx(counted(made.loss)[1], rel=0.05)


def test_units_are_worked_out_once(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop asks at every step."""
    made = small({"name": "align"})
    first = stated(made, ALL)
    monkeypatch.setattr(operations, "FlopCounterMode", None)
    assert stated(made, ALL) == first


def test_operations_grow_with_what_is_counted(small: Any) -> None:
    made = small({"name": "align"})
    arguments = {
        "text_tokens": 100,
        "visual_tokens": 200,
        "num_tiles": 5,
        "sum_squared_lengths": 90_000,
        "trained": ALL,
        "checkpointing": False,
    }
    once = flops(made.config, **arguments)
    doubled = {name: 2 * n if type(n) is int else n for name, n in arguments.items()}
    twice = flops(made.config, **doubled)
    assert twice.total == pytest.approx(2 * once.total, rel=1e-9)
    assert dict(once.parts()).keys() == {"vision", "connector", "llm", "head"}
    assert once.forward < once.model < once.total or once.model == once.total
