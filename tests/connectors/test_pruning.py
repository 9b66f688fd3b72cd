"""Pruned ALIGN against the full one in float64, and what it needs to be carried elsewhere."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from alignvlm.connectors import MLP, Align
from alignvlm.connectors.pruning import THRESHOLD, mean_probabilities, prune
from alignvlm.errors import ConfigurationError

d, D, V = 5, 8, 30


def random_align(seed: int = 0, **options: Any) -> Align:
    """An Align in float64 none of whose parameters has a special value."""
    torch.manual_seed(seed)
    align = Align(d, D, V, **options).double()
    with torch.no_grad():
        for parameter in align.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return align


def random_features(*shape: int) -> Tensor:
    return torch.randn(*shape, d, dtype=torch.float64)


def random_table() -> Tensor:
    return torch.randn(V, D, dtype=torch.float64)


def probabilities(align: Align) -> Tensor:
    return mean_probabilities(align, [random_features(50)])


@settings(max_examples=30)
@given(
    keep=st.integers(1, 27),
    affine=st.booleans(),
    excluded=st.sampled_from([(), (4, 9, 0)]),
    vocabulary=st.sampled_from([None, list(range(29, -1, -1))]),
    own=st.booleans(),
    seed=st.integers(0, 99),
)
def test_kept_words_are_as_in_the_full_model(
    keep: int, own: bool, seed: int, **options: Any
) -> None:
    full, table = random_align(seed, **options), random_table()
    features = random_features(2, 7)
    result = prune(full, full.probabilities(features), keep=keep, embeddings=table if own else None)
    pruned, kept = result.connector, result.kept_ids
    assert pruned.num_words == len(kept) == keep
    row_of = {token_id: row for row, token_id in enumerate(full.kept_ids.tolist())}
    columns = torch.tensor([row_of[token_id] for token_id in kept.tolist()])
    assert (columns.diff() > 0).all()  # the order of the full connector's rows
    logits = full.vocab_logits(features)[..., columns]
    torch.testing.assert_close(pruned.vocab_logits(features), logits, rtol=0, atol=1e-10)
    probs = full.probabilities(features)[..., columns]
    renormalised = probs / probs.sum(-1, keepdim=True)
    torch.testing.assert_close(pruned.probabilities(features), renormalised, rtol=0, atol=1e-10)
    tokens = pruned(features, embeddings=None if own else table).visual_tokens
    torch.testing.assert_close(tokens, renormalised @ table[kept], rtol=0, atol=1e-10)
    lost = 1 - probs.sum(-1).mean().item()
    assert result.dropped_mass == pytest.approx(lost, abs=1e-12)


def test_the_most_probable_words_are_kept() -> None:
    full = random_align()
    mean = probabilities(full)
    assert prune(full, mean, keep=4).kept_ids.tolist() == sorted(mean.topk(4).indices.tolist())
    third = mean.sort().values[-3].item()
    assert prune(full, mean, threshold=third).kept_ids.tolist() == sorted(
        mean.topk(3).indices.tolist()
    )
    everything = prune(full, mean, threshold=0.0)
    assert everything.kept_ids.tolist() == list(range(V))
    assert everything.dropped_mass == 0.0


def test_the_threshold_of_the_paper() -> None:
    full = random_align()
    mean = torch.full((V,), 1e-6, dtype=torch.float64)
    mean[:10] = 0.9999e-6
    mean[20] += 1 - mean.sum()
    assert THRESHOLD == 1e-6
    result = prune(full, mean)
    assert result.kept_ids.tolist() == list(range(10, V))
    assert result.dropped_mass == pytest.approx(9.999e-6, rel=1e-9)
    assert prune(full, mean.expand(2, 3, V)).kept_ids.tolist() == list(range(10, V))


def test_excluded_words_are_not_kept() -> None:
    full = random_align(excluded=[0, 17])
    mean = probabilities(full)
    assert mean[[0, 17]].tolist() == [0, 0]
    for result in (prune(full, mean, threshold=0.0), prune(full, mean, keep=28)):
        assert result.kept_ids.tolist() == [i for i in range(V) if i not in (0, 17)]
        assert result.connector.excluded_rows is None
        assert result.dropped_mass == 0.0
    with pytest.raises(ConfigurationError, match="mixes 28 words, so keep must be from 1 to 28"):
        prune(full, mean, keep=29)


def test_statistics_of_the_kept_rows_are_another_temperature() -> None:
    full, features = random_align(bias=True), random_features(6)
    pruned, kept, _ = prune(full, probabilities(full), keep=12, statistics_of="kept")
    assert pruned.row_mean is None
    hidden = full.norm_d(full.w1(features))
    rows = hidden @ full.w2.weight[kept].T + full.w2.bias[kept]
    rows = rows - rows.mean(-1, keepdim=True)
    rows = rows / (rows.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    expected = rows * full.norm_v.weight[kept] + full.norm_v.bias[kept]
    logits = pruned.vocab_logits(features)
    torch.testing.assert_close(logits, expected)
    assert (logits - full.vocab_logits(features)[:, kept]).abs().max() > 0.05


@pytest.mark.parametrize("own", [False, True])
def test_saves_and_loads_without_the_full_table(own: bool) -> None:
    full, table, features = random_align(gain=2.0, eps=1e-4), random_table(), random_features(4)
    pruned = prune(full, probabilities(full), keep=7, embeddings=table if own else None).connector
    assert pruned.num_parameters() == d * D + 2 * D + 7 * D + 2 * 7 + (7 * D if own else 0)
    assert max(t.numel() for t in pruned.state_dict().values()) < V * D
    options = json.loads(json.dumps(pruned.options()))
    loaded = Align(d, D, V, **options).double()
    loaded.load_state_dict({name: t.clone() for name, t in pruned.state_dict().items()})
    embeddings = None if own else table
    expected = pruned(features, embeddings=embeddings).visual_tokens
    assert torch.equal(loaded(features, embeddings=embeddings).visual_tokens, expected)
    assert loaded.options() == pruned.options()
    with torch.device("meta"):
        empty = Align(d, D, V, **options)
    empty.load_state_dict(pruned.state_dict(), assign=True)
    assert torch.equal(empty(features, embeddings=embeddings).visual_tokens, expected)


def test_an_own_table_is_no_embeddings() -> None:
    full, table, features = random_align(), random_table(), random_features(4)
    mean = probabilities(full)
    grown = torch.cat([table, torch.full((3, D), torch.nan)])
    own, kept, _ = prune(full, mean, keep=7, embeddings=grown)
    borrowed = prune(full, mean, keep=7).connector
    assert own.table is not None
    assert torch.equal(own.table, table[kept])
    assert (own.needs_embeddings, borrowed.needs_embeddings) == (False, True)
    expected = borrowed(features, embeddings=table).visual_tokens
    for embeddings in (None, torch.zeros_like(table)):
        assert torch.equal(own(features, embeddings=embeddings).visual_tokens, expected)
    with pytest.raises(ConfigurationError, match="get_input_embeddings"):
        borrowed(features)
    own(features).visual_tokens.sum().backward()
    assert own.table.grad is not None


@pytest.mark.parametrize("own", [False, True])
def test_a_pruned_connector_is_pruned_again(own: bool) -> None:
    full, table, features = random_align(), random_table(), random_features(9)
    embeddings = table if own else None
    once = prune(full, full.probabilities(features), keep=15, embeddings=embeddings)
    twice = prune(once.connector, once.connector.probabilities(features), keep=6)
    assert set(twice.kept_ids.tolist()) < set(once.kept_ids.tolist())
    logits = full.vocab_logits(features)[:, twice.kept_ids]
    torch.testing.assert_close(twice.connector.vocab_logits(features), logits)
    tokens = twice.connector(features, embeddings=embeddings).visual_tokens if own else None
    tokens = twice.connector(features, embeddings=table).visual_tokens if tokens is None else tokens
    torch.testing.assert_close(tokens, logits.softmax(-1) @ table[twice.kept_ids])
    cruder = prune(
        once.connector, once.connector.probabilities(features), keep=6, statistics_of="kept"
    )
    assert not torch.allclose(cruder.connector.vocab_logits(features), logits)


def test_the_full_connector_is_unchanged() -> None:
    full, table = random_align(excluded=[3]), random_table()
    before, options = copy.deepcopy(full.state_dict()), full.options()
    pruned = prune(full, probabilities(full), keep=5, embeddings=table).connector
    with torch.no_grad():
        for tensor in (*pruned.parameters(), *pruned.buffers()):
            tensor.zero_()
    assert full.options() == options
    after = full.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.requires_grad for parameter in full.parameters())


def test_bfloat16() -> None:
    exact, table, features = random_align(gain=2.0), random_table(), random_features(40)
    full, table, features = exact.bfloat16(), table.bfloat16(), features.bfloat16()
    pruned, kept, lost = prune(full, full.probabilities(features), keep=20, embeddings=table)
    assert {p.dtype for p in pruned.parameters()} == {torch.bfloat16}
    assert pruned.token_ids is not None
    assert pruned.token_ids.dtype == torch.int64
    tokens = pruned(features).visual_tokens
    assert tokens.dtype == torch.bfloat16
    wide = copy.deepcopy(full).double().probabilities(features.double())[:, kept]
    assert 0 < lost == pytest.approx(1 - wide.sum(-1).mean().item(), abs=5e-3)
    expected = wide / wide.sum(-1, keepdim=True) @ table[kept].double()
    error = torch.linalg.norm(tokens.double() - expected) / torch.linalg.norm(expected)
    assert error <= 2e-2


def test_a_new_language_model_fills_a_pruned_connector() -> None:
    pruned, kept, _ = prune(random_align(), probabilities(random_align()), keep=6)
    own = Align(d, D, V, **{**pruned.options(), "own_table": True}).double()
    head, table = torch.randn(V + 2, D).double(), random_table()
    own.init_from_language_model(head, table)
    full = Align(d, D, V).double()
    full.load_state_dict(
        {**own.state_dict(), **full.norm_v.state_dict(prefix="norm_v."), "w2.weight": head[:V]},
        strict=False,
    )
    features = random_features(3)
    logits = full.vocab_logits(features)[:, kept]
    torch.testing.assert_close(own.vocab_logits(features), logits)
    torch.testing.assert_close(own(features).visual_tokens, logits.softmax(-1) @ table[kept])


def test_mean_probabilities_are_the_mean_over_all_patches() -> None:
    align = random_align(excluded=[2])
    batches = [
        random_features(3, 100),
        random_features(0, 9),
        random_features(1),
        random_features(65),
    ]
    every = torch.cat([align.probabilities(b.reshape(-1, d)) for b in batches if b.numel()])
    found = mean_probabilities(align, iter(batches))
    assert found.dtype == torch.float64
    assert not found.requires_grad
    torch.testing.assert_close(found, every.mean(0).detach())
    for nothing in ([], [random_features(0, 9)]):
        with pytest.raises(ConfigurationError, match="need patches and none were given"):
            mean_probabilities(align, nothing)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keep": 0}, "keep must be from 1 to 30, not 0"),
        ({"keep": 31}, "not 31"),
        ({"keep": -1}, "not -1"),
        ({"keep": True}, "not True"),
        ({"keep": 3.0}, "not 3.0"),
        ({"keep": 3, "threshold": 1e-6}, "not both"),
        ({"threshold": 1.0}, "No word has a mean probability of 1 or more, the most probable has"),
        ({"threshold": 1.1}, "from 0 to 1, not 1.1"),
        ({"threshold": -0.1}, "from 0 to 1"),
        ({"threshold": float("nan")}, "not nan"),
        ({"keep": 3, "statistics_of": "some"}, "statistics_of is 'some'"),
        (
            {"keep": 3, "embeddings": torch.randn(V - 1, D)},
            "vocabulary of 30 and was given only 29",
        ),
        ({"keep": 3, "embeddings": torch.randn(V, D + 1)}, r"\[V, 8\], not \[30, 9\]"),
    ],
)
def test_arguments_out_of_range_are_named(options: dict, words: str) -> None:
    full = random_align()
    with pytest.raises(ConfigurationError, match=words) as caught:
        prune(full, probabilities(full), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("mean", "words"),
    [
        (torch.full((29,), 1 / 29), r"30 words and probabilities of shape \[29\]"),
        (torch.tensor(1.0), r"shape \[\]"),
        (torch.ones(0, 30), r"shape \[0, 30\]"),
        (torch.zeros(30), "no distribution, they sum to 0"),
        (torch.ones(30), "sum to 30"),
        (torch.full((30,), torch.nan), "sum to nan"),
        (torch.tensor([1.5, -0.5, *[0.0] * 28]), "no distribution"),
    ],
)
def test_probabilities_must_be_of_these_words(mean: Tensor, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        prune(random_align(), mean, keep=3)


def test_what_cannot_be_pruned_is_named() -> None:
    with pytest.raises(ConfigurationError, match="MLP has no words"):
        prune(MLP(D, D), torch.ones(3) / 3, keep=1)
    biased = random_align(bias=True)
    with pytest.raises(ConfigurationError, match="statistics_of='kept'"):
        prune(biased, probabilities(biased), keep=3)
    with torch.device("meta"):
        unfilled = Align(d, D, V)
    with pytest.raises(ConfigurationError, match="meta"):
        prune(unfilled, torch.full((V,), 1 / V), keep=3)


def test_a_pruned_connector_exports_without_the_full_table() -> None:
    head = torch.randn(500, 16)
    full = Align(8, 16, 500, gain=4.0)
    full.init_from_language_model(head, head)
    features = torch.randn(3, 9, 8)
    mean = mean_probabilities(full, [features])
    small = prune(full, mean, keep=40, embeddings=head).connector.eval()

    class Tokens(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.connector = small

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return self.connector(features).visual_tokens

    shapes = ({0: torch.export.Dim.AUTO},)
    exported = torch.export.export(Tokens(), (features,), dynamic_shapes=shapes)
    assert all(500 not in tensor.shape for tensor in exported.state_dict.values())
    other = torch.randn(5, 9, 8)
    with torch.no_grad():
        torch.testing.assert_close(exported.module()(other), small(other).visual_tokens)
