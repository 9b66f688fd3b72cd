"""What test_fused.py runs in processes of their own: Triton's interpreter, Triton's compiler.

As a script with names of checks (and their arguments, joined by colons) it prints what each found
as JSON.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from alignvlm.connectors.mixture import rows, tokens, weight_statistics, words
from alignvlm.connectors.mixture.problem import Problem
from alignvlm.connectors.mixture.rows import Norm, RowSums

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
EPS = 1e-5

# Beside (5, 21) with every option, against blocks of 16 and 8 columns and tiles of 2 x 8.
SHAPES = [(1, 1), (4, 16)]
SMALL = {"_ROW": {"BLOCK": 16}, "_SUM": {"BLOCK": 8}, "_TILE": {"SPAN": 4, "ROWS": 2, "COLUMNS": 8}}


def shrink(fused: Any) -> None:
    """Blocks so small that a few words fill several: the interpreter is slow."""
    for name, sizes in SMALL.items():
        getattr(fused, name).update(sizes)


def patch_once() -> None:
    """Half the time of Triton's interpreter is spent replacing the functions of its language anew
    at every call of a helper inside of a kernel: here they stay replaced from the start.
    """
    from triton import language
    from triton.runtime import interpreter

    sees_both = FunctionType((lambda: None).__code__, {"tl": language, "core": language.core})
    interpreter._patch_lang(sees_both)
    interpreter._patch_lang = lambda fn: interpreter._LangPatchScope()


def error(found: Tensor, wanted: Tensor, scale: float | None = None) -> float:
    """Largest difference against the largest number; infinite where only one is finite."""
    found, wanted = found.double(), wanted.double()
    finite = wanted.isfinite()
    if not (torch.equal(found[~finite], wanted[~finite]) and bool(found[finite].isfinite().all())):
        return math.inf
    if not finite.any():
        return 0.0
    size = wanted[finite].abs().max().item() if scale is None else scale
    return (found - wanted)[finite].abs().max().item() / (size or 1.0)


def sums_error(found: RowSums, wanted: RowSums) -> float:
    scale = max(part.abs().max().item() for part in wanted)  # a sum may vanish but for rounding
    return max(error(a, b, scale) for a, b in zip(found, wanted, strict=True))


def random_norm(width: int, dtype: torch.dtype, gamma: bool, beta: str) -> list[Tensor | None]:
    shift = torch.randn(width, dtype=dtype)
    if beta == "excluding":
        shift[::3] = -math.inf
        shift[-1] = 0.5
    return [torch.randn(width, dtype=dtype) + 1 if gamma else None, shift if beta else None]


def padded(block: Tensor) -> Tensor:
    """The block inside of a larger one full of sevens, as a view with another row stride."""
    around = torch.full((len(block), block.shape[1] + 5), 7.0, dtype=block.dtype)
    around[:, 2:-3] = block
    return around


def outside(*blocks: Tensor) -> float:
    """Whether anything was written beside the blocks' insides."""
    return float(any((block[:, [0, 1, -3, -2, -1]] != 7).any() for block in blocks))


def forward_errors(fused: Any, logits: Tensor, norm: Norm) -> dict[str, float]:
    of_fused = fused.row_statistics(padded(logits)[:, 2:-3], EPS)
    wanted, found = padded(logits), padded(logits)
    normaliser = rows.softmax_(wanted[:, 2:-3], norm)
    return {
        "statistics": max(map(error, of_fused, (norm.mean, norm.rstd))),
        "log_normaliser": error(fused.softmax_(found[:, 2:-3], norm), normaliser),
        "probs": error(found, wanted),
        "outside": outside(found),
    }


def gradient_errors(
    fused: Any, logits: Tensor, norm: Norm, known: bool, finish: bool
) -> dict[str, float]:
    normaliser = rows.softmax_(logits.clone(), norm)
    grads = torch.randn_like(logits)
    centre = torch.randn_like(normaliser) if known else None
    args = (norm, normaliser, centre, logits.shape[1] if finish else None)
    again, grads_again = padded(logits), padded(grads)
    probs = logits.clone()
    wanted_sums = rows.softmax_gradient_(probs, grads, *args)
    found_sums = fused.softmax_gradient_(again[:, 2:-3], grads_again[:, 2:-3], *args)
    return {
        "probs": error(again[:, 2:-3], probs),
        "grads": error(grads_again[:, 2:-3], grads),
        "sums": sums_error(found_sums, wanted_sums),
        "outside": outside(again, grads_again),
    }


def agreement(dtype: str) -> dict[str, Any]:
    from alignvlm.connectors.mixture import fused

    shrink(fused)
    found, wide = {}, torch.promote_types(DTYPES[dtype], torch.float32)
    options = [(shape, True, "some") for shape in SHAPES]
    # Gamma and beta have the wide dtype, which the logits' own changes nothing about.
    every = dtype in ("float32", "bfloat16")
    for gamma, beta in itertools.product((False, True), ("", "some", "excluding")):
        if every or (gamma, beta) in ((False, ""), (True, "excluding")):
            options.append(((5, 21), gamma, beta))
    for shape, gamma, beta in options:
        logits = (torch.randn(shape) * 3 + 5).to(DTYPES[dtype])
        scaling = random_norm(shape[1], wide, gamma, beta)
        norm = Norm(*scaling, *rows.row_statistics(logits, EPS))
        case = f"{shape} gamma={gamma} beta={beta}"
        found[case] = forward_errors(fused, logits, norm)
        for known, finish in itertools.product((False, True), repeat=2):
            errors = gradient_errors(fused, logits, norm, known, finish)
            found[f"{case} known={known} finish={finish}"] = errors
    return found


def autograd() -> dict[str, float]:
    """Of sum G softmax(LN(l)), every gradient, with the blocks of the real thing."""
    from alignvlm.connectors.mixture import fused

    width = fused._ROW["BLOCK"] + 77
    logits = torch.randn(3, width, dtype=torch.float64) * 2 + 4
    gamma, beta = (torch.randn(width, dtype=torch.float64) for _ in "12")
    grads = torch.randn(3, width, dtype=torch.float64)
    inputs = [part.clone().requires_grad_() for part in (logits, gamma, beta)]
    # Triton takes eps as a float32, so the reference gets the same number.
    eps = torch.tensor(EPS).item()
    normalised = functional.layer_norm(inputs[0], (width,), inputs[1], inputs[2], eps)
    probs = normalised.softmax(-1)
    wanted = torch.autograd.grad((probs * grads).sum(), inputs)
    norm = Norm(gamma, beta, *fused.row_statistics(logits, EPS))
    forward = logits.clone()
    log_normaliser = fused.softmax_(forward, norm)
    sums = fused.softmax_gradient_(logits, grads, norm, log_normaliser, None, width)
    return {
        "log_normaliser": error(log_normaliser, normalised.logsumexp(-1)),
        "probs": error(forward, probs),
        "probs_again": error(logits, probs),
        "logits": error(grads, wanted[0]),
        "gamma": error(sums.gamma, wanted[1]),
        "beta": error(sums.beta, wanted[2]),
    }


def excluded_edges(fused: Any) -> dict[str, bool]:
    logits, grads = torch.randn(4, 40), torch.randn(4, 40)
    beta = torch.full((40,), -math.inf)
    norm = Norm(None, beta, torch.zeros(4), torch.ones(4))
    probs = logits.clone()
    normaliser = fused.softmax_(probs, norm)
    sums = fused.softmax_gradient_(logits, grads, norm, normaliser, None, None)
    some = torch.randn(40)
    some[5:30] = -math.inf
    part, part_grads = torch.randn(4, 40), torch.randn(4, 40)
    norm = Norm(torch.randn(40), some, *fused.row_statistics(part, EPS))
    normaliser_of_some = fused.softmax_(part.clone(), norm)
    of_some = fused.softmax_gradient_(part, part_grads, norm, normaliser_of_some, None, None)
    return {
        "nothing left: normaliser": bool((normaliser == -math.inf).all()),
        "nothing left: P": bool((probs == 0).all() and (logits == 0).all()),
        "nothing left: gradients": not any(part.any() for part in (grads, *sums)),
        "excluded words: P": not part[:, 5:30].any() and bool((part[:, 30:] > 0).all()),
        "excluded words: gradients": not part_grads[:, 5:30].any(),
        "excluded words: gamma and beta": not any(s[5:30].any() for s in of_some[2:]),
    }


def statistics_edges(fused: Any) -> dict[str, bool]:
    far = torch.randn(3, 50) + 1e4  # E[l^2] - E[l]^2 would be off by several times the variance
    step = torch.randn(3, 50)
    step[:, :16] += 1e4  # only the first block, whose mean is the shift
    mean, rstd = fused.row_statistics(torch.cat([far, step]), EPS)
    exact = rows.row_statistics(torch.cat([far, step]).double(), EPS)
    same_mean, same_rstd = fused.row_statistics(torch.full((2, 50), 3.3), EPS)
    return {
        "large mean": error(mean, exact[0]) < 1e-6 and error(rstd[:3], exact[1][:3]) < 1e-5,
        "step": error(rstd[3:], exact[1][3:]) < 1e-5,
        "no variance": error(same_rstd, torch.full((2,), EPS**-0.5)) < 1e-3
        and error(same_mean, torch.full((2,), 3.3)) < 1e-6,
    }


def edges() -> dict[str, bool]:
    from alignvlm.connectors.mixture import fused
    from alignvlm.errors import ConfigurationError

    shrink(fused)
    huge = torch.tensor([[-3e4, 3e4, 2.9e4] * 9] * 2)
    broken = torch.randn(3, 40)
    broken[1, 33] = math.nan
    normaliser = fused.softmax_(huge, Norm(None, None, torch.zeros(2), torch.ones(2)))
    norm = Norm(None, None, *fused.row_statistics(broken, EPS))
    fused.softmax_(broken, norm)
    empty, none = torch.empty(0, 40), torch.empty(0)
    of_none = Norm(None, None, none, none)
    sums = fused.softmax_gradient_(empty, empty.clone(), of_none, none, None, 40)
    try:
        refused = bool(fused.row_statistics(torch.randn(4, 3).t(), EPS))
    except ConfigurationError as problem:
        refused = "4 numbers apart" not in str(problem) and "3 numbers apart" in str(problem)
    return {
        "huge scores": error(normaliser, torch.full((2,), 3e4 + math.log(9))) < 1e-6
        and error(huge[:, 1::3], torch.full((2, 9), 1 / 9)) < 1e-6,
        "NaN stays in its row": broken[1].isnan().all().item() and not broken[::2].isnan().any(),
        "no rows": len(sums.plain) == 0 and sums.gamma.shape == (40,) and not sums.gamma.any(),
        "columns apart": refused,
        **{name: bool(holds) for name, holds in statistics_edges(fused).items()},
        **{name: bool(holds) for name, holds in excluded_edges(fused).items()},
    }


def compiled(kernel: Any, types: dict[str, str], constants: Any, architecture: int) -> Any:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    options = {name: constants.pop(name) for name in ("num_warps", "enable_fp_fusion")}
    signature = {
        name: "constexpr" if name in constants else types.get(name, types["statistics"])
        for name in kernel.arg_names
    }
    # As at a call with a vocabulary that 16 divides: pointers and widths are known to be aligned.
    attributes = {
        (index,): [["tt.divisibility", 16]]
        for index, (name, kind) in enumerate(signature.items())
        if kind != "constexpr" and name not in ("eps", "num_rows")
    }
    source = ASTSource(kernel, signature, constants, attributes)
    target = GPUTarget("cuda", architecture, 32)
    result = triton.compile(source, target=target, options=options)
    return {
        "stack": stack_bytes(result.asm["cubin"]),
        "strides": re.findall(r"^ *%\w+ = (.*%\w*stride\b.*?) loc", result.asm["ttir"], re.M),
    }


def stack_bytes(cubin: bytes) -> int:
    """Bytes of stack a thread has, where ptxas puts what the registers cannot hold."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        report = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True)
    return max(int(number) for number in re.findall(r"STACK:(\d+)", report.stdout))


def compiler(dtype: str, architecture: str) -> dict[str, Any]:
    from alignvlm.connectors.mixture import fused

    integers = ("stride", "logits_stride", "grads_stride", "num_rows", "width", "finish")
    wide = "*fp64" if dtype == "fp64" else "*fp32"
    types = {"logits": f"*{dtype}", "grads": f"*{dtype}", "eps": "fp32", "statistics": wide}
    types |= dict.fromkeys(integers, "i32")
    plain = {"gamma": None, "beta": None}
    calls = {
        "statistics": (fused._statistics_kernel, fused._ROW),
        "softmax": (fused._softmax_kernel, fused._ROW),
        "softmax, plain": (fused._softmax_kernel, fused._ROW | plain),
        "sums": (fused._sums_kernel, fused._SUM | {"KNOWN": False}),
        "sums, known": (fused._sums_kernel, fused._SUM | {"KNOWN": True}),
        "sums, plain": (fused._sums_kernel, fused._SUM | {"KNOWN": False} | plain),
        "gradient": (fused._gradient_kernel, fused._TILE),
        "gradient, unfinished": (fused._gradient_kernel, fused._TILE | {"finish": None}),
        "gradient, plain": (fused._gradient_kernel, fused._TILE | plain),
    }
    if dtype != "bf16":  # the plain ones need fewer registers than the others
        calls = {name: call for name, call in calls.items() if not name.endswith("plain")}
    return {
        name: compiled(kernel, types, dict(constants), int(architecture))
        for name, (kernel, constants) in calls.items()
    }


def mixture() -> dict[str, float]:
    """F' and its gradients in chunks of tokens and of words, with either kind of kernels."""
    from alignvlm.connectors.mixture import fused

    shrink(fused)
    hidden, grad = torch.randn(7, 4), torch.randn(7, 4)
    weight, table, gamma, beta = (torch.randn(*s) for s in ((23, 4), (23, 4), (23,), (23,)))
    problem = Problem(hidden, weight, None, gamma, beta, table, EPS)
    needed = (True, True, False, True, True, True)
    known = weight_statistics(weight)
    found = {}
    for by in ("tokens", "words"):
        results = []
        for kernels in (rows, fused):
            if by == "tokens":
                out, kept = tokens.forward(problem, kernels, 3)
                back = tokens.backward(problem, kernels, 3, kept, grad, needed)
            else:
                out, kept = words.forward(problem, kernels, 9, known)
                centre = (out * grad).sum(-1)
                back = words.backward(
                    problem, kernels, 9, known, kept, centre, grad, needed, negligible=0.0
                )
            results.append([out, kept.log_normaliser, *(g for g in back if g is not None)])
        pairs = zip(*results, strict=True)
        found |= {f"{by} {i}": error(new, old) for i, (old, new) in enumerate(pairs)}
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "TRITON_INTERPRET" in os.environ:
        patch_once()
    checks = {
        "agreement": agreement,
        "autograd": autograd,
        "edges": edges,
        "mixture": mixture,
        "compiler": compiler,
    }
    results = {}
    for call in sys.argv[1:]:
        name, *args = call.split(":")
        torch.manual_seed(0)
        results[call] = checks[name](*args)
    print(json.dumps(results))
