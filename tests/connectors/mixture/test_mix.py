"""The chunked mixture against Eq. 1-2 in float64 and against eager, forward and backward."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from alignvlm.connectors.mixture import Choice, mix

NAMES = ("hidden", "weight", "table", "gamma", "beta", "bias")
EAGER = Choice(implementation="eager")


def by_tokens(size: int | None = None) -> Choice:
    return Choice(implementation="chunked", chunk_by="tokens", chunk_size=size)


def by_words(size: int | None = None, **options: Any) -> Choice:
    return Choice(implementation="chunked", chunk_by="words", chunk_size=size, **options)


WAYS = pytest.mark.parametrize("choice", [EAGER, by_tokens(4), by_words(7)], ids=repr)
CHUNKED = pytest.mark.parametrize("choice", [by_tokens(4), by_words(7)], ids=repr)


def probabilities(
    hidden: Tensor,
    weight: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """P of Eq. 1, written out."""
    logits = hidden @ weight.mT
    logits = logits if bias is None else logits + bias
    centred = logits - logits.mean(-1, keepdim=True)
    scores = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    scores = scores if gamma is None else scores * gamma
    scores = scores if beta is None else scores + beta
    powers = (scores - scores.amax(-1, keepdim=True)).exp()
    return powers / powers.sum(-1, keepdim=True)


def definition(hidden: Tensor, weight: Tensor, table: Tensor, **norm: Tensor) -> Tensor:
    return probabilities(hidden, weight, **norm) @ table


@dataclass
class Case:
    """Inputs of `mix` in float64, and a gradient of its result."""

    tensors: dict[str, Tensor]
    grad: Tensor

    def rounded(self, dtype: torch.dtype) -> Case:
        """What a model of that dtype starts from."""
        tensors = {name: t.to(dtype).double() for name, t in self.tensors.items()}
        return Case(tensors, self.grad.to(dtype).double())

    def top(self) -> float:
        """The highest probability of any word, over all tokens."""
        rest = {name: t for name, t in self.tensors.items() if name != "table"}
        return probabilities(**rest).max().item()


def case(
    num_tokens: int = 9,
    width: int = 6,
    num_words: int = 40,
    *,
    seed: int = 0,
    gain: float | None = 1.0,
    shift: bool = True,
    bias: bool = False,
    tied: bool = False,
    mean: float = 0.0,
    common: float = 0.0,
) -> Case:
    """Random inputs; `mean` is of W2's rows, `common` of the gradients; no "table" if tied."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tensors = {
        "hidden": normal(num_tokens, width),
        "weight": 0.5 * (normal(num_words, width) + mean * normal(width)),
    }
    if not tied:
        tensors["table"] = normal(num_words, width)
    if gain is not None:
        tensors["gamma"] = gain * (1 + 0.3 * normal(num_words))
    if shift:
        tensors["beta"] = 0.5 * normal(num_words)
    if bias:
        tensors["bias"] = normal(num_words)
    return Case(tensors, normal(num_tokens, width) + common)


def run(
    case: Case,
    function: Choice | Callable[..., Tensor],
    dtype: torch.dtype = torch.float64,
    trained: Collection[str] = NAMES,
) -> dict[str, Tensor]:
    """The result, named `out`, and the gradients of what is trained."""
    leaves = {
        name: t.detach().to(dtype).requires_grad_(name in trained)
        for name, t in case.tensors.items()
    }
    call = partial(mix, choice=function) if isinstance(function, Choice) else function
    out = call(**{"table": leaves["weight"], **leaves})
    out.backward(case.grad.to(out.dtype))
    found = {name: t.grad for name, t in leaves.items() if name in trained}
    assert all(t.grad is None for name, t in leaves.items() if name not in trained)
    return {"out": out.detach(), **{name: g for name, g in found.items() if g is not None}}


def relative(actual: Tensor, expected: Tensor) -> float:
    error = torch.linalg.norm(actual.double() - expected.double())
    return float(error / torch.linalg.norm(expected.double()).clamp(min=1e-30))


def errors(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    assert actual.keys() == expected.keys()
    return {name: relative(actual[name], expected[name]) for name in actual}


sizes_of_chunks = st.sampled_from([1, 3, 7, 32, 1000])


@settings(max_examples=40)
@given(
    num_tokens=st.integers(1, 40),
    width=st.integers(2, 40),
    num_words=st.integers(16, 300),
    gain=st.none() | st.floats(0.1, 8),
    shift=st.booleans(),
    bias=st.booleans(),
    tied=st.booleans(),
    mean=st.sampled_from([0.0, 1.0]),
    size=sizes_of_chunks,
    seed=st.integers(0, 999),
)
def test_float32_equals_eager_within_1e_5(
    num_tokens: int, width: int, num_words: int, size: int, bias: bool, **options: Any
) -> None:
    given = case(num_tokens, width, num_words, bias=bias, **options).rounded(torch.float32)
    # A token that says one word alone has almost no gradient; eager's own is noise there.
    assume(given.top() < 0.95)
    eager = run(given, EAGER, torch.float32)
    for choice in [by_tokens(size)] if bias else [by_tokens(size), by_words(size)]:
        found = errors(run(given, choice, torch.float32), eager)
        assert max(found.values()) <= 1e-5, (choice, found)


@settings(max_examples=25)
@given(
    num_tokens=st.integers(32, 200),
    width=st.integers(4, 64),
    num_words=st.integers(100, 600),
    gain=st.none() | st.floats(0.5, 8),
    shift=st.booleans(),
    bias=st.booleans(),
    tied=st.booleans(),
    mean=st.sampled_from([0.0, 1.0, 4.0]),
    common=st.sampled_from([0.0, 2.0]),
    blocks=st.integers(1, 20),
    seed=st.integers(0, 999),
)
def test_bfloat16_errs_at_most_twice_as_much_as_eager(
    num_tokens: int, width: int, num_words: int, blocks: int, bias: bool, **options: Any
) -> None:
    given = case(num_tokens, width, num_words, bias=bias, **options).rounded(torch.bfloat16)
    exact = run(given, definition)
    eager = errors(run(given, EAGER, torch.bfloat16), exact)
    ways = [by_tokens(-(-num_tokens // 4))]  # in four chunks, the most that are chosen
    ways += [] if bias else [by_words(-(-num_words // blocks))]
    for choice in ways:
        for name, error in errors(run(given, choice, torch.bfloat16), exact).items():
            assert error <= 2 * eager[name] + 5e-4, (choice, name, error, eager[name])


@CHUNKED
def test_bfloat16_where_one_word_has_nearly_all_the_probability(choice: Choice) -> None:
    given = case(200, 32, 600, gain=None, shift=False)
    said = torch.randint(600, (200,))
    given.tensors["hidden"] = given.tensors["weight"][said]
    given.tensors["gamma"] = torch.full((600,), 4.0, dtype=torch.float64)
    given = given.rounded(torch.bfloat16)
    assert given.top() > 0.999
    exact = run(given, definition)
    eager = errors(run(given, EAGER, torch.bfloat16), exact)
    choice = by_tokens(100) if choice.chunk_by == "tokens" else by_words(150)
    for name, error in errors(run(given, choice, torch.bfloat16), exact).items():
        assert error <= 4 * eager[name], (name, error, eager[name])


def test_vectors_are_summed_in_float32_over_any_number_of_chunks() -> None:
    given = case(200, 16, 60, bias=True, common=2.0).rounded(torch.bfloat16)
    exact = run(given, definition)
    eager = errors(run(given, EAGER, torch.bfloat16), exact)
    found = errors(run(given, by_tokens(1), torch.bfloat16), exact)
    for name in ("gamma", "beta", "bias"):
        assert found[name] <= 2 * eager[name]


@pytest.mark.parametrize("num_blocks", [1, 40, 2000])
def test_many_blocks_of_words_add_no_error(num_blocks: int) -> None:
    given = case(8, 16, 2000, gain=3.0).rounded(torch.float32)
    exact = run(given, definition)
    found = errors(run(given, by_words(2000 // num_blocks), torch.float32), exact)
    assert max(found.values()) <= 1e-5, found


@pytest.mark.parametrize("choice", [by_tokens(1), by_words(50_000)], ids=repr)
def test_float16_keeps_probabilities_it_cannot_hold(choice: Choice) -> None:
    given = case(2, 3, 144_000, gain=None, shift=False)  # 1 / V rounds up by 0.4 % there
    given.tensors["weight"].zero_()
    given.tensors["table"].abs_()
    given = Case(given.tensors, 1e3 * given.grad).rounded(torch.float16)
    trained = ("hidden", "table")
    found, exact = run(given, choice, torch.float16, trained), run(given, definition)
    assert found["out"].dtype == found["table"].dtype == torch.float16
    for name in ("out", "table"):
        assert relative(found[name], exact[name]) <= 1e-3


@CHUNKED
@pytest.mark.parametrize("gain", [None, 8.0])
def test_gradients_by_finite_differences(choice: Choice, gain: float | None) -> None:
    given = case(5, 3, 11, gain=gain, shift=gain is not None)
    leaves = {name: t.requires_grad_() for name, t in given.tensors.items()}

    def function(*values: Tensor) -> Tensor:
        return mix(**dict(zip(leaves, values, strict=True)), choice=choice)

    assert torch.autograd.gradcheck(function, tuple(leaves.values()))


def test_gradient_of_a_bias_by_finite_differences() -> None:
    given = case(5, 3, 11, bias=True)
    leaves = {name: t.requires_grad_() for name, t in given.tensors.items()}

    def function(*values: Tensor) -> Tensor:
        return mix(**dict(zip(leaves, values, strict=True)), choice=by_tokens(2))

    assert torch.autograd.gradcheck(function, tuple(leaves.values()))


@WAYS
def test_tied_weights_get_the_sum_of_both_gradients(choice: Choice) -> None:
    given = case(tied=True)
    found = errors(run(given, choice), run(given, definition))
    assert max(found.values()) <= 1e-12


@CHUNKED
def test_only_what_is_trained_gets_a_gradient(choice: Choice) -> None:
    given = case()
    whole = run(given, definition)
    for trained in itertools.chain.from_iterable(
        itertools.combinations(NAMES[:5], k) for k in range(1, 6)
    ):
        found = run(given, choice, trained=trained)
        assert found.keys() == {"out", *trained}
        assert max(errors(found, {name: whole[name] for name in found}).values()) <= 1e-10


@WAYS
@pytest.mark.parametrize("excluded", [[0, 17], range(7), range(1, 39)], ids=len)
def test_excluded_words_have_no_part(choice: Choice, excluded: Collection[int]) -> None:
    given = case()
    gone = torch.tensor(list(excluded))
    given.tensors["beta"] = given.tensors["beta"].index_fill(0, gone, -torch.inf)
    given.tensors["table"] = given.tensors["table"].index_fill(0, gone, 1e30)
    found = run(given, choice)
    for name in ("table", "gamma", "beta"):
        assert (found[name][gone] == 0).all()
    assert all(value.isfinite().all() for value in found.values())
    # The statistics of LN_V still are those of all words, so W2's excluded rows have a gradient.
    rest = {**given.tensors, "table": given.tensors["table"].index_fill(0, gone, 0)}
    assert max(errors(found, run(Case(rest, given.grad), definition)).values()) <= 1e-9


@WAYS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits_stay_finite(choice: Choice, dtype: torch.dtype) -> None:
    plain = case(12, 8, 50)
    changes: dict[str, dict[str, Tensor]] = {
        "long hidden": {"hidden": 1e3 * plain.tensors["hidden"]},
        "zero hidden": {"hidden": 0 * plain.tensors["hidden"]},
        "equal rows": {"weight": plain.tensors["weight"][:1].expand(50, 8).contiguous()},
        "far rows": {"weight": plain.tensors["weight"] + 30},
    }
    # Cancellation costs float32 some digits; bfloat16, whose logits are rounded by more than they
    # differ, is left with a mixture of some kind.
    tolerance = {"far rows": 1e-4, "equal rows": 1e-3}
    for name, change in changes.items():
        given = Case({**plain.tensors, **change}, plain.grad).rounded(dtype)
        found, exact = run(given, choice, dtype), run(given, definition)
        assert all(value.isfinite().all() for value in found.values()), name
        low, high = (given.tensors["table"].aminmax(dim=0)[i].to(dtype) for i in (0, 1))
        assert ((low <= found["out"]) & (found["out"] <= high)).all(), name
        if dtype == torch.float32:
            assert relative(found["out"], exact["out"]) <= tolerance.get(name, 1e-5), name


@WAYS
def test_any_memory_layout(choice: Choice) -> None:
    given = case(6, 8, 30)
    exact = run(given, definition)
    grown = torch.cat([given.tensors["table"], torch.full((9, 8), torch.nan).double()])
    strided = torch.stack([given.tensors["weight"], given.tensors["weight"]], dim=2)
    leaves = {
        "hidden": given.tensors["hidden"].t().contiguous().requires_grad_(),
        "weight": strided.requires_grad_(),
        "table": grown.requires_grad_(),
        "gamma": given.tensors["gamma"].repeat_interleave(2).requires_grad_(),
    }
    out = mix(
        leaves["hidden"].t(),
        leaves["weight"][..., 1],
        leaves["table"][:30],
        gamma=leaves["gamma"][::2],
        beta=given.tensors["beta"],
        choice=choice,
    )
    out.backward(given.grad.t().contiguous().t())
    torch.testing.assert_close(out, exact["out"])
    torch.testing.assert_close(leaves["hidden"].grad, exact["hidden"].t())
    torch.testing.assert_close(leaves["weight"].grad[..., 1], exact["weight"])
    torch.testing.assert_close(leaves["table"].grad[:30], exact["table"])
    torch.testing.assert_close(leaves["gamma"].grad[::2], exact["gamma"])
    for unused in (leaves["weight"].grad[..., 0], leaves["table"].grad[30:]):
        assert (unused == 0).all()


@WAYS
@pytest.mark.parametrize("shape", [(1, 2, 3, 4), (0, 9), (2, 0, 3)], ids=str)
def test_leading_dimensions_and_no_tokens(choice: Choice, shape: tuple[int, ...]) -> None:
    given = case()
    hidden = torch.randn(*shape, 6, dtype=torch.float64, requires_grad=True)
    weight = given.tensors["weight"].requires_grad_()
    if choice.chunk_by == "words":
        choice = replace(choice, negligible=1e-9)
    out = mix(hidden, weight, given.tensors["table"], choice=choice)
    torch.testing.assert_close(out, definition(hidden, weight, given.tensors["table"]))
    out.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.shape == hidden.shape
    assert weight.grad is not None
    assert out.numel() or (weight.grad == 0).all()


@CHUNKED
def test_autocast_is_eagers(choice: Choice) -> None:
    given = case(30, 16, 200).rounded(torch.float32)
    exact = run(given, definition)
    choice = by_tokens(15) if choice.chunk_by == "tokens" else choice
    with torch.autocast("cpu", dtype=torch.bfloat16):
        eager, found = (run(given, way, torch.float32) for way in (EAGER, choice))
    assert found["out"].dtype == eager["out"].dtype == torch.bfloat16
    assert {found[name].dtype for name in found if name != "out"} == {torch.float32}
    bound = errors(eager, exact)
    for name, error in errors(found, exact).items():
        assert error <= 2 * bound[name] + 5e-4, (name, error, bound[name])


def test_negligible_words_cost_as_much_error_as_is_allowed() -> None:
    given = case(20, 16, 500, gain=4.0, shift=False)
    exact = run(given, definition)
    total = []
    for negligible in (0.0, 1e-12, 1e-4, 1e-2):
        found = errors(run(given, by_words(64, negligible=negligible)), exact)
        for name in ("out", "gamma"):
            assert found[name] <= 1e-10  # only the products of the backward pass skip words
        total.append(max(found.values()))
    assert total[0] <= 1e-10
    assert total[0] <= total[1] < total[2] < total[3] < 0.5
    skipped = run(given, by_words(64, negligible=0.9999))
    assert (skipped["table"] == 0).any(-1).all()


def test_the_second_derivative_is_refused_not_wrong() -> None:
    given = case()
    hidden = given.tensors["hidden"].requires_grad_()
    out = mix(hidden, given.tensors["weight"], given.tensors["table"], choice=by_tokens())
    (first,) = torch.autograd.grad(out.square().sum(), hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="mixture_backward"):
        first.sum().backward()
