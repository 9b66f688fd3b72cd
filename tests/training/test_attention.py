"""Samples that share a row, with torch's masked attention as the reference."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_vlm as tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, LlamaConfig, MistralConfig, PreTrainedModel

from alignvlm.training.attention import BY_SAMPLE, attend_by_sample, sample_lengths

LENGTHS = [5, 1, 9, 2]
POSITIONS = torch.cat([torch.arange(length) for length in LENGTHS])[None]


def language_model(attention: str, **options: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    kind = MistralConfig if "sliding_window" in options else LlamaConfig
    config = kind(
        vocab_size=20, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3, **options,
    )  # fmt: skip
    return AutoModel.from_config(config, attn_implementation=attention)


def run(model: PreTrainedModel, **options: Any) -> tuple[Tensor, list[Tensor]]:
    """Hidden states, and gradients of every parameter and of the input."""
    embeds = torch.randn(1, 17, 32, generator=torch.manual_seed(1)).requires_grad_()
    hidden = model(
        inputs_embeds=embeds, position_ids=POSITIONS, use_cache=False, **options
    ).last_hidden_state
    (hidden * torch.randn(hidden.shape, generator=torch.manual_seed(2))).sum().backward()
    trained = [p.grad for p in model.parameters() if p.grad is not None]
    assert embeds.grad is not None
    return hidden.detach(), [embeds.grad, *trained]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_lengths_are_where_positions_start_again(lengths: list[int]) -> None:
    positions = torch.cat([torch.arange(length) for length in lengths])
    assert sample_lengths(positions[None]) == lengths


@settings(max_examples=10)
@given(st.integers(0, 3))
def test_nothing_passes_from_sample_to_sample(changed: int) -> None:
    model = language_model(BY_SAMPLE)
    embeds = torch.randn(1, 17, 32)
    other = embeds.clone()
    start = sum(LENGTHS[:changed])
    other[:, start : start + LENGTHS[changed]] += 1.0
    with torch.no_grad():
        before, after = (
            model(inputs_embeds=e, position_ids=POSITIONS, sample_lengths=LENGTHS)
            for e in (embeds, other)
        )
    differs = (before.last_hidden_state != after.last_hidden_state).any(-1)[0]
    assert differs.nonzero().flatten().tolist() == list(range(start, start + LENGTHS[changed]))


def test_it_is_masked_attention() -> None:
    """transformers masks by the positions; values and all gradients agree."""
    hidden, gradients = run(language_model(BY_SAMPLE), sample_lengths=LENGTHS)
    masked, their_gradients = run(language_model("sdpa"))
    torch.testing.assert_close(hidden, masked, rtol=1e-5, atol=1e-5)
    assert len(gradients) == len(their_gradients)
    for ours, theirs in zip(gradients, their_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"sliding_window": 2}])
def test_without_lengths_and_in_windows_the_mask_decides(options: dict[str, int]) -> None:
    lengths = {"sample_lengths": LENGTHS} if options else {}
    hidden, gradients = run(language_model(BY_SAMPLE, **options), **lengths)
    masked, their_gradients = run(language_model("sdpa", **options))
    assert torch.equal(hidden, masked)
    for ours, theirs in zip(gradients, their_gradients, strict=True):
        assert torch.equal(ours, theirs)


def test_only_products_inside_of_samples_are_computed() -> None:
    def operations(model: PreTrainedModel, **options: Any) -> int:
        with FlopCounterMode(display=False) as counter:
            run(model, **options)
        attention = [
            count for operator, count in counter.get_flop_counts()["Global"].items()
            if "attention" in str(operator)
        ]  # fmt: skip
        return sum(attention)

    inside = operations(language_model(BY_SAMPLE), sample_lengths=LENGTHS)
    assert inside * 17**2 == operations(language_model("sdpa")) * sum(n**2 for n in LENGTHS)


@pytest.mark.parametrize(("attention", "expected"), [("sdpa", True), ("eager", False)])
def test_a_model_that_was_told_otherwise_keeps_its_attention(
    attention: str, expected: bool
) -> None:
    model = tiny.make_model()
    model.set_attn_implementation(attention)
    assert attend_by_sample(model) is expected
    assert attend_by_sample(model) is expected
    assert not attend_by_sample(language_model("sdpa"))


def test_a_trained_model_names_no_attention_of_ours() -> None:
    model = tiny.make_model()
    attend_by_sample(model)
    assert BY_SAMPLE not in model.config.to_json_string(use_diff=False)
