"""Tiny runs that are killed: by others again and again, until enough have hit; by themselves."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path

import tiny_task
import tiny_vlm as tiny
import torch
import warm
from PIL import Image

from alignvlm.training.configuration import (
    BatchConfig,
    DataPart,
    LoraConfig,
    ModelConfig,
    OptimizerConfig,
    Rates,
    RunConfig,
)
from alignvlm.training.loop import train
from alignvlm.training.runs import open_run

NUM_STEPS = 10
NUM_PHASES = 3
PATIENCE_S = 300.0


def run_config(folder: Path, num_workers: int) -> RunConfig:
    """Weighted sources of unlike rows, packing, several epochs, adapters with dropout."""
    return RunConfig(
        recipe="kills",
        model=ModelConfig(pretrained=str(folder / "pretrained")),
        rates=Rates(vision=1e-3, connector=2e-3, llm=3e-3),
        data=(
            DataPart(source="messages", path=str(folder / "pages.jsonl"), weight=2.0),
            DataPart(source="llava", path=str(folder / "talks.json"), weight=1.0),
        ),
        batches=BatchConfig(num_samples=5, max_tokens=200, max_tiles=10, max_text_tokens=90),
        optimizer=OptimizerConfig(warmup_ratio=0.2),
        lora=LoraConfig(rank=2, alpha=4, dropout=0.2),
        num_steps=NUM_STEPS,
        precision="float32",
        num_workers=num_workers,
        checkpoint_every=2,
        inspect_every=4,
        max_bad_share=0.5,
    )


def prepare(folder: Path) -> None:
    """A model, and data with a row that is broken and a page that is damaged."""
    model = tiny.make_model()
    model.save_pretrained(folder / "pretrained")
    tiny.AlignVLMProcessor.build(tiny.make_tokenizer(), model.config).save_pretrained(
        folder / "pretrained"
    )
    rng = random.Random(0)
    rows = []
    for number in range(11):
        size = (rng.randrange(10, 70), rng.randrange(10, 70))
        color = tuple(rng.randrange(256) for _ in range(3))
        Image.new("RGB", size, color).save(folder / f"{number}.png")
        content = [{"type": "image"}, {"type": "text", "text": f"What is {number}?"}]
        answer = [{"type": "text", "text": "a" * rng.randrange(1, 20)}]
        messages = [
            {"role": "user", "content": content},
            {"role": "assistant", "content": answer},
        ]
        rows.append(json.dumps({"messages": messages, "images": [f"{number}.png"]}))
    rows[4] = rows[4][:20]
    damaged = folder / "7.png"
    damaged.write_bytes(damaged.read_bytes()[:-30])
    (folder / "pages.jsonl").write_text("\n".join(rows) + "\n")
    talks = [
        {"conversations": [{"from": "human", "value": "q" * rng.randrange(3, 30)},
                           {"from": "gpt", "value": f"a {number}"}] * rng.randrange(1, 3)}
        for number in range(6)
    ]  # fmt: skip
    (folder / "talks.json").write_text(json.dumps(talks))


def whole_run(folder: Path, run: Path, num_workers: int) -> None:
    torch.set_num_threads(1)
    config = run_config(folder, num_workers)
    task, settings = open_run(config, "cpu")
    train(task, settings, run, max_bad_share=config.max_bad_share)


def kill_until(folder: Path, num_kills: int, num_workers: int) -> tuple[Counter[str], list[Path]]:
    """Kills runs and has them go on, until that many kills have hit, every phase among them.

    Args:
        folder: as `prepare` left it; a run that nobody kills is made in `whole`.
        num_kills: that hit a process at work.
        num_workers: of each run.

    Returns:
        For each phase of a run how many kills hit it, and the folders of the runs, all complete.
    """
    rng = random.Random(20250203)
    whole = launch(folder, folder / "whole", num_workers)
    start = time.monotonic()
    finish(whole)
    seconds = 0.5 * (time.monotonic() - start)
    phases: Counter[str] = Counter()
    runs: list[Path] = []

    def wants_more() -> bool:
        return phases.total() < num_kills or len(phases) < NUM_PHASES

    while wants_more():
        run = folder / f"killed-{len(runs)}"
        phase: str | None = ""
        while phase is not None and wants_more():
            phase = kill_somewhere(launch(folder, run, num_workers), run, rng, seconds)
            if phase is not None:
                phases[phase] += 1
        if phase is not None:
            finish(launch(folder, run, num_workers))
        runs.append(run)
    return phases, runs


def launch(folder: Path, run: Path, num_workers: int) -> BaseProcess:
    stderr = run.with_name(f"{run.name}.stderr")
    return warm.start(whole_run, folder, run, num_workers, stderr=stderr)


def finish(process: BaseProcess) -> None:
    """Waits for a process that nobody kills."""
    process.join(PATIENCE_S)
    assert process.exitcode == 0, f"A run that nobody killed ended with {process.exitcode}"


def is_saving(run: Path) -> bool:
    return any(run.glob(".step-*.part"))


def kill_somewhere(
    process: BaseProcess, run: Path, rng: random.Random, early_s: float
) -> str | None:
    """Kills the process early, within a save, or after one; the phase, None if it was done."""
    aim = rng.choice(("early", "saving", "saved")) if run.exists() else "early"
    before, start = set(run.glob("step-*")), time.monotonic()
    delay = rng.random() * {"early": early_s, "saving": 0.01, "saved": 0.05}[aim]
    while process.is_alive() and time.monotonic() < start + PATIENCE_S:
        has_saved = set(run.glob("step-*")) != before
        if aim == "early" or (has_saved and (aim == "saved" or is_saving(run))):
            break
        time.sleep(0.001)
    time.sleep(delay)
    process.kill()
    process.join()
    if process.exitcode != -signal.SIGKILL:
        finish(process)
        return None
    if is_saving(run):
        return "saving"
    return "between saves" if any(run.glob("step-*")) else "before a checkpoint"


def killed_with_a_part_of_the_model(run: Path, is_in_place: bool) -> None:
    """Ends with the weights on disk and without the processor, or before it could tidy up."""
    torch.set_num_threads(1)
    real = shutil.rmtree

    def rmtree(path: Path, **options: bool) -> None:
        if path.name.startswith(".model."):
            os.kill(os.getpid(), signal.SIGKILL)
        real(path, **options)

    if is_in_place:
        shutil.rmtree = rmtree
    else:
        tiny.AlignVLMProcessor.save_pretrained = lambda *_, **__: os.kill(
            os.getpid(), signal.SIGKILL
        )
    train(tiny.make_task(), tiny.config(checkpoint_every=2), run)


def killed_after(step: int, run: Path) -> None:
    """Ends after so many steps of the tiny task."""
    torch.set_num_threads(1)

    def on_step(done: int) -> None:
        if done == step:
            os.kill(os.getpid(), signal.SIGKILL)

    train(tiny_task.TinyTask(), tiny_task.tiny_config(), run, on_step=on_step)
