"""ALIGN's mixture: exactness, speed and memory of its implementations, side by side in one run.

    python benchmarks/align.py            on the CPU, about twenty minutes on two cores
    python benchmarks/align.py --device cuda

Writes benchmarks/results/align_<device>.json and .md. Every time is a ratio to what it is compared
with, measured in the same process, in turns; every memory figure comes from a fresh process.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from measuring import Memory, Rows, facts, read, seconds, table, write
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


def ways(device: str) -> dict[str, Choice]:
    """What is compared with eager."""
    names = ("chunked",) if device == "cpu" else ("chunked", "fused")
    return {
        f"{name} by {by}": Choice(implementation=name, chunk_by=by)
        for name in names
        for by in ("tokens", "words")
    }


def relative(found: list[Tensor], true: list[Tensor]) -> list[float]:
    """Frobenius norm of each difference over that of the true one."""
    return [
        ((f.double() - t.double()).norm() / t.double().norm()).item()
        for f, t in zip(found, true, strict=True)
    ]


def exactness(device: str) -> Rows:
    """The largest relative error of F' and the five gradients against float64.

    Four chunks of tokens, the most that are chosen in training, and features that share a mean,
    which makes the sums over the chunks grow.
    """
    sizes = {"n": 512, "d": 256, "v": 20_011}
    pieces = {"tokens": 128, "words": 2502}
    grad = torch.randn(sizes["n"], sizes["d"], dtype=torch.float64, device=device)
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        narrow = inputs(**sizes, dtype=dtype, device=device)
        with torch.no_grad():
            narrow[0].add_(2.0)
        # float64 sees the rounded inputs: only the computation's own error counts.
        exact = tuple(t.detach().double().requires_grad_() for t in narrow)
        true = run(exact, EAGER, grad.to(dtype))
        eager = relative(run(narrow, EAGER, grad), true)
        for name, choice in {"eager": EAGER, **ways(device)}.items():
            sized = replace(choice, chunk_size=pieces.get(choice.chunk_by))
            errors = relative(run(narrow, sized, grad), true)
            ratio = max(e / b for e, b in zip(errors, eager, strict=True))
            rows.append(
                {"dtype": str(dtype), "way": name, "error": max(errors), "ratio to eager": ratio}
            )
    return rows


def skipping(device: str) -> Rows:
    """What `negligible` does to time and gradients where few words are probable."""
    leaves = inputs(2048, 256, 49_152, torch.float32, device, gain=1.0)
    with torch.no_grad():
        # As in a trained connector: a prior that 7 % of the words share.
        leaves[3][::14] += 12.0
    grad = torch.randn(2048, 256, device=device)
    exact = Choice(implementation="chunked", chunk_by="words")
    true = run(leaves, exact, grad)
    base = min(seconds(lambda: run(leaves, exact, grad), device) for _ in range(3))
    rows = []
    for threshold in NEGLIGIBLE:
        choice = Choice(implementation="chunked", chunk_by="words", negligible=threshold)
        spent = min(seconds(lambda c=choice: run(leaves, c, grad), device) for _ in range(3))
        error = max(relative(run(leaves, choice, grad), true))
        rows.append({"negligible": threshold, "error": error, "time ratio": spent / base})
    return rows


def pruning(device: str) -> Rows:
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
            calls = {
                name: lambda _, c=c: c(features, embeddings=embeddings)
                for name, c in (("full", full), ("pruned", small))
            }
            spent = in_turns(calls, False, device, rounds=1)
            whole, part = (statistics.median(spent[name]) for name in ("full", "pruned"))
            error = relative(
                [small(features[:729]).visual_tokens],
                [full(features[:729], embeddings=embeddings).visual_tokens],
            )[0]
        rows.append(
            {
                "statistics of": statistics_of,
                "full, s": whole,
                "pruned, s": part,
                "speed-up": whole / part,
                "dropped mass": dropped,
                "difference": error,
            }
        )
    return rows


def speed(device: str, n: int, d: int, v: int) -> Rows:
    """Forward, and forward + backward, of every way that fits, in turns, beside the plain products.

    The operations counted are those of eager: 2 products forward, 4 more backward. What is taken
    again does not count.
    """
    leaves = inputs(n, d, v, torch.bfloat16, device)
    grad = torch.randn(n, d, device=device).bfloat16()
    calls: dict[str, Callable[[bool], Any]] = {
        name: lambda both, c=choice: run(leaves, c, grad) if both else forward(leaves, c)
        for name, choice in {"eager": EAGER, **ways(device)}.items()
    }
    if device == "cuda":
        torch._dynamo.reset()
        options = {"dynamic": False}
        both, alone = torch.compile(run, **options), torch.compile(forward, **options)
        calls["torch.compile of eager"] = lambda b: (
            both(leaves, EAGER, grad) if b else alone(leaves, EAGER)
        )
    calls["plain products"] = lambda both: plain_products(leaves, grad, both)
    rounds = 3 if device == "cpu" and n > 1000 else 5
    spent = {both: in_turns(calls, both, device, rounds) for both in (False, True)}
    rows = []
    for name in calls:
        row: dict[str, Any] = {"n": n, "d": d, "v": v, "way": name}
        for label, both, count in (("forward", False, 2), ("both", True, 6)):
            if name not in spent[both]:
                row[f"{label}, s"] = "out of memory"
                continue
            median = statistics.median(spent[both][name])
            row[f"{label}, s"] = median
            row[f"{label}, from"], row[f"{label}, to"] = (
                min(spent[both][name]),
                max(spent[both][name]),
            )
            row[f"{label}, TFLOP/s"] = count * 2 * n * v * d / median / 1e12
            for other in ("eager", "plain products"):
                if other in spent[both]:
                    ratio = median / statistics.median(spent[both][other])
                    row[f"{label}, time / {other}"] = ratio
        rows.append(row)
    return rows


def in_turns(
    calls: dict[str, Callable[[bool], Any]], both: bool, device: str, rounds: int
) -> dict[str, list[float]]:
    """Seconds of each call in every round, each round through all calls, after one to warm up."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            if name not in spent:
                continue
            try:
                took = seconds(lambda call=call: call(both), device)
            except torch.OutOfMemoryError:
                del spent[name]
                torch.cuda.empty_cache()
                continue
            if number:
                spent[name].append(took)
    return spent


def plain_products(leaves: Inputs, grad: Tensor, both: bool) -> None:
    """The products alone, of the shapes that eager has, a few hundred tokens at a time."""
    hidden, weight, table = (leaves[i].detach() for i in (0, 1, 4))
    size = max(256, 2**26 // len(weight))
    logits = hidden.new_empty(size, len(weight)).normal_()
    of_weight = torch.empty_like(weight) if both else weight
    for start in range(0, len(hidden), size):
        h, g = hidden[start : start + size], grad[start : start + size]
        part = logits[: len(h)]
        torch.mm(h, weight.t(), out=part)
        torch.mm(part, table)
        if both:
            torch.mm(g, table.t(), out=part)
            torch.mm(part, weight)
            torch.mm(part.t(), h, out=of_weight)
            torch.mm(part.t(), g, out=of_weight)


def memory(device: str, way: str, n: int, d: int, v: int) -> float:
    """Extra bytes of forward + backward beyond inputs, result and gradients; in this process."""
    leaves = inputs(n, d, v, torch.bfloat16, device)
    grad = torch.randn(n, d, device=device).bfloat16()
    choice = {"eager": EAGER, **ways(device)}[way]
    with Memory(device) as watched:
        found = run(leaves, choice, grad)
    return watched.extra_bytes - sum(t.nbytes for t in found)


def memory_rows(device: str, n: int, d: int, v: int) -> Rows:
    """`memory` of every way, each in a fresh process."""
    extra = {}
    for way in ("eager", *ways(device)):
        command = [sys.executable, __file__, "--device", device, "--memory-of", way]
        command += [str(n), str(d), str(v)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode == 0:
            extra[way] = float(done.stdout.strip().splitlines()[-1])
        elif "OutOfMemoryError" not in done.stderr:
            raise RuntimeError(done.stderr)
    rows: Rows = []
    for way, found in extra.items():
        share = found / extra["eager"] if "eager" in extra else ""
        row = {"n": n, "d": d, "v": v, "way": way, "extra, GB": found / 1e9}
        rows.append({**row, "share of eager": share})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--only", choices=SECTIONS, help="renew one section of the results")
    parser.add_argument("--memory-of", nargs=4, metavar=("WAY", "N", "D", "V"))
    options = parser.parse_args()
    if options.memory_of:
        way, *sizes = options.memory_of
        print(memory(options.device, way, *map(int, sizes)))
        return
    made = SECTIONS if options.only is None else {options.only: SECTIONS[options.only]}
    path = Path(__file__).parent / "results" / f"align_{options.device}"
    sections = {} if options.only is None else read(path)
    for name, measure in made.items():
        torch.manual_seed(0)
        where = facts(options.device)
        sections[name] = [{**row, "commit": where["commit"]} for row in measure(options.device)]
        print(f"## {name}\n\n{table(sections[name])}\n", flush=True)
        write(path, where, sections)


SECTIONS: dict[str, Callable[[str], Rows]] = {
    "Exactness against float64": exactness,
    "Skipping negligible words": skipping,
    "Pruned to 3,400 words, forward": pruning,
    "Speed, bfloat16": lambda device: [r for size in SPEED[device] for r in speed(device, *size)],
    "Extra memory of forward and backward, bfloat16": lambda device: [
        r for size in SPEED[device] for r in memory_rows(device, *size)
    ],
}


if __name__ == "__main__":
    main()
