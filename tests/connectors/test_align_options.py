"""Options of ALIGN: how it is computed, whose statistics and embeddings it has, what it refuses."""

from __future__ import annotations

import copy
import inspect
import json
from dataclasses import fields

import pytest
import torch
from random_align import random_align
from torch.utils.flop_counter import FlopCounterMode

from alignvlm.connectors import Align
from alignvlm.connectors.mixture import Choice, mix
from alignvlm.errors import ConfigurationError


@pytest.mark.parametrize(
    "options",
    [
        {"implementation": "eager"},
        {"implementation": "chunked", "chunk_by": "tokens", "chunk_size": 3},
        {"implementation": "chunked", "chunk_by": "words", "chunk_size": 7},
        {"chunk_size": 4},
        {"negligible": 1e-12},
    ],
)
@pytest.mark.parametrize("affine", [True, False])
def test_every_implementation_is_the_same_connector(options: dict, affine: bool) -> None:
    plain = random_align(5, 8, 30, excluded=[3], affine=affine)
    other = random_align(5, 8, 30, excluded=[3], affine=affine, **options)
    features, E = torch.randn(2, 9, 5), torch.randn(34, 8)
    found = []
    for align in (plain, other):
        inputs = [features.clone().requires_grad_(), E.clone().requires_grad_()]
        output = align(inputs[0], embeddings=inputs[1])
        assert output.intermediates is None
        output.visual_tokens.square().sum().backward()
        found.append([output.visual_tokens, *(t.grad for t in (*inputs, *align.parameters()))])
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)
    traced = other(features, embeddings=E, return_intermediates=True).intermediates
    torch.testing.assert_close(traced["visual_tokens"], found[0][0])


def test_fused_is_refused_where_it_cannot_run() -> None:
    align = Align(5, 8, 30, implementation="fused")
    with pytest.raises(
        ConfigurationError, match="the device is cpu and fused needs CUDA"
    ) as caught:
        align(torch.randn(2, 5), embeddings=torch.randn(30, 8))
    assert str(caught.value).count(". ") == 0


@pytest.mark.parametrize("implementation", ["eager", "chunked"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_frozen_connector_makes_no_gradients(implementation: str, dtype: torch.dtype) -> None:
    align = random_align(5, 8, 30, implementation=implementation).to(dtype).requires_grad_(False)
    E = torch.randn(30, 8).to(dtype)
    features = torch.randn(3, 5).to(dtype)
    assert not align(features, embeddings=E).visual_tokens.requires_grad
    features.requires_grad_()
    align(features, embeddings=E).visual_tokens.sum().backward()
    assert features.grad is not None
    assert all(parameter.grad is None for parameter in align.parameters())


def test_options_build_the_same_connector_again() -> None:
    options = {
        "bias": False, "affine": True, "eps": 1e-4, "gain": 2.0, "excluded": [4],
        "vocabulary": [9, 4, 21], "full_statistics": True, "own_table": True,
    }  # fmt: skip
    # How it is computed is left out: that is the machine's matter, not the model's.
    align = Align(5, 8, 30, **options, implementation="chunked", chunk_size=7)
    assert align.options() == options
    assert json.loads(json.dumps(align.options())) == options
    with torch.device("meta"):
        assert Align(5, 8, 30, **options).options() == options
    sizes = {"vision_dim", "text_dim", "vocab_size"}
    names = set(inspect.signature(Align).parameters) - sizes - {f.name for f in fields(Choice)}
    assert Align(5, 8, 30).options().keys() == names
    assert Align(5, 8, 30, excluded=(7, 2)).options()["excluded"] == [2, 7]
    other = Align(5, 8, 30, **{**options, "vocabulary": [1, 2, 3], "excluded": [1]})
    other.load_state_dict(align.state_dict())
    assert other.options() == options  # those of the words that were loaded


def test_full_statistics_are_those_of_the_whole_head() -> None:
    head, E = torch.randn(30, 8) + 1, torch.randn(30, 8)
    full, kept = Align(5, 8, 30, affine=False), [9, 4, 21, 0]
    part = Align(5, 8, 30, affine=False, vocabulary=kept, full_statistics=True)
    full.init_from_head(head)
    part.init_from_head(head)
    part.w1.load_state_dict(full.w1.state_dict())
    features = torch.randn(6, 5)
    logits = full.vocab_logits(features)[:, kept]
    torch.testing.assert_close(part.vocab_logits(features), logits)
    expected = logits.softmax(-1) @ E[kept]
    torch.testing.assert_close(part(features, embeddings=E).visual_tokens, expected)
    assert part.flops((1, 1)) == 2 * (5 * 8 + 2 * 4 * 8 + 8 * 8 * 5 // 8)
    assert part.num_parameters() == 5 * 8 + 4 * 8


@pytest.mark.parametrize("options", [{}, {"vocabulary": [1, 2], "bias": True}])
def test_full_statistics_need_rows_that_are_left_out(options: dict) -> None:
    with pytest.raises(ConfigurationError, match="give a vocabulary and bias=False"):
        Align(5, 8, 30, full_statistics=True, **options)


@pytest.mark.parametrize("vocabulary", [None, [9, 4, 21]])
def test_an_own_table_starts_from_the_language_model(vocabulary: list[int] | None) -> None:
    align = Align(5, 8, 30, own_table=True, vocabulary=vocabulary)
    head, E = torch.randn(33, 8), torch.randn(40, 8)  # a resized model's
    align.init_from_language_model(head, E)
    rows = slice(30) if vocabulary is None else vocabulary
    assert torch.equal(align.table, E[rows])
    assert torch.equal(align.w2.weight, head[rows])
    assert not align.needs_embeddings
    features = torch.randn(3, 5)
    tokens = align(features).visual_tokens
    torch.testing.assert_close(tokens, align.probabilities(features) @ E[rows])
    tokens.sum().backward()
    assert (align.table.grad != 0).all()
    plain = Align(5, 8, 30, vocabulary=vocabulary)
    plain.init_from_language_model(head, E)
    assert torch.equal(plain.w2.weight, align.w2.weight)


def test_a_language_model_that_does_not_fit_changes_nothing() -> None:
    align = Align(5, 8, 30, own_table=True, vocabulary=[1, 29])
    before = copy.deepcopy(align.state_dict())
    for E, words in ((torch.randn(29, 8), "only 29"), (torch.randn(30, 9), r"not \[30, 9\]")):
        with pytest.raises(ConfigurationError, match=words):
            align.init_from_language_model(torch.randn(30, 8), E)
    with pytest.raises(ConfigurationError, match=r"shape \[20, 8\]"):
        align.init_from_language_model(torch.randn(20, 8), torch.randn(30, 8))
    after = align.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_that_are_no_numbers_are_named(value: float, dtype: torch.dtype) -> None:
    align, features = Align(5, 8, 30).to(dtype), torch.randn(2, 3, 5).to(dtype)
    features[1, 2, 4] = value
    with pytest.raises(ConfigurationError, match="NaN or infinite") as caught:
        align(features, embeddings=torch.randn(30, 8).to(dtype))
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="NaN or infinite"):
        align.probabilities(features)


def test_tiles_without_features_are_refused_and_no_tile_is_not() -> None:
    align, E = Align(5, 8, 30), torch.randn(30, 8)
    for shape in [(0, 5), (3, 0, 5)]:
        with pytest.raises(ConfigurationError, match="tiles without a single feature"):
            align(torch.randn(*shape), embeddings=E)
    none = align(torch.randn(0, 4, 5), embeddings=E, return_intermediates=True)
    assert none.visual_tokens.shape == (0, 4, 8)
    assert align(torch.randn(0, 4, 5), embeddings=E).visual_tokens.shape == (0, 4, 8)


def test_an_adapter_on_w2_is_refused() -> None:
    align, embeddings = Align(5, 8, 30), torch.randn(30, 8)
    align.w2.base_layer = torch.nn.Linear(8, 30)
    for asked in (False, True):
        with pytest.raises(ConfigurationError, match="W2 carries an adapter"):
            align(torch.randn(3, 5), embeddings=embeddings, return_intermediates=asked)


def test_torchs_counter_sees_what_runs_in_chunks() -> None:
    align, embeddings = Align(5, 8, 30, implementation="chunked"), torch.randn(30, 8)
    embeddings.requires_grad_()
    features = torch.randn(12, 5)
    with FlopCounterMode(display=False) as counter:
        tokens = align(features, embeddings=embeddings).visual_tokens
    assert counter.get_total_flops() == align.flops((3, 4))
    with FlopCounterMode(display=False) as counter:
        tokens.sum().backward()
    assert counter.get_total_flops() == 10 * 12 * 8 * 30 + 2 * 12 * 5 * 8


@pytest.mark.parametrize("implementation", ["eager", "chunked"])
def test_features_of_another_dtype_are_refused_without_autocast(implementation: str) -> None:
    embeddings = torch.randn(30, 8).bfloat16()
    align = Align(5, 8, 30, implementation=implementation).bfloat16()
    align.norm_d.float()  # as some recipes keep norms
    features = torch.randn(3, 5).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert align(features, embeddings=embeddings).visual_tokens.dtype == torch.bfloat16
    with pytest.raises(ConfigurationError, match=r"float32 and W2 is torch\.bfloat16: convert"):
        mix(torch.randn(3, 8), align.w2.weight, embeddings, choice=align.choice)
