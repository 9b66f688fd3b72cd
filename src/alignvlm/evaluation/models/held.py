"""AlignVLM models that are in memory already, such as one that trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch

from alignvlm.evaluation.models.generation import greedy_config
from alignvlm.evaluation.models.own import OwnModel, stop_ids
from alignvlm.evaluation.question import Prompt, Reply

__all__ = ["HeldModel"]


@final
class HeldModel(OwnModel):
    """A model as it stands, in evaluation mode; nothing of it is changed.

    Args:
        name: for the run's record.
        model: an `AlignVLMForConditionalGeneration`, whole on this process.
        processor: of the model.
        version: what tells it from the same model at another moment, e.g. steps done.
        precision: torch.bfloat16 multiplies under autocast, as training does; torch.float32 not.
        batch_size: how many prompts are answered at once.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        processor: Any,
        *,
        version: str,
        precision: torch.dtype = torch.float32,
        batch_size: int = 1,
    ) -> None:
        self.name, self.dtype, self.device = name, precision, model.device
        self._held, self._processor, self._batch_size = model, processor, batch_size
        self._stop_ids = stop_ids(model)
        self._described = version

    @property
    def model(self) -> Any:
        """The model."""
        return self._held

    @property
    def config(self) -> Any:
        """See `LocalModel.config`."""
        return self._held.config

    @property
    def _version(self) -> dict[str, str]:
        return {"version": self._described}

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """See `EvaluatedModel.answer`."""
        own, model = self._held.generation_config, self._held
        is_mixed = self.dtype != torch.float32
        model.generation_config = greedy_config(model, self._processor.tokenizer.pad_token_id)
        try:
            with torch.autocast(self.device.type, self.dtype, enabled=is_mixed):
                return super().answer(prompts)
        finally:
            model.generation_config = own
