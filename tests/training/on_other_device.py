"""What a GPU would be asked to do, on the CPU and on a stand-in for one; run in a process alone."""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tiny_stages
import tiny_vlm as tiny
import torch
from PIL import Image
from tiny_task import tiny_config

from alignvlm.connectors import available
from alignvlm.model import AlignVLMProcessor
from alignvlm.training.loop import train
from alignvlm.training.task import Share, Task
from alignvlm.training.tracking import read_log

OTHER = "other"


def losses(task: Task, config: Any, folder: Path | None = None, stop_at: int = 0) -> list[float]:
    """Of a run, up to a step or its end."""

    def on_step(step: int) -> None:
        if step == stop_at:
            signal.raise_signal(signal.SIGTERM)

    run = folder or Path(tempfile.mkdtemp())
    train(task, config, run, on_step=on_step)
    return [record["loss"] for record in read_log(run)]


def one_step(connector: str, device: str, **options: Any) -> dict[str, Any]:
    """Loss and gradients of a row, and what the connector's health is made of."""
    task = tiny.make_task(model=tiny.make_model(connector, **options))
    row = next(iter(task.micro_batches(tiny.config(), 0, Share())))
    task.module.to(device)
    tensors = {name: tensor.to(device) for name, tensor in row.tensors.items()}
    loss = task.loss(tensors).total
    loss.backward()
    named = task.module.named_parameters()
    norms = {name: p.grad.norm().item() for name, p in named if p.grad is not None}
    return {"loss": loss.item(), "norms": norms, "health": task.inspect(tensors)}


def trained(device: str, precision: str) -> list[float]:
    config = tiny.config(
        device=device, precision=precision, learning_rate=1e-5, num_steps=3, inspect_every=2,
        evaluate_every=2,
    )  # fmt: skip
    return losses(tiny.make_task(), config)


def resumed(devices: tuple[str, str]) -> list[float]:
    """Two steps on one device and two on another."""
    run = Path(tempfile.mkdtemp())
    for stop_at, device in zip((2, 0), devices, strict=True):
        config = tiny.config(device=device, learning_rate=1e-5, num_steps=4)
        found = losses(tiny.make_task(), config, run, stop_at)
    return found


def staged(make: Callable[[], Task], device: str) -> list[float]:
    return losses(make(), tiny_config(num_steps=2, device=device, learning_rate=1e-5))


def answered(device: str, dtype: torch.dtype, *, pruned: bool = False) -> list[list[int]]:
    """Greedy tokens after two pages of unlike sizes."""
    model = tiny.make_model().eval().to(device, dtype)
    if pruned:
        probabilities = torch.linspace(1, 0, 264)
        model.prune_connector(probabilities / probabilities.sum(), keep=100)
    processor: Any = AlignVLMProcessor.build(tiny.make_tokenizer(), model.config)
    noise = np.random.default_rng(0)
    pages = [
        Image.fromarray(noise.integers(0, 255, (height, 60, 3), dtype=np.uint8))
        for height in (40, 90)
    ]
    prompts = [
        f"<|im_start|>user\n{processor.image_token}{'hi' * number}<|im_end|>\n" for number in (1, 2)
    ]
    inputs = processor(images=pages, text=prompts, padding=True, return_tensors="pt").to(device)
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    made = model.generate(**inputs, max_new_tokens=5, do_sample=False)
    found: list[list[int]] = made.cpu()[:, -5:].tolist()
    return found


def strays() -> str:
    """What a tensor that nobody sent to the device leads to."""
    task = tiny.make_task(model=tiny.make_model("mlp"))
    row = next(iter(task.micro_batches(tiny.config(), 0, Share())))
    task.module.to(OTHER)
    task.module.model.connector.register_forward_pre_hook(
        lambda _, given: (given[0] + torch.zeros(given[0].shape[-1]), *given[1:])
    )
    try:
        task.loss({name: tensor.to(OTHER) for name, tensor in row.tensors.items()})
    except RuntimeError as error:
        return str(error)
    return ""


def compare(path: Path) -> None:
    """Writes {what: [on the CPU, on the other device]} as JSON."""
    import other_device  # noqa: F401, makes the device known; autograd counts devices once

    torch.set_num_threads(1)
    here: dict[str, Any] = {}
    there: dict[str, Any] = {}
    for found, device in ((here, "cpu"), (there, OTHER)):
        for connector in available():
            found[f"one step, {connector}"] = one_step(connector, device)
        for by in ("tokens", "words"):
            options = {"implementation": "chunked", "chunk_by": by}
            found[f"one step, align by {by}"] = one_step("align", device, **options)
        for precision in ("float32", "bfloat16"):
            found[f"trained, {precision}"] = trained(device, precision)
        found["read"] = staged(tiny_stages.grounded_task, device)
        found["answer"] = staged(tiny_stages.instruct_task, device)
        found["from CPU"] = resumed(("cpu", device))
        found["to CPU"] = resumed((device, "cpu"))
        found["answered, float32"] = answered(device, torch.float32)
        found["answered, bfloat16"] = answered(device, torch.bfloat16)
        found["answered, pruned"] = answered(device, torch.float32, pruned=True)
    results = {name: [here[name], there[name]] for name in here}
    path.write_text(json.dumps(results | {"strays": ["", strays()]}))
