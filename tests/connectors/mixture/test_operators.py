"""What PyTorch asks of operators, compilation without graph breaks, and the memory they need."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.debugging import aot_eager
from torch.utils._python_dispatch import TorchDispatchMode

from alignvlm.connectors.mixture import Choice, mix, rows, tokens, weight_statistics, words
from alignvlm.connectors.mixture.operators import mixture, mixture_backward, w2_statistics
from alignvlm.connectors.mixture.problem import Problem

N, D, V = 10, 6, 33


def inputs(*, known: bool, bias: bool = False, dtype: torch.dtype = torch.float32) -> list[Any]:
    """Arguments of the operator `mixture`, in its order."""
    tensors = [torch.randn(N, D), torch.randn(V, D), torch.randn(V) if bias else None]
    tensors = [None if t is None else t.to(dtype).requires_grad_() for t in tensors]
    norm = [torch.randn(V, requires_grad=True), torch.randn(V, requires_grad=True)]
    table = torch.randn(V, D, dtype=dtype).requires_grad_()
    assert tensors[1] is not None
    found = weight_statistics(tensors[1].detach()) if known else (None, None)
    return [*tensors, *norm, table, *found, 1e-5, 4, False, 0.0]


def test_the_statistics_are_a_proper_operator() -> None:
    torch.library.opcheck(w2_statistics, (torch.randn(V, D),))
    torch.library.opcheck(w2_statistics, (torch.randn(V, D).bfloat16(),))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{"known": True}, {"known": False, "bias": True}], ids=str)
def test_the_mixture_is_a_proper_operator(options: dict, dtype: torch.dtype) -> None:
    torch.library.opcheck(mixture, tuple(inputs(**options, dtype=dtype)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{"known": True}, {"known": False, "bias": True}], ids=str)
def test_its_gradient_is_a_proper_operator(options: dict, dtype: torch.dtype) -> None:
    given = [t.detach() if isinstance(t, Tensor) else t for t in inputs(**options, dtype=dtype)]
    out, *kept = mixture(*given)
    grad = torch.randn_like(out)
    needed = [True, False, given[2] is not None, True, False, True]
    saved = out if options["known"] else None
    arguments = (*given[:8], saved, *kept, grad, *given[8:], needed)
    found = mixture_backward(*arguments)
    assert [t.shape for t in found] == [given[i].shape for i, wanted in enumerate(needed) if wanted]
    torch.library.opcheck(mixture_backward, arguments)


@pytest.mark.parametrize("size", [4, None])
@pytest.mark.parametrize("by", ["tokens", "words"])
def test_compiles_as_one_graph_for_any_number_of_tokens(by: str, size: int | None) -> None:
    choice = Choice(implementation="chunked", chunk_by=by, chunk_size=size)
    _, weight, _, gamma, beta, table, *_ = inputs(known=False)
    graphs = 0

    def call(hidden: Tensor) -> Tensor:
        return mix(hidden, weight, table, gamma=gamma, beta=beta, choice=choice)

    def backend(graph: Any, example: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return aot_eager(graph, example)

    compiled = torch.compile(call, fullgraph=True, backend=backend, dynamic=True)
    for num_tokens in (N, N + 3, 2 * N, 9 * N):
        features = torch.randn(2, num_tokens, D)
        found = []
        for function in (call, compiled):
            leaf = features.clone().requires_grad_()
            out = function(leaf)
            gradients = torch.autograd.grad(out.square().sum(), [leaf, weight, gamma, beta, table])
            found.append([out, *gradients])
        torch.testing.assert_close(found[1], found[0])
    assert graphs <= 2


class Largest(TorchDispatchMode):
    """Remembers the most elements that any operation under it has returned."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_no_tensor_of_all_logits(dtype: torch.dtype) -> None:
    num_tokens, width, num_words, size = 300, 8, 500, 20
    hidden, weight, table = (
        torch.randn(n, width).to(dtype) for n in (num_tokens, num_words, num_words)
    )
    table = table.float() if dtype == torch.float16 else table
    gamma, beta = torch.rand(num_words), torch.rand(num_words)
    problem = Problem(hidden, weight, None, gamma, beta, table, 1e-5)
    grad, needed = torch.randn(num_tokens, width).to(table.dtype), [True] * 6
    # The operators hide what they do from a mode around them: it goes around what they call.
    with Largest() as by_tokens:
        out, kept = tokens.forward(problem, rows, size)
        tokens.backward(problem, rows, size, kept, grad, needed)
    assert size * num_words == by_tokens.elements
    with Largest() as by_words:
        known = weight_statistics(weight)
        out, kept = words.forward(problem, rows, size, known)
        centre = torch.linalg.vecdot(out, grad.float())
        words.backward(problem, rows, size, known, kept, centre, grad, needed, 0.0)
    largest_input = num_words * width
    assert max(size * num_tokens, largest_input) <= by_words.elements <= 1.5 * size * num_tokens
    with Largest() as eager:  # the measure sees what it should
        mix(hidden, weight, table, choice=Choice(implementation="eager"))
    assert eager.elements == num_tokens * num_words


@pytest.mark.parametrize("by", ["tokens", "words"])
def test_little_is_kept_for_the_backward_pass(by: str) -> None:
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    hidden, weight = torch.randn(300, 8, requires_grad=True), torch.randn(500, 8)
    choice = Choice(implementation="chunked", chunk_by=by, chunk_size=20)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        mix(hidden, weight, weight, choice=choice)
    own = [t for t in kept if t.data_ptr() not in {hidden.data_ptr(), weight.data_ptr()}]
    vectors = 3 * 300
    assert sum(t.numel() for t in own) <= vectors + (0 if by == "tokens" else 300 * 8 + 8 + 8 * 8)
