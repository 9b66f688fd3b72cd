"""Which implementation and which chunks are taken, and the sentences of what cannot be."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from alignvlm.connectors.mixture import Choice
from alignvlm.errors import ConfigurationError

CPU = torch.device("cpu")


def resolve(
    num_tokens: int,
    num_words: int = 128_256,
    *,
    trains: bool = True,
    has_bias: bool = False,
    **options: Any,
) -> Choice:
    return Choice(**options).resolve(num_tokens, num_words, CPU, trains=trains, has_bias=has_bias)


def test_few_logits_are_eager() -> None:
    assert resolve(64, 1000).implementation == "eager"
    assert resolve(65, 128_256).implementation == "eager"
    assert resolve(66, 128_256).implementation == "chunked"


def test_what_only_chunks_can_do_makes_chunks() -> None:
    assert resolve(64, 1000, negligible=1e-6).implementation == "chunked"
    assert resolve(64, 1000, chunk_size=5).implementation == "chunked"
    assert resolve(64, 1000, implementation="chunked").implementation == "chunked"
    assert resolve(10**6, implementation="eager").implementation == "eager"


def test_many_logits_in_training_go_by_words() -> None:
    most = 2**30 // 128_256
    assert resolve(most).chunk_by == "tokens"
    assert resolve(most + 1).chunk_by == "words"
    assert resolve(most + 1, trains=False).chunk_by == "tokens"
    assert resolve(most + 1, has_bias=True).chunk_by == "tokens"
    assert resolve(most + 1, chunk_by="tokens").chunk_by == "tokens"
    assert resolve(10, chunk_by="words").chunk_by == "words"


def test_words_are_skipped_in_training_alone() -> None:
    found = resolve(10, negligible=1e-6)
    assert (found.chunk_by, found.negligible) == ("words", 1e-6)
    found = resolve(10, negligible=1e-6, trains=False)
    assert (found.chunk_by, found.negligible) == ("tokens", 0.0)


@pytest.mark.parametrize("num_tokens", [0, 1, 729, 6561, 8371, 52_488, 10**7])
@pytest.mark.parametrize("by", ["tokens", "words"])
@pytest.mark.parametrize("trains", [True, False])
def test_chunks_have_a_bounded_number_of_logits(num_tokens: int, by: str, trains: bool) -> None:
    found = resolve(num_tokens, implementation="chunked", chunk_by=by, trains=trains)
    across = 128_256 if by == "tokens" else num_tokens
    assert isinstance(found.chunk_size, int)
    assert 16 <= found.chunk_size <= 8192
    assert (found.chunk_size - 1) * across <= 2**28 or found.chunk_size == 16
    assert resolve(num_tokens, chunk_by=by, chunk_size=3).chunk_size == 3


@pytest.mark.parametrize("num_tokens", [1000, 2916, 6561, 8371])
def test_few_chunks_of_tokens_round_the_gradients(num_tokens: int) -> None:
    found = resolve(num_tokens)
    assert found.chunk_by == "tokens"
    assert found.chunk_size is not None
    assert num_tokens <= 4 * found.chunk_size


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"implementation": "fast"}, "implementation is 'fast': choose one of auto, eager"),
        ({"chunk_by": "rows"}, "chunk_by is 'rows': choose one of auto, tokens, words"),
        ({"chunk_size": 0}, "positive number of tokens or words, not 0"),
        ({"chunk_size": -4}, "not -4"),
        ({"chunk_size": 2.0}, "not 2.0"),
        ({"chunk_size": True}, "not True"),
        ({"negligible": 1.0}, "from 0 to below 1, not 1.0"),
        ({"negligible": -1e-9}, "from 0 to below 1"),
        ({"negligible": float("nan")}, "not nan"),
        ({"negligible": float("inf")}, "not inf"),
        ({"negligible": 1e-6, "chunk_by": "tokens"}, "only chunks of words"),
        ({"negligible": 1e-6, "implementation": "eager"}, "only chunks of words"),
    ],
)
def test_options_out_of_range_are_named(options: dict, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        Choice(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"chunk_by": "words"}, {"negligible": 1e-6}])
def test_a_bias_has_no_chunks_of_words(options: dict) -> None:
    with pytest.raises(ConfigurationError, match="in chunks of tokens: set"):
        resolve(100, has_bias=True, **options)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_fused_needs_cuda(device: str) -> None:
    choice = Choice(implementation="fused")
    with pytest.raises(ConfigurationError, match=f"device is {device} and fused needs CUDA"):
        choice.resolve(10, 20, torch.device(device), trains=False, has_bias=False)
