"""The loss of sections 3.1 and 3.3: a language model answers about images, the parts that train.

Letters: L length of a row, T tiles, D LLM width, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional
from transformers import PreTrainedModel, ProcessorMixin

from alignvlm.errors import ConfigurationError, TrainingError, WeightsError
from alignvlm.model.compat import quiet
from alignvlm.model.modeling import AlignVLMForConditionalGeneration
from alignvlm.model.splice import IGNORED_LABEL
from alignvlm.training.attention import attend_by_sample, sample_lengths
from alignvlm.training.batches import MixtureBatches
from alignvlm.training.configuration import LoraConfig, Rates
from alignvlm.training.cost import flops
from alignvlm.training.head import summed_cross_entropy
from alignvlm.training.health import align_health
from alignvlm.training.meter import peak_flops
from alignvlm.training.models import save_merged
from alignvlm.training.task import Loss, MicroBatch, Share, Task
from alignvlm.weights.cache import atomic_folder

__all__ = ["VLMTask", "part_of"]

# Names under which the parts of other models go in transformers.
_VISION = ("vision", "visual", "image_encoder")
_CONNECTOR = ("connector", "projector", "merger", "aligner", "qformer", "image_newline")
_PROJECTION = "projection"  # a connector, or, inside an encoder, how it embeds its patches

_INSPECTED_TILES = 4


class VLMTask(Task):
    """An image-text-to-text model under the cross-entropy of its answers.

    Args:
        model: AlignVLM's own, or any other of transformers.
        processor: of the model; saved with it.
        batches: where the micro-batches come from.
        rates: peak learning rates; parts without one are frozen here, the others made float32.
        recipe: the resolved recipe as JSON values, written into the run's folder.
        lora: the adapters that are in the model, for counting its FLOPs.

    Raises:
        ConfigurationError: a part that shall train has no parameters.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        batches: MixtureBatches,
        rates: Rates,
        recipe: dict[str, Any] | None = None,
        lora: LoraConfig | None = None,
    ) -> None:
        self._recipe, self._lora = recipe or {}, lora
        self._model, self._processor, self._batches = model, processor, batches
        self._rates = {"vision": rates.vision, "connector": rates.connector, "llm": rates.llm}
        self._by_sample = attend_by_sample(model)
        self._peak = max((rate for rate in self._rates.values() if rate), default=0.0)
        found = set()
        adapted = any("lora_" in name for name, _ in model.named_parameters())
        for name, parameter in model.named_parameters():
            part = part_of(name)
            wanted = bool(self._rates[part]) and (part != "llm" or not adapted or "lora_" in name)
            trains = wanted and parameter.is_floating_point()
            parameter.requires_grad_(trains)
            if trains:  # small steps vanish in bfloat16's 8 bits
                parameter.data = parameter.data.float()
                found.add(part)
        if missing := [part for part, rate in self._rates.items() if rate and part not in found]:
            raise ConfigurationError(
                f"rates.{missing[0]} is set and the model has no {missing[0]} to train: leave it "
                "out"
            )

    @property
    def module(self) -> nn.Module:
        """The whole model."""
        return self._model

    @property
    def processor(self) -> ProcessorMixin:
        """The model's processor."""
        return self._processor

    def micro_batches(self, config: Any, first_step: int, share: Share) -> Iterator[MicroBatch]:
        """See `Task.micro_batches`; with the model's FLOPs where a device's peak is known."""
        measured = peak_flops(config.device) is not None
        for batch in self._batches(config.num_steps, first_step, share, config.num_workers):
            counts = {**batch.counts, **(self._flops(batch) if measured else {})}
            yield replace(batch, counts=counts)

    def learning_rate_factor(self, name: str) -> float:
        """The rate of the part that a parameter belongs to, over the largest one."""
        return (self._rates[part_of(name)] or 0.0) / self._peak

    def part(self, name: str) -> str:
        """See `part_of`."""
        return part_of(name)

    def recipe(self) -> dict[str, Any]:
        """What the run was made from."""
        return self._recipe

    def loss(self, batch: dict[str, Tensor]) -> Loss:
        """Cross-entropy of the answers' tokens."""
        if not isinstance(self._model, AlignVLMForConditionalGeneration):
            return self._loss_of_another_model(batch)
        hidden, labels = self._hidden_states(batch)
        targets = labels[:, 1:]
        learned = targets != IGNORED_LABEL
        weight = int(learned.sum())
        states = hidden[:, :-1][learned]
        if weight == 0:
            # Of the head too, for the sake of the other processes: see `_hidden_states`.
            nothing = hidden.float().sum() + self._model.lm_head.weight[0].float().sum()
            return Loss(0.0 * nothing, 0, {})
        if torch.is_autocast_enabled(states.device.type):
            states = states.to(torch.get_autocast_dtype(states.device.type))
        head = self._model.lm_head.weight.to(states.dtype)
        return Loss(summed_cross_entropy(states, head, targets[learned]), weight, {})

    def _flops(self, batch: MicroBatch) -> dict[str, float]:
        """What the model needs for a row, recomputation not counted, as MFU does."""
        if not isinstance(self._model, AlignVLMForConditionalGeneration):
            return {}
        positions = batch.tensors.get("position_ids")
        num_tokens = int(batch.counts["text_tokens"] + batch.counts["visual_tokens"])
        squares = num_tokens**2
        if positions is not None:
            starts = (positions[0, :num_tokens] == 0).nonzero().flatten()
            ends = torch.cat((starts[1:], starts.new_tensor([num_tokens])))
            squares = int(((ends - starts) ** 2).sum())
        cost = flops(
            self._model.config,
            text_tokens=int(batch.counts["text_tokens"]),
            visual_tokens=int(batch.counts["visual_tokens"]),
            num_tiles=int(batch.counts["tiles"]),
            sum_squared_lengths=squares,
            trained=Rates(**self._rates),
            checkpointing=False,
            lora=self._lora,
            loss_tokens=int((batch.tensors["labels"] != IGNORED_LABEL).sum()),
        )
        return {"flops": float(cost.model)}

    def inspect(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """The connector's health on a few tiles, under names that begin with "health/"."""
        model = self._model
        if not isinstance(model, AlignVLMForConditionalGeneration):
            return {}
        inner = model.model
        # A sharded encoder is gathered by all processes together: one without images takes part.
        tiles = batch.get("pixel_values", self._blank_tile(batch["input_ids"].device))
        features = inner.get_image_features(
            tiles[:_INSPECTED_TILES], return_dict=True
        ).last_hidden_state
        if "pixel_values" not in batch:
            return {}
        found = align_health(
            inner.connector, features, inner.text_embeddings(), grid=model.config.feature_grid
        )
        return {f"health/{name}": value for name, value in found.items()}

    def finish(self, run_folder: Path, whole: Callable[[Tensor], Tensor], *, writes: bool) -> None:
        """Writes `model` in the run folder, as `from_pretrained` takes it, adapters merged."""
        # Tied tensors are one parameter: gathered once, they stay one, and are saved as one.
        held = self._model.state_dict(keep_vars=True)
        once = {}
        for value in {id(value): value for value in held.values()}.values():
            gathered = whole(value)
            if writes:  # as many copies as processes would fill a machine's memory
                once[id(value)] = gathered.cpu()
        if not writes or (run_folder / "model").exists():
            return
        state = {name: once[id(value)] for name, value in held.items()}
        try:
            with atomic_folder(run_folder / "model") as folder, quiet():
                save_merged(self._model, state, folder)
                self._processor.save_pretrained(folder)
        except (OSError, SafetensorError, WeightsError) as error:
            raise TrainingError(
                f"The trained model cannot be written to {run_folder / 'model'} "
                f"({_cause(error)}): free some space and run the same command again, it only "
                "writes the model"
            ) from error

    def _hidden_states(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Last hidden states [B, L, D] and the labels [B, L] aligned with them.

        A row without an image runs encoder and connector over a blank tile whose result counts
        nothing: processes exchange weights and gradients of every part in the order of use, and
        one that used them otherwise would leave the others waiting.
        """
        inner = self._model.model
        mask, labels = batch.get("attention_mask"), batch["labels"]
        if "pixel_values" in batch:
            spliced, _ = inner.embed_inputs(
                batch["input_ids"], batch["pixel_values"], batch["tile_grids"], mask, labels
            )
            embeds, mask, labels = spliced.inputs_embeds, spliced.attention_mask, spliced.labels
        else:
            nothing = self._nothing(batch["input_ids"].device)
            embeds = inner.get_input_embeddings()(batch["input_ids"])
            embeds = embeds + nothing.to(embeds.dtype)
        positions = batch.get("position_ids")
        borders = {}
        if self._by_sample and positions is not None and mask is None:
            borders["sample_lengths"] = sample_lengths(positions)
        outputs = inner(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            use_cache=False,
            return_dict=True,
            **borders,
        )
        return outputs.last_hidden_state, labels

    def _nothing(self, device: torch.device) -> Tensor:
        tile = self._blank_tile(device)
        image = self._model.model.get_image_features(tile, return_dict=True).pooler_output[0]
        return 0.0 * image.float().sum()

    def _blank_tile(self, device: torch.device) -> Tensor:
        side = self._model.config.tiling["tile_px"]
        return torch.zeros(1, 3, side, side, device=device)

    def _loss_of_another_model(self, batch: dict[str, Tensor]) -> Loss:
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        nothing: Tensor | float = 0.0  # first, as images are: see `_hidden_states`
        if "pixel_values" not in batch and torch.distributed.is_initialized():
            nothing = self._nothing_of_another_model(batch["input_ids"].device)
        logits = self._model(**inputs, use_cache=False).logits
        targets = batch["labels"][:, 1:]
        learned = targets != IGNORED_LABEL
        total = functional.cross_entropy(
            logits[:, :-1][learned].float(), targets[learned], reduction="sum"
        )
        return Loss(total + nothing, int(learned.sum()), {})

    def _nothing_of_another_model(self, device: torch.device) -> Tensor | float:
        """As `_nothing`, where the model encodes images apart from the text."""
        inner = self._model.base_model
        if not hasattr(inner, "get_image_features"):
            if any(_is_spread(parameter) for parameter in inner.parameters()):
                raise TrainingError(
                    f"A row without an image passes over layers of {self._model.config.model_type} "
                    "that other processes share: take samples without images out and make "
                    "batches.num_samples a multiple of the processes, or set sharding=none"
                )
            return 0.0
        processor: Any = self._processor
        made = processor.image_processor([Image.new("RGB", (64, 64))], return_tensors="pt")
        known = inspect.signature(inner.get_image_features).parameters
        tensors = {name: value.to(device) for name, value in made.items() if name in known}
        features = inner.get_image_features(**tensors, return_dict=True).pooler_output
        pieces = [features] if isinstance(features, Tensor) else features
        return sum(0.0 * piece.float().sum() for piece in pieces)


def part_of(name: str) -> str:
    """The part that a parameter belongs to: "vision", "connector" or "llm".

    By the names of its modules; a connector inside the encoder, as Qwen2-VL's merger, is one.
    """
    if any(word in name for word in _CONNECTOR):
        return "connector"
    before, projects, _ = name.partition(_PROJECTION)
    is_inside = any(word in before.rpartition(".")[0] for word in _VISION)
    if projects and not is_inside:
        return "connector"
    return "vision" if any(word in name for word in _VISION) else "llm"


def _is_spread(parameter: nn.Parameter) -> bool:
    """Whether processes share the parameter, under FSDP2 or DeepSpeed's ZeRO-3."""
    return isinstance(parameter, DTensor) or hasattr(parameter, "ds_id")


def _cause(error: Exception) -> str:
    """What the system said, without what others advise about it."""
    found = error.__cause__ if isinstance(error, WeightsError) else error
    return str(getattr(found, "strerror", None) or found)
