"""ALIGN against Eq. 1-2 written out in NumPy float64, and its options."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_align import random_align
from torch.nn import functional

from alignvlm.connectors import MLP, Align, Linear
from alignvlm.errors import ConfigurationError

sizes = st.integers(1, 12)
leading = st.lists(st.integers(0, 3), max_size=2).map(tuple)


def layer_norm(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * gamma + beta


def equations_1_and_2(
    weights: dict[str, np.ndarray], features: np.ndarray, E: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    hidden = features @ weights["w1.weight"].T
    hidden = layer_norm(hidden, weights["norm_d.weight"], weights["norm_d.bias"])
    logits = layer_norm(
        hidden @ weights["w2.weight"].T, weights["norm_v.weight"], weights["norm_v.bias"]
    )
    probs = np.exp(logits - logits.max(-1, keepdims=True))
    probs /= probs.sum(-1, keepdims=True)
    return probs, probs @ E


def float64(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def relative(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(actual - expected) / max(np.linalg.norm(expected), 1e-30))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    d=sizes,
    D=st.integers(2, 24),
    V=st.integers(2, 60),
    N=st.integers(1, 7),
    batch=leading,
    seed=st.integers(0, 99),
)
def test_equations_in_float32(
    d: int, D: int, V: int, N: int, batch: tuple[int, ...], seed: int
) -> None:
    align = random_align(d, D, V, seed=seed)
    features, E = torch.randn(*batch, N, d), torch.randn(V, D)
    weights = {key: float64(value) for key, value in align.state_dict().items()}
    probs, tokens = equations_1_and_2(weights, float64(features), float64(E))
    output = align(features, embeddings=E, return_intermediates=True)
    assert output.visual_tokens.shape == (*batch, N, D)
    # Two logits or widths of nearly equal value are normalised by a tiny deviation, which
    # magnifies float32's own rounding; such draws say nothing about the formula.
    hidden = float64(features) @ weights["w1.weight"].T
    assume(not hidden.size or hidden.std(-1).min() > 1e-2)
    assert relative(float64(output.intermediates["vocab_probs"]), probs) <= 1e-5
    assert relative(float64(output.visual_tokens), tokens) <= 1e-5


@pytest.mark.parametrize(("d", "D", "V"), [(12, 24, 60), (64, 128, 5000), (16, 96, 20000)])
def test_equations_in_bfloat16(d: int, D: int, V: int) -> None:
    align = random_align(d, D, V).bfloat16()
    features, E = torch.randn(20, d).bfloat16(), torch.randn(V, D).bfloat16()
    weights = {key: float64(value) for key, value in align.state_dict().items()}
    _, tokens = equations_1_and_2(weights, float64(features), float64(E))
    output = align(features, embeddings=E, return_intermediates=True)
    assert output.visual_tokens.dtype == torch.bfloat16
    assert output.intermediates["vocab_logits"].dtype == torch.float32
    assert output.intermediates["vocab_probs"].dtype == torch.float32
    assert relative(float64(output.visual_tokens), tokens) <= 2e-2


def test_float16_keeps_probabilities_it_cannot_hold() -> None:
    V = 200_000  # uniform weights of 5e-6 are subnormal in float16, which errs by 0.6 % there
    align = Align(2, 4, V, affine=False).half()
    with torch.no_grad():
        align.w2.weight.zero_()
    E = torch.randn(V, 4).abs().half()
    tokens = align(torch.randn(1, 2).half(), embeddings=E).visual_tokens
    assert tokens.dtype == torch.float16
    assert relative(float64(tokens), float64(E).mean(0, keepdims=True)) <= 1e-3


def test_autocast_normalises_in_float32() -> None:
    align, E = random_align(8, 16, 300), torch.randn(300, 16)
    features = torch.randn(5, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        steps = align(features, embeddings=E, return_intermediates=True).intermediates
        logits = align.vocab_logits(features)
    assert (
        steps["vocab_logits"].dtype == steps["vocab_probs"].dtype == logits.dtype == torch.float32
    )
    sums = steps["vocab_probs"].double().sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-6)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(V=st.integers(2, 3000), gain=st.floats(0.1, 30), seed=st.integers(0, 99))
def test_visual_tokens_lie_in_the_convex_hull(V: int, gain: float, seed: int) -> None:
    torch.manual_seed(seed)
    align, E = Align(6, 8, V, gain=gain), torch.randn(V, 8)
    output = align(torch.randn(9, 6), embeddings=E, return_intermediates=True)
    probs, tokens = output.intermediates["vocab_probs"], output.visual_tokens
    assert (probs >= 0).all()
    sums = probs.double().sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-6)
    slack = 1e-5 * E.abs().max()
    assert (tokens <= E.max(0).values + slack).all()
    assert (tokens >= E.min(0).values - slack).all()


def test_intermediates_are_the_named_steps() -> None:
    align, E = random_align(5, 8, 30), torch.randn(30, 8)
    features = torch.randn(2, 4, 5)
    steps = align(features, embeddings=E, return_intermediates=True).intermediates
    assert list(steps) == ["features", "vocab_logits", "vocab_probs", "visual_tokens"]
    assert steps["features"].shape == (2, 4, 8)
    assert steps["vocab_logits"].shape == steps["vocab_probs"].shape == (2, 4, 30)
    assert torch.equal(align.vocab_logits(features), steps["vocab_logits"])
    assert torch.equal(align.probabilities(features), steps["vocab_probs"])


@pytest.mark.parametrize(
    "options", [{}, {"bias": True, "excluded": [1]}, {"vocabulary": [5, 0, 3]}]
)
def test_gradients_are_exact(options: dict) -> None:
    align = random_align(3, 4, 6, **options).double()
    names = list(dict(align.named_parameters()))
    values = [p.detach().clone().requires_grad_() for p in align.parameters()]
    features = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    E = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)

    def run(features: torch.Tensor, E: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        state = dict(zip(names, parameters, strict=True))
        output = torch.func.functional_call(align, state, (features,), {"embeddings": E})
        return output.visual_tokens

    assert torch.autograd.gradcheck(run, (features, E, *values))


def test_gradients_reach_the_text_embeddings_in_place() -> None:
    table = torch.nn.Embedding(12, 8)
    random_align(5, 8, 10)(
        torch.randn(4, 5), embeddings=table.weight
    ).visual_tokens.sum().backward()
    assert (table.weight.grad[:10].abs().sum(-1) > 0).all()
    assert (table.weight.grad[10:] == 0).all()  # rows added by a resize are not mixed in


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_w2_starts_as_an_independent_copy_of_the_head(dtype: torch.dtype) -> None:
    head = torch.nn.Linear(8, 30, bias=False).to(dtype)
    before = head.weight.detach().clone()
    align = Align(5, 8, 30, bias=True).to(dtype)
    align.init_from_head(head.weight)
    assert torch.equal(align.w2.weight, head.weight)
    assert (align.w2.bias == 0).all()
    assert align.w2.weight.untyped_storage().data_ptr() != head.weight.untyped_storage().data_ptr()
    assert align.w2.weight.requires_grad
    optimizer = torch.optim.SGD(align.parameters(), lr=1.0)
    features = torch.randn(3, 5).to(dtype)
    align(features, embeddings=head.weight).visual_tokens.square().sum().backward()
    optimizer.step()
    assert torch.equal(head.weight, before)
    assert not torch.equal(align.w2.weight, before)


def test_head_rows_follow_the_vocabulary() -> None:
    head = torch.randn(30, 8)
    align = Align(5, 8, 30, vocabulary=[7, 2, 29])
    align.init_from_head(head)
    assert torch.equal(align.w2.weight, head[[7, 2, 29]])


def test_a_head_that_does_not_fit_is_refused() -> None:
    align = Align(5, 8, 30)
    before = align.w2.weight.detach().clone()
    for shape in [(31, 8), (29, 8), (30, 7), (0,)]:
        with pytest.raises(ConfigurationError, match=r"\[30, 8\]"):
            align.init_from_head(torch.randn(shape))
    with pytest.raises(ConfigurationError, match="meta"):
        align.init_from_head(torch.empty(30, 8, device="meta"))
    assert torch.equal(align.w2.weight, before)
    with pytest.raises(ConfigurationError, match="meta"):
        align.to("meta").init_from_head(torch.randn(30, 8))


def test_excluded_words_get_exactly_nothing() -> None:
    plain, masked = random_align(5, 8, 30), random_align(5, 8, 30, excluded=[0, 17])
    masked.load_state_dict(plain.state_dict(), strict=False)
    features, E = torch.randn(6, 5), torch.randn(30, 8)
    E[[0, 17]] = 1e30
    rest = [i for i in range(30) if i not in (0, 17)]
    logits, probs = masked.vocab_logits(features), masked.probabilities(features)
    assert (probs[:, [0, 17]] == 0).all()
    assert torch.isneginf(logits[:, [0, 17]]).all()
    assert torch.equal(logits[:, rest], plain.vocab_logits(features)[:, rest])  # same statistics
    renormalised = plain.probabilities(features)[:, rest]
    renormalised = renormalised / renormalised.sum(-1, keepdim=True)
    torch.testing.assert_close(probs[:, rest], renormalised)
    tokens = masked(features, embeddings=E).visual_tokens
    torch.testing.assert_close(tokens, renormalised @ E[rest])


def test_a_vocabulary_is_a_smaller_align() -> None:
    kept = [9, 4, 21, 0]
    subset = random_align(5, 8, 30, vocabulary=kept, excluded=[4, 5])
    small = Align(5, 8, 4, excluded=[1])
    state = {k: v for k, v in subset.state_dict().items() if k != "token_ids"}
    small.load_state_dict(state)
    features, E = torch.randn(6, 5), torch.randn(33, 8)
    expected = small(features, embeddings=E[kept]).visual_tokens
    assert torch.equal(subset(features, embeddings=E).visual_tokens, expected)
    assert subset.kept_ids.tolist() == kept
    assert Align(5, 8, 30).kept_ids.tolist() == list(range(30))


def test_the_kept_ids_travel_with_the_state() -> None:
    saved = random_align(5, 8, 30, vocabulary=[3, 1, 2], excluded=[1])
    assert saved.state_dict()["token_ids"].tolist() == [3, 1, 2]
    loaded = Align(5, 8, 30, vocabulary=[7, 8, 9], excluded=[9])
    loaded.load_state_dict(saved.state_dict())
    features, E = torch.randn(2, 5), torch.randn(30, 8)
    expected = saved(features, embeddings=E).visual_tokens
    assert torch.equal(loaded(features, embeddings=E).visual_tokens, expected)
    assert saved.bfloat16().token_ids.dtype == torch.int64


def test_a_resized_vocabulary_changes_nothing() -> None:
    align, E = random_align(5, 8, 30), torch.randn(64, 8)
    features = torch.randn(3, 5)
    expected = align(features, embeddings=E[:30].clone()).visual_tokens
    assert torch.equal(align(features, embeddings=E).visual_tokens, expected)
    with pytest.raises(ConfigurationError, match="only 29"):
        align(features, embeddings=E[:29])


def test_embeddings_are_required_and_of_the_right_width() -> None:
    align, features = Align(5, 8, 30), torch.randn(3, 5)
    with pytest.raises(ConfigurationError, match="get_input_embeddings"):
        align(features)
    with pytest.raises(ConfigurationError, match=r"\[V, 8\], not \[30, 9\]"):
        align(features, embeddings=torch.randn(30, 9))


def test_gain_sharpens_the_first_distributions() -> None:
    def sharpest(gain: float) -> float:
        torch.manual_seed(0)
        align = Align(6, 16, 2000, gain=gain)
        assert (align.norm_v.weight == gain).all()
        return align.probabilities(torch.randn(8, 6)).max(-1).values.mean().item()

    assert sharpest(1.0) < 0.05 < sharpest(4.0)


def test_grounded_training_needs_no_text_embeddings() -> None:
    align = random_align(6, 16, 50, vocabulary=range(10, 30), excluded=[10])
    features, targets = torch.randn(12, 6), torch.arange(1, 13)
    optimizer = torch.optim.Adam(align.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        loss = functional.cross_entropy(align.vocab_logits(features), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"excluded": [30]}, "token id 30"),
        ({"excluded": [-1]}, "token id -1"),
        ({"vocabulary": [2, 30]}, "token id 30"),
        ({"vocabulary": [2, 2]}, "vocabulary names a token id twice"),
        ({"excluded": [2, 2]}, "excluded names a token id twice"),
        ({"vocabulary": []}, "without a single word"),
        ({"vocabulary": [4, 6], "excluded": [6, 4]}, "without a single word"),
        ({"excluded": range(30)}, "without a single word"),
        ({"eps": 0.0}, "eps"),
        ({"eps": float("nan")}, "eps"),
        ({"gain": -1.0}, "gain"),
        ({"gain": float("inf")}, "gain"),
        ({"gain": 2.0, "affine": False}, "affine=False"),
    ],
)
def test_options_out_of_range_are_named(options: dict, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Align(5, 8, 30, **options)


@pytest.mark.parametrize("vocab_size", [0, -1, 3.0])
def test_the_vocabulary_has_words(vocab_size: int) -> None:
    with pytest.raises(ConfigurationError, match="vocab_size"):
        Align(5, 8, vocab_size)


def test_parameter_counts_of_the_papers_3b_model() -> None:
    sizes = (1152, 3072, 128_256)
    with torch.device("meta"):
        assert Align(*sizes).num_parameters() == 397_804_032
        assert Align(*sizes, affine=False).num_parameters() == 397_541_376
        assert Align(*sizes, bias=True).num_parameters() == 397_804_032 + 3072 + 128_256
        assert Align(*sizes, vocabulary=range(3400)).num_parameters() == 13_996_688
        assert MLP(1152, 3072).num_parameters() == 12_982_272
        assert Linear(1152, 3072).num_parameters() == 3_542_016
        assert Align(*sizes).flops((1, 1)) == pytest.approx(1.58e9, rel=5e-3)
        assert Align(*sizes, vocabulary=range(3400)).flops((1, 1)) == pytest.approx(
            0.049e9, rel=1e-2
        )


def test_names_of_the_state() -> None:
    align = Align(5, 8, 30, bias=True, vocabulary=[1, 2], excluded=[2])
    assert set(align.state_dict()) == {
        "w1.weight", "w1.bias", "norm_d.weight", "norm_d.bias", "w2.weight", "w2.bias",
        "norm_v.weight", "norm_v.bias", "token_ids", "excluded_rows",
    }  # fmt: skip
    assert set(Align(5, 8, 30, affine=False).state_dict()) == {"w1.weight", "w2.weight"}
    assert copy.deepcopy(align).extra_repr() == "vocab_size=30, words=2, excluded=1"
