"""The chunked mixture as operators of PyTorch: one node for autograd, one call for the compiler.

The loops stay out of compiled graphs, whose size then does not depend on N or V.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from alignvlm.connectors.mixture import rows, tokens, words
from alignvlm.connectors.mixture.problem import Kept, Problem
from alignvlm.connectors.mixture.statistics import Statistics, autocast_off, weight_statistics

_TENSORS = (
    "Tensor hidden, Tensor weight, Tensor? bias, Tensor? gamma, Tensor? beta, Tensor table, "
    "Tensor? mean_row, Tensor? covariance"
)
_SETTINGS = "float eps, SymInt chunk, bool fused, float negligible"


def _kernels(fused: bool) -> Any:
    if not fused:
        return rows
    from alignvlm.connectors.mixture import fused as kernels

    return kernels


@torch.library.custom_op(
    "alignvlm::w2_statistics", mutates_args=(), schema="(Tensor weight) -> (Tensor, Tensor)"
)
def w2_statistics(weight: Tensor) -> tuple[Tensor, Tensor]:
    """`statistics.weight_statistics` as an operator."""
    found = weight_statistics(weight)
    return found.mean, found.covariance


@w2_statistics.register_fake
def _(weight: Tensor) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(weight.dtype, torch.float32)
    width = weight.shape[1]
    return weight.new_empty(width, dtype=wide), weight.new_empty(width, width, dtype=wide)


@torch.library.custom_op(
    "alignvlm::mixture",
    mutates_args=(),
    schema=f"({_TENSORS}, {_SETTINGS}) -> (Tensor, Tensor, Tensor, Tensor)",
)
def mixture(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    table: Tensor,
    mean_row: Tensor | None,
    covariance: Tensor | None,
    eps: float,
    chunk: int,
    fused: bool,
    negligible: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """F' [N, D] and, for the backward pass, mean, rstd and log-normaliser of each token [N].

    In blocks of `chunk` words where W2's statistics are given, F' is then float32 or wider; else
    in chunks of `chunk` tokens.
    """
    problem = Problem(hidden, weight, bias, gamma, beta, table, eps)
    with autocast_off(hidden.device.type):
        if mean_row is None or covariance is None:
            out, kept = tokens.forward(problem, _kernels(fused), chunk)
        else:
            known = Statistics(mean_row, covariance)
            out, kept = words.forward(problem, _kernels(fused), chunk, known)
    return out, *kept


@mixture.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    problem, mean_row = Problem._make([*arguments[:6], 0.0]), arguments[6]
    out = problem.empty_output()
    return (out if mean_row is None else out.to(problem.wide)), *Kept.empty(problem)


@torch.library.custom_op(
    "alignvlm::mixture_backward",
    mutates_args=(),
    schema=(
        f"({_TENSORS}, Tensor? out, Tensor mean, Tensor rstd, Tensor log_normaliser, Tensor grad, "
        f"{_SETTINGS}, bool[] needed) -> Tensor[]"
    ),
)
def mixture_backward(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    table: Tensor,
    mean_row: Tensor | None,
    covariance: Tensor | None,
    out: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    log_normaliser: Tensor,
    grad: Tensor,
    eps: float,
    chunk: int,
    fused: bool,
    negligible: float,
    needed: Sequence[bool],
) -> list[Tensor]:
    """Gradients of those of the first six inputs that are `needed`, in their order."""
    problem = Problem(hidden, weight, bias, gamma, beta, table, eps)
    kept = Kept(mean, rstd, log_normaliser)
    kernels = _kernels(fused)
    narrow = grad.to(table.dtype)
    with autocast_off(hidden.device.type):
        if mean_row is None or covariance is None or out is None:
            found = tokens.backward(problem, kernels, chunk, kept, narrow, needed)
        else:
            known = Statistics(mean_row, covariance)
            centre = torch.linalg.vecdot(out, grad.to(out.dtype))
            found = words.backward(
                problem, kernels, chunk, known, kept, centre, narrow, needed, negligible
            )
    return [gradient for gradient in found if gradient is not None]


@mixture_backward.register_fake
def _(*arguments: Any) -> list[Tensor]:
    needed = arguments[-1]
    return [torch.empty_like(t) for t, wanted in zip(arguments[:6], needed, strict=True) if wanted]


@register_flop_formula(torch.ops.alignvlm.mixture)
def _mixture_flops(hidden: Any, weight: Any, *_arguments: Any, **_options: Any) -> int:
    """W2 h and P E, for torch's counter; the statistics of W2 are left out."""
    return 4 * int(hidden[0] * hidden[1] * weight[0])


@register_flop_formula(torch.ops.alignvlm.mixture_backward)
def _mixture_backward_flops(hidden: Any, weight: Any, *_arguments: Any, **_options: Any) -> int:
    """The logits taken again, dP, and the gradients of h, W2 and E, all of them needed."""
    return 10 * int(hidden[0] * hidden[1] * weight[0])
