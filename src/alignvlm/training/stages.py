"""The default model's two stages as data, and the objects they train.

1. `read`: encoder and connector learn to say the character under every cell (grounded.py).
2. `answer`: the language model learns to answer short, from the page (instruct.py).

Neither exists in the paper, whose three stages train on 16 million image-text pairs; what a
setting follows is said beside it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from alignvlm.connectors.align import Align
from alignvlm.errors import ConfigurationError, UsageError, WeightsError
from alignvlm.model.characters import character_tokens
from alignvlm.model.document_encoder import DocumentEncoder, DocumentEncoderConfig
from alignvlm.training import checkpoint
from alignvlm.training.grounded import GroundedMixture, GroundedSource, GroundedTask
from alignvlm.training.instruct import (
    LORA_TARGETS,
    InstructMixture,
    InstructSource,
    InstructTask,
    add_lora,
    prompt_parts,
)
from alignvlm.training.schedule import TrainConfig
from alignvlm.training.task import Task
from alignvlm.weights.cache import atomic_folder
from alignvlm.weights.ppocr import load_trunk
from alignvlm.weights.smollm2 import ensure_smollm2, load_smollm2

LORA_RANK = 16
LORA_ALPHA = 32

# With a gain of 1 a fresh connector is nearly uniform even over 138 words; 2 starts it sharper
# without making any word certain.
CONNECTOR_GAIN = 2.0

TILING: dict[str, Any] = {"layout": "canvas", "thumbnail": False, "max_upscale": 1.0}
CONDENSE: dict[str, Any] = {"prune": True, "merge": "spell"}

# Kinds of pages and how often each is drawn; easy pages are short, so they come twice as often.
ANSWER_KINDS = (
    ("easy", 1.5),
    ("invoice", 2.0),
    ("receipt", 1.0),
    ("form", 1.0),
    ("letter", 1.0),
    ("statement", 1.5),
    ("table", 3.0),
    ("chart", 0.5),
    ("text", 1.0),
)


# What `alignvlm train` knows under these names, beside the recipes. "read" and "answer" are what
# the shipped weights were trained with, one thread each: 112 and 99 minutes. Those for a GPU are
# sized for an hour on one card and not yet run; a CPU would take days, so there they are refused.
STAGES: dict[str, TrainConfig] = {
    "read": TrainConfig(
        num_steps=2200, batch_size=4, learning_rate=6e-4, checkpoint_every=50, seed=1
    ),
    "answer": TrainConfig(
        num_steps=650,
        batch_size=3,
        learning_rate=6e-4,
        warmup_steps=20,
        weight_decay=0.0,
        checkpoint_every=25,
        seed=2,
    ),
    "read-gpu": TrainConfig(
        num_steps=12000,
        batch_size=16,
        learning_rate=1e-3,
        warmup_steps=200,
        checkpoint_every=500,
        seed=1,
        num_workers=12,
        device="cuda",
    ),
    "answer-gpu": TrainConfig(
        num_steps=6000,
        batch_size=12,
        learning_rate=4e-4,
        warmup_steps=100,
        weight_decay=0.0,
        checkpoint_every=500,
        seed=2,
        num_workers=8,
        device="cuda",
    ),
}


def read_task(seed: int, pdfs: Path | None = None) -> GroundedTask:
    """Encoder and connector as stage `read` starts: the recogniser's trunk, W2 from the LM head.

    Args:
        seed: of the tiles.
        pdfs: folder of PDFs from whose pages some tiles are cut, see `GroundedMixture`.

    Raises:
        InputError: there is no PDF.
    """
    language_model, tokenizer = load_smollm2(torch.float32)
    characters = character_tokens(tokenizer)
    torch.manual_seed(0)
    encoder = DocumentEncoder(DocumentEncoderConfig())
    load_trunk(encoder.trunk)
    head = language_model.get_output_embeddings().weight
    connector = Align(
        encoder.config.hidden_size,
        head.shape[1],
        head.shape[0],
        vocabulary=list(characters.values()),
        gain=CONNECTOR_GAIN,
    )
    connector.init_from_head(head)
    mixture = GroundedMixture(pdfs=pdfs)
    source = GroundedSource(list(characters), encoder.config, mixture, seed)
    return GroundedTask(encoder.to(memory_format=torch.channels_last), connector, source)


def answer_task(seed: int) -> InstructTask:
    """The language model with a fresh adapter, and pages as text."""
    language_model, tokenizer = load_smollm2(torch.bfloat16)
    geometry = DocumentEncoderConfig()
    torch.manual_seed(0)
    source = InstructSource(
        ensure_smollm2(),
        prompt_parts(tokenizer),
        characters=list(character_tokens(tokenizer)),
        cell_px=(geometry.cell_height_px, geometry.cell_width_px),
        mixture=InstructMixture(kinds=ANSWER_KINDS),
        seed=seed,
    )
    return InstructTask(add_lora(language_model, LORA_RANK, LORA_ALPHA), source)


def stage_task(name: str, config: TrainConfig) -> Task:
    """What a stage of `STAGES` trains; `config.data` is `read_task`'s folder of PDFs.

    Raises:
        ConfigurationError: there is no such stage, it takes no data, or it is sized for a GPU and
            would not train on one.
        InputError: there is no PDF.
    """
    kind = name.partition("-")[0]
    if name not in STAGES:
        raise ConfigurationError(f"There is no stage {name!r}: choose one of {', '.join(STAGES)}")
    needs_gpu = STAGES[name].device == "cuda"
    if needs_gpu and not (config.device.startswith("cuda") and torch.cuda.is_available()):
        raise ConfigurationError(
            f"The stage {name!r} is sized for a GPU with CUDA, which {config.device!r} is not "
            f"here: train {kind!r}, which a CPU can do"
        )
    if kind == "read":
        return read_task(config.seed, None if config.data is None else Path(config.data))
    if config.data is not None:
        raise ConfigurationError(
            f"The stage {name!r} draws its own pages and takes no data: leave data out"
        )
    return answer_task(config.seed)


def export(read_run: Path, answer_run: Path, target: Path) -> Path:
    """Write what two finished runs trained as the files that the package ships.

    Args:
        read_run: run folder of the first stage.
        answer_run: run folder of the second.
        target: a folder that does not exist yet, or is empty.

    Returns:
        `target`, with `default.json`, `vision_connector.safetensors` (bfloat16),
        `adapter_config.json` and `adapter_model.safetensors` (peft's format, bfloat16).

    Raises:
        UsageError: there is something in `target`.
        WeightsError: a run has no checkpoint, is not finished, or is of the other stage.
    """
    if target.is_file() or (target.is_dir() and any(target.iterdir())):  # it would be replaced
        raise UsageError(
            f"{str(target)!r} holds something already: name a folder that is not there"
        )
    read = _trained(read_run, ("vision_model.", "connector."))
    answer = _trained(answer_run, ("model.layers.",))
    _, tokenizer = load_smollm2(torch.bfloat16)
    vocabulary = list(character_tokens(tokenizer).values())
    parts = {name: tensor.bfloat16() for name, tensor in read.items()}
    parts["connector.token_ids"] = torch.tensor(vocabulary)
    adapter = {
        f"base_model.model.{name.replace('.default', '')}": tensor.bfloat16()
        for name, tensor in answer.items()
    }
    with atomic_folder(target) as folder:
        save_file(parts, folder / "vision_connector.safetensors")
        save_file(adapter, folder / "adapter_model.safetensors")
        _write_json(folder / "adapter_config.json", _adapter_config())
        _write_json(folder / "default.json", _settings(vocabulary))
    return target


def _trained(run: Path, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """The weights of a finished run whose tensors have these prefixes."""
    found = checkpoint.latest(run)
    if found is None:
        raise WeightsError(
            f"{str(run)!r} holds no whole checkpoint: run the stage's training first"
        )
    if other := [name for name in found.weights if not name.startswith(prefixes)]:
        raise WeightsError(f"{run} is a run of another stage, it trains {other[0]}: swap the runs")
    num_steps = json.loads((run / "config.json").read_text("utf-8"))["num_steps"]
    if found.step < num_steps:
        raise WeightsError(
            f"{run} has done {found.step} of {num_steps} steps: let it finish before the export"
        )
    return found.weights


def _adapter_config() -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "r": LORA_RANK,
        "lora_alpha": LORA_ALPHA,
        "target_modules": list(LORA_TARGETS),
        "bias": "none",
    }


def _settings(vocabulary: list[int]) -> dict[str, Any]:
    encoder = DocumentEncoderConfig()
    names = ("tile_px", "cell_height_px", "cell_width_px", "hidden_size", "num_context_layers")
    return {
        "vision_config": {
            **{name: getattr(encoder, name) for name in names},
            "context_kernel": list(encoder.context_kernel),
        },
        "connector": {"name": "align", "vocabulary": vocabulary, "gain": CONNECTOR_GAIN},
        "tiling": TILING,
        "condense": CONDENSE,
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
