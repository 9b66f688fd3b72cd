"""The element-wise half of ALIGN as Triton kernels: `rows.py`, function for function, on a GPU.

At D = 2048 to 4096 no kernel can hold the accumulators of a mixture (D float32 numbers a token do
not fit in registers or shared memory), so the matrix products stay with cuBLAS and everything
between two of them is one or two passes over a block of logits:

- `row_statistics` reads the block once;
- `softmax_` reads it twice, the second time from the L2 cache, and writes it once;
- `softmax_gradient_` reads both blocks twice and writes them once. The first pass takes each
  row's sums; in the second a program keeps its columns and walks down the rows, so that gamma,
  beta and their gradients stay in registers.

Sums are taken in a fixed order, without atomic operations: equal inputs give equal bits.
Importing this module needs Triton; `device.fused_problem` says whether it can be used.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from alignvlm.connectors.mixture.rows import Norm, RowSums
from alignvlm.errors import ConfigurationError

# For H100 and H200: 132 multiprocessors, 64 K registers and 2048 threads each, 50 to 60 MB of L2.
# A thread reads 16 bytes at a time, 8 numbers in bfloat16. In the row kernels every thread keeps
# its own running sums and meets the others once a row, at its end.
#
# Statistics and softmax: 512 threads with 16 columns each, one or two rows a multiprocessor at a
# time. A row of 128,256 words is 256 KB in bfloat16, so 132 rows in flight are 34 MB and the
# softmax's second reading finds its row in L2; more, smaller programs would have to read it from
# memory again. (Triton asks that fused multiply-add be chosen explicitly.)
_ROW = {"BLOCK": 8192, "num_warps": 16, "enable_fp_fusion": True}
# Sums of the gradient: five running sums a column, so 8 columns a thread to stay clear of
# spilling. Nothing is read twice, which allows more and smaller programs to even out the last rows.
_SUM = {"BLOCK": 2048, "num_warps": 8, "enable_fp_fusion": True}
# Gradients: a tile is 8 rows of 256 columns, a warp to each row (512 bytes side by side), and a
# program walks down 64 rows: at 256 rows and 128,256 words, 2004 programs share the GPU evenly.
# Its two sums a column, 8 bytes, stand beside 512 bytes read and written.
_TILE = {"SPAN": 64, "ROWS": 8, "COLUMNS": 256, "num_warps": 8, "enable_fp_fusion": True}

_LOWEST = tl.constexpr(torch.finfo(torch.float32).min)


def row_statistics(logits: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and inverse standard deviation over the last dimension of logits [n, V], [n] each."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    mean = torch.empty(len(logits), dtype=wide, device=logits.device)
    rstd = torch.empty_like(mean)
    with torch.cuda.device(logits.get_device()):
        _statistics_kernel[(len(logits),)](
            logits,
            _row_stride(logits),
            logits.shape[1],
            eps,
            mean,
            rstd,
            **_ROW,
        )
    return mean, rstd


def softmax_(logits: Tensor, norm: Norm) -> Tensor:
    """Replaces logits [n, K] by softmax(gamma l^ + beta), l^ = (l - mean) rstd.

    Returns:
        The logarithm of each row's normaliser [n], -inf where every word is excluded.
    """
    norm = _contiguous(norm)
    log_normaliser = torch.empty_like(norm.mean)
    with torch.cuda.device(logits.get_device()):
        _softmax_kernel[(len(logits),)](
            logits,
            _row_stride(logits),
            logits.shape[1],
            *norm,
            log_normaliser,
            **_ROW,
        )
    return log_normaliser


def softmax_gradient_(
    logits: Tensor,
    grads: Tensor,
    norm: Norm,
    log_normaliser: Tensor,
    centre: Tensor | None,
    finish: int | None,
) -> RowSums:
    """From logits and the gradient of P to P and the gradient of the logits, both in place.

    Arguments and result are those of `rows.softmax_gradient_`; unlike there, a row whose every
    word is excluded gives P = 0 and zeros, not NaN.
    """
    norm, num_rows, width = _contiguous(norm), *logits.shape
    known = centre is not None
    middle = torch.empty_like(norm.mean) if centre is None else centre.contiguous()
    plain, weighted = torch.empty_like(norm.mean), torch.empty_like(norm.mean)
    spans = triton.cdiv(num_rows, _TILE["SPAN"])
    partial = torch.empty(2, spans, width, dtype=norm.mean.dtype, device=logits.device)
    blocks = (logits, grads, _row_stride(logits), _row_stride(grads), num_rows, width)
    rows = (*norm, log_normaliser.contiguous(), middle, plain, weighted)
    with torch.cuda.device(logits.get_device()):
        _sums_kernel[(num_rows,)](*blocks, *rows, KNOWN=known, **_SUM)
        _gradient_kernel[(triton.cdiv(width, _TILE["COLUMNS"]), spans)](
            *blocks, *rows, finish, *partial, **_TILE
        )
    of_gamma, of_beta = partial.sum(1)
    return RowSums(plain, weighted, of_gamma, of_beta)


def _row_stride(block: Tensor) -> int:
    if block.shape[1] > 1 and block.stride(1) != 1:
        raise ConfigurationError(
            f"the columns of a block of logits are {block.stride(1)} numbers apart and the fused "
            "kernels need them side by side: pass a contiguous tensor"
        )
    return block.stride(0)


def _contiguous(norm: Norm) -> Norm:
    gamma, beta = (None if part is None else part.contiguous() for part in norm[:2])
    return Norm(gamma, beta, norm.mean.contiguous(), norm.rstd.contiguous())


@triton.jit
def _of_words(values, columns, width, missing: tl.constexpr):
    """Gamma or beta at some columns, `missing` where there is none."""
    if values is None:
        found = tl.full(columns.shape, missing, tl.float32)
    else:
        found = tl.load(values + columns, mask=columns < width, other=missing)
    return found


@triton.jit
def _statistics_kernel(logits, stride, width, eps, mean, rstd, BLOCK: tl.constexpr):
    """One program a row, one reading: sums of l - s and of its square, s the first block's mean.

    With f = BLOCK / V the share of the first block, (mean - s)^2 <= variance (1 - f) / f whatever
    the row holds, so the subtraction at the end magnifies rounding by 1 / f at the very worst.
    """
    wide = mean.dtype.element_ty
    row = tl.program_id(0)
    logits += row.to(tl.int64) * stride
    block = tl.arange(0, BLOCK)
    first = tl.load(logits + block, mask=block < width, other=0).to(wide)
    shift = tl.sum(first, 0) / tl.minimum(width, BLOCK)
    total = tl.zeros([BLOCK], wide)
    squares = tl.zeros([BLOCK], wide)
    for start in range(0, width, BLOCK):
        columns = start + block
        inside = columns < width
        found = tl.load(logits + columns, mask=inside, other=0).to(wide)
        offsets = tl.where(inside, found - shift, 0)
        total += offsets
        squares += offsets * offsets
    offset = tl.sum(total, 0) / width
    variance = tl.sum(squares, 0) / width - offset * offset
    variance = tl.where(variance < 0, 0, variance)  # unlike a maximum, lets NaN through
    tl.store(mean + row, shift + offset)
    tl.store(rstd + row, 1 / tl.sqrt(variance + eps))


@triton.jit
def _scores(logits, mean, rstd, gamma, beta, inside):
    """l^ and the softmax's argument, gamma l^ + beta, -inf outside of the block."""
    normalised = (logits.to(mean.dtype) - mean) * rstd
    return normalised, tl.where(inside, normalised * gamma + beta, float("-inf"))


@triton.jit
def _finite(log_normaliser):
    """Of a row whose every word is excluded 0 in place of -inf, so that -inf - it is not NaN."""
    return tl.where(log_normaliser == float("-inf"), 0, log_normaliser)


@triton.jit
def _row_scores(logits, columns, width, gamma, beta, mean, rstd):
    inside = columns < width
    found = tl.load(logits + columns, mask=inside, other=0)
    scale, shift = _of_words(gamma, columns, width, 1.0), _of_words(beta, columns, width, 0.0)
    return _scores(found, mean, rstd, scale, shift, inside)[1]


@triton.jit
def _softmax_kernel(
    logits, stride, width, gamma, beta, mean, rstd, log_normaliser, BLOCK: tl.constexpr
):
    """One program a row, two readings; each thread runs a softmax of its own over its columns."""
    wide = mean.dtype.element_ty
    row = tl.program_id(0)
    logits += row.to(tl.int64) * stride
    row_mean, row_rstd = tl.load(mean + row), tl.load(rstd + row)
    block = tl.arange(0, BLOCK)
    top = tl.full([BLOCK], _LOWEST, wide)  # finite: a difference to -inf is then never NaN
    total = tl.zeros([BLOCK], wide)
    for start in range(0, width, BLOCK):
        scores = _row_scores(logits, start + block, width, gamma, beta, row_mean, row_rstd)
        # One exponential serves both cases: a new maximum scales the sum, else a term joins it.
        above = scores > top
        factor = tl.exp(tl.where(above, top - scores, scores - top))
        total = tl.where(above, total * factor + 1, total + factor)
        top = tl.where(above, scores, top)
    highest = tl.max(top, 0)
    sum_exp = tl.sum(total * tl.exp(top - highest), 0)
    tl.store(log_normaliser + row, highest + tl.log(sum_exp))
    scale = 1 / tl.where(sum_exp == 0, 1, sum_exp)
    for start in range(0, width, BLOCK):
        columns = start + block
        scores = _row_scores(logits, columns, width, gamma, beta, row_mean, row_rstd)
        tl.store(logits + columns, tl.exp(scores - highest) * scale, mask=columns < width)


@triton.jit(do_not_specialize=["num_rows"])
def _sums_kernel(
    logits,
    grads,
    logits_stride,
    grads_stride,
    num_rows,
    width,
    gamma,
    beta,
    mean,
    rstd,
    log_normaliser,
    centre,
    plain,
    weighted,
    KNOWN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program a row, one reading: the sums over its words, and the centre unless KNOWN.

    An unknown centre c enters at the end: sum w P (dP - c) = sum w P dP - c sum w P.
    """
    wide = mean.dtype.element_ty
    row = tl.program_id(0)
    logits += row.to(tl.int64) * logits_stride
    grads += row.to(tl.int64) * grads_stride
    row_mean, row_rstd = tl.load(mean + row), tl.load(rstd + row)
    normaliser = _finite(tl.load(log_normaliser + row))
    middle = tl.load(centre + row) if KNOWN else 0.0
    block = tl.arange(0, BLOCK)
    zeros = tl.zeros([BLOCK], wide)
    delta_sum, plain_sum, weighted_sum, mass, moment = zeros, zeros, zeros, zeros, zeros
    total = zeros
    for start in range(0, width, BLOCK):
        columns = start + block
        inside = columns < width
        scale = _of_words(gamma, columns, width, 1.0)
        shift = _of_words(beta, columns, width, 0.0)
        found = tl.load(logits + columns, mask=inside, other=0)
        normalised, scores = _scores(found, row_mean, row_rstd, scale, shift, inside)
        probs = tl.exp(scores - normaliser)
        delta = probs * (tl.load(grads + columns, mask=inside, other=0).to(wide) - middle)
        delta_sum += delta
        total += probs
        plain_sum += delta * scale
        weighted_sum += delta * scale * normalised
        mass += probs * scale
        moment += probs * scale * normalised
    plain_row, weighted_row = tl.sum(plain_sum, 0), tl.sum(weighted_sum, 0)
    if not KNOWN:
        # P from a rounded normaliser sums to 1 within 1e-6 only, see `rows._weighted_mean`.
        middle = tl.sum(delta_sum, 0) / tl.maximum(tl.sum(total, 0), 1e-30)
        plain_row -= middle * tl.sum(mass, 0)
        weighted_row -= middle * tl.sum(moment, 0)
        tl.store(centre + row, middle)
    tl.store(plain + row, plain_row)
    tl.store(weighted + row, weighted_row)


@triton.jit
def _at(of_rows, rows, num_rows):
    """A number for each row, as a column [ROWS, 1]."""
    return tl.load(of_rows + rows, mask=rows < num_rows, other=0)[:, None]


@triton.jit(do_not_specialize=["num_rows"])
def _gradient_kernel(
    logits,
    grads,
    logits_stride,
    grads_stride,
    num_rows,
    width,
    gamma,
    beta,
    mean,
    rstd,
    log_normaliser,
    centre,
    plain,
    weighted,
    finish,
    of_gamma,
    of_beta,
    SPAN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One program for COLUMNS words and SPAN rows: writes P and the gradient, and their sums."""
    wide = mean.dtype.element_ty
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    scale = _of_words(gamma, columns, width, 1.0)[None, :]
    shift = _of_words(beta, columns, width, 0.0)[None, :]
    gamma_sum = tl.zeros([ROWS, COLUMNS], wide)
    beta_sum = tl.zeros([ROWS, COLUMNS], wide)
    span = tl.program_id(1)
    for start in range(span * SPAN, tl.minimum(span * SPAN + SPAN, num_rows), ROWS):
        rows = start + tl.arange(0, ROWS)
        inside = (rows < num_rows)[:, None] & (columns < width)[None, :]
        at_logits = logits + rows.to(tl.int64)[:, None] * logits_stride + columns[None, :]
        at_grads = grads + rows.to(tl.int64)[:, None] * grads_stride + columns[None, :]
        row_mean, row_rstd = _at(mean, rows, num_rows), _at(rstd, rows, num_rows)
        found = tl.load(at_logits, mask=inside, other=0)
        normalised, scores = _scores(found, row_mean, row_rstd, scale, shift, inside)
        probs = tl.exp(scores - _finite(_at(log_normaliser, rows, num_rows)))
        of_probs = tl.load(at_grads, mask=inside, other=0).to(wide)
        delta = probs * (of_probs - _at(centre, rows, num_rows))
        beta_sum += delta
        gamma_sum += delta * normalised
        delta *= scale
        if finish is not None:
            delta -= _at(plain, rows, num_rows) / finish
            delta -= normalised * (_at(weighted, rows, num_rows) / finish)
            delta *= row_rstd
        tl.store(at_logits, probs, mask=inside)
        tl.store(at_grads, delta, mask=inside)
    to = span.to(tl.int64) * width + columns
    tl.store(of_gamma + to, tl.sum(gamma_sum, 0), mask=columns < width)
    tl.store(of_beta + to, tl.sum(beta_sum, 0), mask=columns < width)
