"""ALIGN's mixture: exactness, speed and memory of its implementations, side by side in one run.

    python benchmarks/align.py            on the CPU, about ten minutes on two cores
    python benchmarks/align.py --device cuda

Writes benchmarks/results/align_<device>.json and .md. Every time is a ratio to what it is compared
with, measured in the same process, in turns; every memory figure comes from a fresh process.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measuring import Memory, environment, seconds, table, write
from torch import Tensor

from alignvlm.connectors import Align, prune
from alignvlm.connectors.mixture import Choice, mix

EAGER = Choice(implementation="eager")
SPEED = {  # the sizes of the bars: tokens, width, words
    "cpu": [(2916, 2048, 128_256), (729, 576, 49_152)],
    "cuda": [(n, d, 128_256) for d in (2048, 3072, 4096) for n in (6561, 52_488)],
}
NEGLIGIBLE = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4)
Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def inputs(n: int, d: int, v: int, dtype: torch.dtype, device: str, gain: float = 2.0) -> Inputs:
    """h, W2, gamma, beta and E, leaves that require gradients; W2 and E as far apart as random."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device, dtype=torch.float32)

    wide = torch.promote_types(dtype, torch.float32)
    hidden, weight = normal(n, d).to(dtype), normal(v, d).mul_(0.03).to(dtype)
    gamma, beta = normal(v).mul_(0.3).add_(gain).to(wide), normal(v).mul_(0.3).to(wide)
    table = normal(v, d).mul_(0.03).to(dtype)
    return tuple(t.requires_grad_() for t in (hidden, weight, gamma, beta, table))  # type: ignore


def run(leaves: Inputs, choice: Choice, grad: Tensor) -> list[Tensor]:
    """F' and the gradients of all five."""
    hidden, weight, gamma, beta, embeddings = leaves
    out = mix(hidden, weight, embeddings, gamma=gamma, beta=beta, choice=choice)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad.to(out.dtype))]


def forward(leaves: Inputs, choice: Choice) -> Tensor:
    """F' without a graph."""
    with torch.no_grad():
        hidden, weight, gamma, beta, embeddings = leaves
        return mix(hidden, weight, embeddings, gamma=gamma, beta=beta, choice=choice)


def ways(device: str, tokens: int, width: int) -> dict[str, Choice]:
    """What is compared with eager."""
    names = ("chunked",) if device == "cpu" else ("chunked", "fused")
    by = ("tokens", "words") if tokens >= width or device == "cuda" else ("tokens",)
    return {f"{n} by {b}": Choice(implementation=n, chunk_by=b) for n in names for b in by}


def relative(found: list[Tensor], true: list[Tensor]) -> list[float]:
    """Frobenius norm of each difference over that of the true one."""
    return [
        ((f.double() - t.double()).norm() / t.double().norm()).item()
        for f, t in zip(found, true, strict=True)
    ]


def exactness(device: str) -> list[dict[str, Any]]:
    """The largest relative error of F' and the five gradients against float64."""
    sizes = {"n": 515, "d": 256, "v": 20_011}
    leaves = inputs(**sizes, dtype=torch.float64, device=device)
    grad = torch.randn(sizes["n"], sizes["d"], dtype=torch.float64, device=device)
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        narrow = inputs(**sizes, dtype=dtype, device=device)
        # float64 sees the rounded inputs: only the computation's own error counts.
        exact = tuple(t.detach().double().requires_grad_() for t in narrow)
        true = run(exact, EAGER, grad.to(dtype))
        eager = relative(run(narrow, EAGER, grad), true)
        for name, choice in {"eager": EAGER, **ways(device, 515, 256)}.items():
            errors = relative(run(narrow, choice, grad), true)
            ratio = max(e / b for e, b in zip(errors, eager, strict=True))
            rows.append(
                {"dtype": str(dtype), "way": name, "error": max(errors), "ratio to eager": ratio}
            )
    del leaves
    return rows


def skipping(device: str) -> list[dict[str, Any]]:
    """What `negligible` does to time and gradients where few words are probable."""
    leaves = inputs(2048, 256, 49_152, torch.float32, device, gain=1.0)
    with torch.no_grad():
        # As in a trained connector: a prior that 7 % of the words share.
        leaves[3][::14] += 12.0
    grad = torch.randn(2048, 256, device=device)
    exact = Choice(implementation="chunked", chunk_by="words")
    true = run(leaves, exact, grad)
    base = seconds(lambda: run(leaves, exact, grad), device)
    rows = []
    for threshold in NEGLIGIBLE:
        choice = Choice(implementation="chunked", chunk_by="words", negligible=threshold)
        spent = seconds(lambda choice=choice: run(leaves, choice, grad), device)
        error = max(relative(run(leaves, choice, grad), true))
        rows.append({"negligible": threshold, "error": error, "time ratio": spent / base})
    return rows


def pruning(device: str) -> list[dict[str, Any]]:
    """The whole connector at V = 128,256 and pruned to 3,400 words, N = 6561."""
    torch.manual_seed(0)
    n, d, width, v = 6561, 1152, 3072, 128_256
    with torch.device(device):
        full = Align(d, width, v, gain=2.0).bfloat16().eval()
        full.w2.weight.data.normal_(std=0.03)
        # As in a trained connector: a prior that 3,400 words share.
        full.norm_v.bias.data[:3400] += 10.0
        features, embeddings = torch.randn(n, d).bfloat16(), torch.randn(v, width).bfloat16()
    with torch.no_grad():
        probabilities = full.probabilities(features[:64]).mean(0)
    rows = []
    for statistics_of in ("all", "kept"):
        small, _, dropped = prune(
            full, probabilities, keep=3400, embeddings=embeddings, statistics_of=statistics_of
        )
        with torch.no_grad():
            spent = [
                seconds(lambda c=c: c(features, embeddings=embeddings), device, repeats=r)
                for c, r in ((full, 1), (small, 5), (full, 1))
            ]
            error = relative(
                [small(features[:729]).visual_tokens],
                [full(features[:729], embeddings=embeddings).visual_tokens],
            )[0]
        rows.append(
            {
                "statistics of": statistics_of,
                "full, s": min(spent[0], spent[2]),
                "pruned, s": spent[1],
                "speed-up": min(spent[0], spent[2]) / spent[1],
                "dropped mass": dropped,
                "difference": error,
            }
        )
    return rows


def speed(device: str, n: int, d: int, v: int) -> list[dict[str, Any]]:
    """Forward, and forward + backward, of every way that fits, beside the plain products."""
    leaves = inputs(n, d, v, torch.bfloat16, device)
    grad = torch.randn(n, d, device=device).bfloat16()
    products = 2 * n * v * d
    rate = products / seconds(plain_product(leaves), device)
    compared: dict[str, Callable[[bool], Any]] = {}
    if device == "cpu" or 12 * n * v < 60e9:
        compared["eager"] = lambda both: (
            run(leaves, EAGER, grad) if both else forward(leaves, EAGER)
        )
    if device == "cuda" and 12 * n * v < 60e9:
        compiled = torch.compile(lambda: run(leaves, EAGER, grad))
        compiled_forward = torch.compile(lambda: forward(leaves, EAGER))
        compared["torch.compile of eager"] = lambda both: compiled() if both else compiled_forward()
    for name, choice in ways(device, n, d).items():
        compared[name] = lambda both, c=choice: run(leaves, c, grad) if both else forward(leaves, c)
    rows = []
    turns = 1 if device == "cpu" and n > 1000 else 3
    for name, call in compared.items():
        row: dict[str, Any] = {"n": n, "d": d, "v": v, "way": name}
        row["forward, s"] = seconds(lambda call=call: call(False), device, repeats=turns)
        row["both, s"] = seconds(lambda call=call: call(True), device, repeats=turns)
        # Forward: W2 h and P E. Backward: their four gradients. Products taken again do not count.
        row["forward, TFLOP/s"] = 2 * products / row["forward, s"] / 1e12
        row["both, TFLOP/s"] = 6 * products / row["both, s"] / 1e12
        row["forward, share of plain"] = row["forward, TFLOP/s"] * 1e12 / rate
        row["both, share of plain"] = row["both, TFLOP/s"] * 1e12 / rate
        rows.append(row)
    for row in rows:
        row["both, ratio to eager"] = row["both, s"] / rows[0]["both, s"]
        row["plain, TFLOP/s"] = rate / 1e12
    return rows


def plain_product(leaves: Inputs) -> Callable[[], Tensor]:
    """W2 h for as many tokens as fit into a tensor of 2 GB."""
    hidden, weight = leaves[0].detach(), leaves[1].detach()
    pieces = hidden.split(max(1, 10**9 // len(weight)))
    out = hidden.new_empty(len(pieces[0]), len(weight))
    return lambda: [torch.mm(p, weight.t(), out=out[: len(p)]) for p in pieces][-1]


def memory(device: str, way: str, n: int, d: int, v: int) -> float:
    """Extra bytes of forward + backward beyond inputs, result and gradients; in this process."""
    leaves = inputs(n, d, v, torch.bfloat16, device)
    grad = torch.randn(n, d, device=device).bfloat16()
    choice = {"eager": EAGER, **ways(device, n, d)}[way]
    known = sum(t.nbytes for t in leaves) + grad.nbytes
    with Memory(device) as watched:
        found = run(leaves, choice, grad)
    del known
    return watched.extra_bytes - sum(t.nbytes for t in found)


def memory_rows(device: str, n: int, d: int, v: int) -> list[dict[str, Any]]:
    """`memory` of every way, each in a fresh process."""
    rows = []
    for way in ("eager", *ways(device, n, d)):
        if way == "eager" and device == "cuda" and 12 * n * v >= 60e9:
            continue
        command = [sys.executable, __file__, "--device", device, "--memory-of", way]
        command += [str(n), str(d), str(v)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        extra = float(done.stdout.strip().splitlines()[-1])
        rows.append({"n": n, "d": d, "v": v, "way": way, "extra, GB": extra / 1e9})
        rows[-1]["share of eager"] = rows[-1]["extra, GB"] / rows[0]["extra, GB"]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--memory-of", nargs=4, metavar=("WAY", "N", "D", "V"))
    options = parser.parse_args()
    if options.memory_of:
        way, *sizes = options.memory_of
        print(memory(options.device, way, *map(int, sizes)))
        return
    sections: dict[str, list[dict[str, Any]]] = {}
    for name, made in {
        "Exactness against float64": lambda: exactness(options.device),
        "Skipping negligible words": lambda: skipping(options.device),
        "Pruned to 3,400 words, forward": lambda: pruning(options.device),
        "Speed, bfloat16": lambda: [
            row for size in SPEED[options.device] for row in speed(options.device, *size)
        ],
        "Extra memory of forward and backward, bfloat16": lambda: [
            row for size in SPEED[options.device] for row in memory_rows(options.device, *size)
        ],
    }.items():
        sections[name] = made()
        print(f"## {name}\n\n{table(sections[name])}\n", flush=True)
    folder = Path(__file__).parent / "results"
    write(folder / f"align_{options.device}", environment(options.device), sections)


if __name__ == "__main__":
    main()
