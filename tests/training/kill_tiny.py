"""Trains a tiny run, killing it again and again, until enough kills have hit.

Everything heavy is imported once; each attempt is a fork of this process, which itself never
computes anything. Arguments: a folder, then JSON: {"kills": ..., "num_workers": ..., "seed": ...}.
Prints JSON: for each phase of a run how many kills hit it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import peft  # noqa: F401, half a second in every fork otherwise
import tiny_vlm as tiny
import torch
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


def fork(action: Callable[[], None]) -> int:
    """Process id of a copy of this process that does this and ends."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        action()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def finish(child: int) -> None:
    """Waits for a process that nobody kills."""
    _, status = os.waitpid(child, 0)
    if status != 0:
        sys.exit(f"A run that nobody killed ended with {status}")


def is_saving(run: Path) -> bool:
    return any(run.glob(".step-*.part"))


def kill_somewhere(child: int, run: Path, rng: random.Random, early_s: float) -> str | None:
    """Kills the process early, within a save, or after one; the phase, None if it was done."""
    aim = rng.choice(("early", "saving", "saved")) if run.exists() else "early"
    before, start = set(run.glob("step-*")), time.monotonic()
    delay = rng.random() * {"early": early_s, "saving": 0.01, "saved": 0.05}[aim]
    while time.monotonic() < start + PATIENCE_S:
        has_saved = set(run.glob("step-*")) != before
        if aim == "early" or (has_saved and (aim == "saved" or is_saving(run))):
            break
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return ended(status)
        time.sleep(0.0005)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        return ended(status)
    if is_saving(run):
        return "saving"
    return "between saves" if any(run.glob("step-*")) else "before a checkpoint"


def ended(status: int) -> None:
    if status != 0:
        sys.exit(f"A run that went on ended with {status}")


def main() -> None:
    folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    workers, rng = options["num_workers"], random.Random(options["seed"])
    finish(fork(lambda: prepare(folder)))
    start = time.monotonic()
    finish(fork(lambda: whole_run(folder, folder / "whole", workers)))
    seconds = 0.5 * (time.monotonic() - start)
    phases: Counter[str] = Counter()
    runs: list[str] = []

    def wants_more() -> bool:
        return sum(phases.values()) < options["kills"] or len(phases) < NUM_PHASES

    while wants_more():
        run = folder / f"killed-{len(runs)}"
        phase: str | None = ""
        while phase is not None and wants_more():
            child = fork(lambda run=run: whole_run(folder, run, workers))
            phase = kill_somewhere(child, run, rng, seconds)
            if phase is not None:
                phases[phase] += 1
        if phase is not None:
            finish(fork(lambda run=run: whole_run(folder, run, workers)))
        runs.append(run.name)
    print(json.dumps({"phases": phases, "runs": runs}))


if __name__ == "__main__":
    main()
