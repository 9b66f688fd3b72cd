from __future__ import annotations

import copy
import pickle

import pytest
import torch

from alignvlm.connectors import Align
from alignvlm.connectors.mixture import Remembered, remembered, weight_statistics

FEATURES, E = torch.randn(7, 5), torch.randn(33, 6)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows with every time that statistics are worked out."""
    calls = []
    real = remembered.w2_statistics

    def count(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(len(rows))
        return real(rows)

    monkeypatch.setattr(remembered, "w2_statistics", count)
    return calls


def align() -> Align:
    torch.manual_seed(0)
    return Align(5, 6, 33, implementation="chunked", chunk_by="words", chunk_size=10, gain=4.0)


def pickled(connector: Align) -> Align:
    """As processes hand models to each other."""
    return pickle.loads(pickle.dumps(connector))  # noqa: S301


def eager(connector: Align) -> torch.Tensor:
    same = Align(5, 6, 33, implementation="eager", gain=4.0)
    same.load_state_dict(connector.state_dict())
    return same(FEATURES, embeddings=E).visual_tokens.detach()


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.w2.weight.detach().mul_(torch.linspace(0.5, 2.0, 33)[:, None]),
        lambda c: c.load_state_dict(Align(5, 6, 33).state_dict()),
        lambda c: setattr(c.w2.weight, "data", torch.randn(33, 6)),
        lambda c: setattr(c.w2, "weight", torch.nn.Parameter(torch.randn(33, 6))),
        lambda c: torch.optim.SGD([c.w2.weight], lr=0.5, foreach=True).step(),
    ],
    ids=["in place", "loaded", "data", "another parameter", "optimizer"],
)
def test_once_for_inference_and_again_when_w2_changes(counted: list[int], change: object) -> None:
    connector = align()
    with torch.no_grad():
        for _ in range(3):
            found = connector(FEATURES, embeddings=E).visual_tokens
        torch.testing.assert_close(found, eager(connector))
        assert len(counted) == 1
        connector.w2.weight.grad = torch.ones(33, 6)
        change(connector)
        for _ in range(3):
            found = connector(FEATURES, embeddings=E).visual_tokens
        torch.testing.assert_close(found, eager(connector))
        assert len(counted) == 2


def test_training_asks_anew_in_every_step(counted: list[int]) -> None:
    connector = align()
    for _ in range(2):
        connector(FEATURES, embeddings=E).visual_tokens.sum().backward()
    assert not counted
    assert connector._remembered._found is None


def test_in_inference_mode_nothing_is_remembered(counted: list[int]) -> None:
    """Tensors that were made there do not count their changes."""
    with torch.inference_mode():
        connector = align()
        first = connector(FEATURES, embeddings=E).visual_tokens
        connector.w2.weight.mul_(torch.arange(33.0)[:, None])
        second = connector(FEATURES, embeddings=E).visual_tokens
    assert len(counted) == 2
    assert not torch.allclose(first, second)


def test_dtypes_are_kept_apart(counted: list[int]) -> None:
    weight, kept = torch.nn.Parameter(torch.randn(33, 6)), Remembered()
    for rows in (weight.detach(), weight.detach().bfloat16()):
        found = kept.statistics(weight, rows)
        for ours, theirs in zip(found, weight_statistics(rows), strict=True):
            assert torch.equal(ours, theirs)
    assert len(counted) == 2


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_copies_start_empty(counted: list[int], copied: object) -> None:
    connector = align()
    with torch.no_grad():
        connector(FEATURES, embeddings=E)
        again = copied(connector)
        assert again._remembered._found is None
        again(FEATURES, embeddings=E)
        connector(FEATURES, embeddings=E)
    assert len(counted) == 2


def test_weights_that_take_turns_are_told_apart(counted: list[int]) -> None:
    """Both stay alive, as those of a moving average do."""
    first, second = (torch.nn.Parameter(torch.randn(33, 6)) for _ in range(2))
    kept = Remembered()
    for weight in (first, first, second, second, first):
        found = kept.statistics(weight, weight.detach())
        assert torch.equal(found[0], weight_statistics(weight.detach()).mean)
    assert len(counted) == 3
