"""Samples that share a row, with torch's masked attention as the reference."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_vlm as tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AttentionInterface,
    AutoModel,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
)

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


def attend(query: Tensor, lengths: list[int], *, is_causal: bool = True) -> Tensor:
    """The samples' attention over one tensor that is query, key and value."""
    module = nn.Module()
    module.is_causal = is_causal
    function = AttentionInterface()[BY_SAMPLE]
    return function(module, query, query, query, None, sample_lengths=lengths)[0]


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("length", [1, 31, 32, 33])
def test_a_sample_looks_at_no_padding(length: int, is_causal: bool) -> None:
    torch.manual_seed(0)
    rows = [torch.randn(1, 2, length + 40, 8, dtype=torch.float64) for _ in range(2)]
    ours, alone = rows[0].clone().requires_grad_(), rows[0].clone().requires_grad_()
    output = attend(ours, [length, 40], is_causal=is_causal)
    pieces = alone.split([length, 40], dim=2)
    expected = torch.cat(
        [functional.scaled_dot_product_attention(p, p, p, is_causal=is_causal) for p in pieces], 2
    ).transpose(1, 2)
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
    pull = rows[1].transpose(1, 2)
    (output * pull).sum().backward()
    (expected * pull).sum().backward()
    torch.testing.assert_close(ours.grad, alone.grad, rtol=1e-12, atol=1e-12)


def test_lengths_vary_and_few_shapes_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU; other devices see each sample's own length."""
    seen = []
    product = functional.scaled_dot_product_attention

    def watched(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        seen.append((query.shape[2], key.shape[2], value.shape[2]))
        return product(query, key, value, **options)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", watched)
    lengths = [1, 31, 32, 33, 64, 65]
    row = torch.zeros(1, 2, sum(lengths), 8)
    assert attend(row, lengths).shape == (1, sum(lengths), 2, 8)
    assert seen == [(n, n, n) for n in (32, 32, 32, 64, 64, 96)]
    seen.clear()
    assert attend(row.to("meta"), lengths).shape == (1, sum(lengths), 2, 8)
    assert seen == [(n, n, n) for n in lengths]


def test_only_products_inside_of_samples_are_computed() -> None:
    """Of a sample's padding too, to a multiple of 32."""

    def operations(lengths: list[int], implementation: str) -> int:
        model = language_model(implementation)
        length = sum(lengths)
        positions = torch.cat([torch.arange(n) for n in lengths])[None]
        options = {"sample_lengths": lengths} if implementation == BY_SAMPLE else {}
        # The CPU's fused attention has no formula in torch's counter.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            hidden = model(
                inputs_embeds=torch.ones(1, length, 32), position_ids=positions, use_cache=False,
                **options,
            ).last_hidden_state  # fmt: skip
            hidden.sum().backward()
        return sum(
            count for operator, count in counter.get_flop_counts()["Global"].items()
            if "bmm" in str(operator)
        )  # fmt: skip

    lengths = [40, 1, 64, 23]
    inside, whole = operations(lengths, BY_SAMPLE), operations(lengths, "sdpa")
    assert whole == 3 * 4 * 128**2 * 32 * 2
    assert inside * 128**2 == whole * sum(n**2 for n in (64, 32, 64, 32))


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
