"""Trains the tiny model in this process, for tests that start several or end one.

Arguments: run folder, then JSON: {"config": ..., "batches": ..., "samples": ..., "kill_at": ...,
"stop_at": ..., "evaluate": ...}.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import tiny_vlm
import torch

from alignvlm.errors import AlignVLMError
from alignvlm.training.loop import train


def main() -> None:
    torch.set_num_threads(1)
    run, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    drawn = options.get("samples", {})
    samples = tiny_vlm.DrawnSamples(
        broken=frozenset(drawn.get("broken", ())),
        damaged=frozenset(drawn.get("damaged", ())),
        alternate=drawn.get("alternate", False),
    )
    if options.get("config", {}).get("sharding") == "zero3":
        _without_kernels()
    task = tiny_vlm.make_task(samples, **options.get("batches", {}))
    kill_at, stop_at = options.get("kill_at"), options.get("stop_at")

    def on_step(step: int) -> None:
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if step == stop_at and int(os.environ.get("RANK", 0)) == 0:
            signal.raise_signal(signal.SIGTERM)

    config = tiny_vlm.config(**options.get("config", {}))
    evaluate = tiny_vlm.evaluate if options.get("evaluate") else None
    try:
        train(task, config, run, on_step=on_step, evaluate=evaluate)
    except AlignVLMError as error:
        sys.exit(str(error))


def _without_kernels() -> None:
    """DeepSpeed would compile its collectives of one machine, for minutes; gloo has the same."""
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


if __name__ == "__main__":
    main()
