"""The one call behind which the implementations stand, and its gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from alignvlm.connectors.mixture.choice import Choice
from alignvlm.connectors.mixture.eager import (
    autocasts,
    mix_table,
    products_dtype,
    vocabulary_scores,
)
from alignvlm.connectors.mixture.operators import mixture, mixture_backward, w2_statistics
from alignvlm.connectors.mixture.remembered import Remembered
from alignvlm.connectors.mixture.rows import Norm, softmax_
from alignvlm.connectors.mixture.statistics import Statistics, autocast_off
from alignvlm.errors import ConfigurationError

_DEFAULT = Choice()


def mix(
    hidden: Tensor,
    weight: Tensor,
    table: Tensor,
    *,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    choice: Choice = _DEFAULT,
    known: Statistics | None = None,
    remembered: Remembered | None = None,
) -> Tensor:
    """F' = softmax(LN_V(W2 h)) E (Eq. 1-2), with gradients for everything that requires one.

    Args:
        hidden: h [..., N, D], floating point.
        weight: W2 [V, D].
        table: E [V, D]; may be the same tensor as W2.
        gamma: LN_V's scale [V], or None for 1.
        beta: LN_V's shift [V], or None for 0; -inf gives a word the probability 0.
        bias: W2's bias [V], or None.
        eps: added to the variance of the logits.
        choice: implementation and chunks.
        known: statistics of the whole W2, if `weight` is some rows of it; `choice` then has no say,
            as few rows are expected.
        remembered: keeps W2's statistics for the next call, where this one takes no gradient.

    Returns:
        F' [..., N, D] in E's dtype, or autocast's. Matrix products run in that dtype; statistics,
        softmax and sums in float32 or wider.

    Raises:
        ConfigurationError: shapes or dtypes do not fit, or `choice` cannot run here.
    """
    _check(hidden, weight, table)
    _check_words(len(weight), gamma=gamma, beta=beta, bias=bias)
    dtype, device = products_dtype(table), hidden.device
    if known is not None:
        return _mix_some(hidden, weight, table, gamma, beta, known.of_logits(hidden, eps))
    flat = hidden.reshape(-1, hidden.shape[-1])
    trained = (flat, weight, table, gamma, beta, bias)
    trains = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in trained)
    plan = choice.resolve(len(flat), len(weight), device, trains=trains, has_bias=bias is not None)
    if plan.implementation == "eager" or device.type == "meta":
        logits = functional.linear(hidden, weight, bias)
        return mix_table(vocabulary_scores(logits, gamma, beta, eps).softmax(-1), table, dtype)
    rows = weight.to(products_dtype(weight))
    moments: tuple[Tensor | None, Tensor | None] = (None, None)
    if plan.chunk_by == "words":
        kept = None if trains else remembered
        moments = kept.statistics(weight, rows) if kept else w2_statistics(rows.detach())
    out: Tensor = mixture(
        flat.to(rows.dtype),
        rows,
        None if bias is None else bias.to(rows.dtype),
        *(None if t is None else t.to(_wide(weight)) for t in (gamma, beta)),
        table.to(torch.float32 if dtype == torch.float16 else dtype),
        *moments,
        eps,
        plan.chunk_size,
        plan.implementation == "fused",
        plan.negligible,
    )[0]
    return out.to(dtype).reshape(*hidden.shape[:-1], table.shape[1])


def _mix_some(
    hidden: Tensor,
    weight: Tensor,
    table: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    known: tuple[Tensor, Tensor],
) -> Tensor:
    """F' from some rows of W2 and E; in place where nothing has to be kept for a gradient."""
    dtype = products_dtype(table)
    logits = functional.linear(hidden, weight)
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or logits.is_meta:
        scores = vocabulary_scores(logits, gamma, beta, 0.0, known)
        return mix_table(scores.softmax(-1), table, dtype)
    flat = logits.reshape(-1, len(weight))
    if flat.dtype == torch.float16:  # which cannot hold P
        flat = flat.float()
    gamma, beta = (None if t is None else t.to(known[0].dtype) for t in (gamma, beta))
    with autocast_off(hidden.device.type):
        softmax_(flat, Norm(gamma, beta, known[0].flatten(), known[1].flatten()))
    return mix_table(flat, table, dtype).reshape(*hidden.shape[:-1], table.shape[1])


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(products_dtype(tensor), torch.float32)


def _check(hidden: Tensor, weight: Tensor, table: Tensor) -> None:
    if not hidden.is_floating_point():
        raise ConfigurationError(
            f"ALIGN mixes by floating-point features, not {hidden.dtype}: pass LN_D(W1 F)"
        )
    if weight.ndim != 2 or table.ndim != 2 or len(weight) != len(table):
        raise ConfigurationError(
            f"ALIGN needs W2 and E of one vocabulary, not of {list(weight.shape)} and "
            f"{list(table.shape)}: pass the head and the embeddings of the same language model"
        )
    if hidden.dtype != weight.dtype and not autocasts(weight):
        raise ConfigurationError(
            f"ALIGN's features are {hidden.dtype} and W2 is {weight.dtype}: convert one to the "
            "other's dtype, or run under autocast"
        )
    if hidden.ndim < 2 or hidden.shape[-1] != weight.shape[1]:
        raise ConfigurationError(
            f"ALIGN's W2 {list(weight.shape)} takes features of width {weight.shape[1]}, not "
            f"{list(hidden.shape)}: pass LN_D(W1 F) [..., N, D]"
        )


def _check_words(num_words: int, **vectors: Tensor | None) -> None:
    for name, vector in vectors.items():
        if vector is not None and vector.shape != (num_words,):
            raise ConfigurationError(
                f"ALIGN's {name} has the shape {list(vector.shape)}: pass one value for each of "
                f"W2's {num_words} words"
            )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    tensors, ctx.settings = inputs[:8], inputs[8:]
    # Chunks of tokens take the sums of P dP from whole rows and have no use for F'.
    out = output[0] if inputs[6] is not None else None
    ctx.save_for_backward(*tensors, out, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, grad: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    needed = list(ctx.needs_input_grad[:6])
    found = iter(mixture_backward(*ctx.saved_tensors, grad, *ctx.settings, needed))
    gradients = [next(found) if wanted else None for wanted in needed]
    return (*gradients, None, None, *(None for _ in ctx.settings))


mixture.register_autograd(_backward, setup_context=_setup)
