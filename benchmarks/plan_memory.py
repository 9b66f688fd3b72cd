"""The memory that `alignvlm plan` states, beside what torch holds in a real step.

    python benchmarks/plan_memory.py                  on the CPU, a few minutes
    python benchmarks/plan_memory.py --device cuda    on one GPU

Models have random weights, real widths and, on the CPU, fewer layers. On the CPU the tensors that
autograd saves are added up, which is the same on every device; on a GPU the allocator's peak over
forward pass, backward pass and AdamW is compared with the whole plan, its reserve left out. Writes
benchmarks/results/plan_memory.json and .md, on a GPU plan_memory_cuda.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch
from measuring import facts, write
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor
from torch.nn import functional

from alignvlm.model.configuration import AlignVLMConfig
from alignvlm.model.modeling import AlignVLMForConditionalGeneration
from alignvlm.training import overrides, recipes
from alignvlm.training.configuration import RunConfig
from alignvlm.training.cost.activations import Row, activations
from alignvlm.training.cost.architecture import architecture
from alignvlm.training.cost.memory import count_parameters, fullest_row, held_states, memory
from alignvlm.training.vlm import part_of

# (recipe, layers of encoder and language model, tiles, text tokens, settings)
ON_CPU = [
    ("smol", None, 1, 128, []),
    ("smol", None, 1, 128, ["model.connector.name=mlp"]),
    ("smol", None, 1, 128, ["lora=none", "precision=float32"]),
    ("smol", None, 1, 128, ["model.gradient_checkpointing=true"]),
    ("llama-3.2-1b-stage2", 2, 1, 300, ["model.gradient_checkpointing=false"]),
    ("llama-3.2-1b-stage2", 3, 2, 600, []),
    ("llama-3.2-1b-stage3", 2, 1, 300, ["model.gradient_checkpointing=false"]),
    ("low-resource-pretrain", 2, 1, 300, ["model.gradient_checkpointing=false"]),
    ("llama-3.2-3b-lora", 2, 1, 300, ["model.gradient_checkpointing=false"]),
]
ON_CUDA = [
    ("smol", None, 2, 512, []),
    ("llama-3.2-1b-stage2", None, 4, 1024, ["sharding=none"]),
    ("llama-3.2-1b-stage2", None, 4, 1024, ["sharding=none", "model.gradient_checkpointing=false"]),
    ("llama-3.2-1b-stage3", None, 14, 34, ["sharding=none"]),
    ("llama-3.2-3b-stage2", None, 14, 34, ["sharding=none"]),
    ("low-resource-pretrain", None, 14, 34, ["sharding=none"]),
    ("llama-3.2-3b-lora", None, 14, 34, []),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--case", type=int, help="One case alone, printed as JSON.")
    options = parser.parse_args()
    device, cases = options.device, ON_CUDA if options.device == "cuda" else ON_CPU
    if options.case is not None:
        torch.manual_seed(0)
        print(json.dumps(_case(device, *cases[options.case])))
        return
    rows = []
    for number in range(len(cases)):  # each in a process of its own: memory starts empty
        command = [sys.executable, __file__, "--device", device, "--case", str(number)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout))
        stated, measured = rows[-1]["stated, MB"], rows[-1]["measured, MB"]
        print(f"{rows[-1]['run']}: {stated:,.1f} MB stated, {measured:,.1f} measured", flush=True)
    name = "plan_memory" if device == "cpu" else "plan_memory_cuda"
    what = "saved tensors of a row" if device == "cpu" else "peak of a step"
    write(Path(__file__).parent / "results" / name, facts(device), {what: rows})


def _case(
    device: str, recipe: str, layers: int | None, tiles: int, text: int, settings: list[str]
) -> dict[str, Any]:
    run = overrides.apply(recipes.find(recipe)(), settings)
    config = architecture(run.model)
    assert isinstance(config, AlignVLMConfig)
    if layers is not None:
        config.vision_config.num_hidden_layers = config.text_config.num_hidden_layers = layers
    row = Row(num_tiles=tiles, text_tokens=text)
    # Rows of one sample need no mask, in the model as in the plan.
    run = replace(run, batches=replace(run.batches, pack=False, max_tiles=tiles,
                                       max_tokens=tiles * config.tokens_per_tile + text,
                                       max_text_tokens=text))  # fmt: skip
    model = _build(config, run, device)
    said, found = (_peak if device == "cuda" else _saved)(model, config, run, row, device)
    return {
        "run": " ".join([recipe, *settings]),
        "layers": "all" if layers is None else layers,
        "tiles": tiles,
        "text tokens": text,
        "stated, MB": round(said / 1e6, 1),
        "measured, MB": round(found / 1e6, 1),
        "ratio": round(said / found, 3),
        **_states(model, config, run),
    }


def _build(config: AlignVLMConfig, run: RunConfig, device: str) -> AlignVLMForConditionalGeneration:
    """Random weights, held as the run would hold them."""
    with torch.device("meta"):
        model = AlignVLMForConditionalGeneration(config)
    model.to_empty(device=device)
    model.tie_weights()
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.zero_()
        if tensor.is_floating_point():
            tensor.data.normal_(std=0.02)
    model.set_attn_implementation(run.model.attention)
    model.requires_grad_(False)
    if run.lora is not None:
        adapters = LoraConfig(
            r=run.lora.rank, lora_alpha=run.lora.alpha, target_modules=list(run.lora.targets)
        )
        inject_adapter_in_model(adapters, model.model.language_model)
        model.to(device)
    frozen = getattr(torch, run.model.dtype)
    for name, parameter in model.named_parameters():
        part = part_of(name)
        adapted = run.lora is not None and part == "llm"
        trains = "lora_" in name if adapted else getattr(run.rates, part) is not None
        parameter.requires_grad_(trains)
        parameter.data = parameter.data.to(torch.float32 if trains else frozen)
    if run.model.gradient_checkpointing:
        model.activation_checkpointing_enable()
        model.disable_input_require_grads()
    return model.train()


def _batch(config: AlignVLMConfig, row: Row, device: str) -> dict[str, Tensor]:
    side, visual = config.tiling["tile_px"], row.num_tiles * config.tokens_per_tile
    ids = torch.randint(1, 1000, (1, visual + row.text_tokens), device=device)
    ids[:, :visual] = config.image_token_id
    return {
        "input_ids": ids,
        "pixel_values": torch.randn(row.num_tiles, 3, side, side, device=device),
    }


class _Held:
    """A tensor as the graph holds it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def _saved(model: Any, config: Any, run: RunConfig, row: Row, device: str) -> tuple[int, int]:
    """Bytes that a row's graph holds beside the parameters: stated and real."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held: WeakSet[_Held] = WeakSet()

    def pack(tensor: Tensor) -> _Held:
        kept = _Held(tensor)
        held.add(kept)
        return kept

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor),
        torch.autocast(device, torch.bfloat16, enabled=run.precision == "bfloat16"),
    ):
        out = model.model(**_batch(config, row, device), use_cache=False)
    storages = {
        kept.tensor.untyped_storage().data_ptr(): kept.tensor.untyped_storage().nbytes()
        for kept in held
    }
    del out
    said = activations(config, run, row)
    found = sum(size for key, size in storages.items() if key not in parameters)
    return said.total - said.recomputed + said.weight_copies, found


def _peak(model: Any, config: Any, run: RunConfig, row: Row, device: str) -> tuple[int, int]:
    """Peak of two whole steps, the second of which has optimizer states from the start."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6)
    options = torch.nn.LinearCrossEntropyOptions()
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats()
        for _ in range(2):  # gradients are there already when the second row comes
            batch = _batch(config, row, device)
            with torch.autocast(device, torch.bfloat16, enabled=run.precision == "bfloat16"):
                states = model.model(**batch, use_cache=False).last_hidden_state
                states = states[0, -row.text_tokens :]
                loss = functional.linear_cross_entropy(
                    states,
                    model.lm_head.weight.to(states.dtype),
                    batch["input_ids"][0, -row.text_tokens :],
                    reduction="sum",
                    options=options,
                )
            loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
    assert fullest_row(config, run) == row
    return memory(config, run, 1).total, torch.cuda.max_memory_allocated()


def _states(model: Any, config: Any, run: RunConfig) -> dict[str, float]:
    """Weights, stated and real; gradients and moments follow from the trained ones."""
    with torch.device("meta"):
        plain = AlignVLMForConditionalGeneration(config)
    said = held_states(count_parameters(plain, config, run), run, 1)
    return {
        "weights stated, MB": round(sum(said["weights"].values()) / 1e6, 1),
        "weights held, MB": round(sum(p.nbytes for p in model.parameters()) / 1e6, 1),
        "gradients stated, MB": round(sum(said["gradients"].values()) / 1e6, 1),
        "gradients held, MB": round(
            sum(p.nbytes for p in model.parameters() if p.requires_grad) / 1e6, 1
        ),
    }


if __name__ == "__main__":
    main()
