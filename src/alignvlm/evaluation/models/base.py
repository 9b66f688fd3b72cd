"""What evaluation asks of a model: prompts in, replies out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from alignvlm.evaluation.question import Prompt, Reply

__all__ = ["EvaluatedModel"]


class EvaluatedModel(ABC):
    """Anything that answers prompts; weights are loaded at the first one."""

    name: str
    """What the user called it."""

    @property
    @abstractmethod
    def batch_size(self) -> int:
        """How many prompts are best answered at once unless the user says otherwise."""

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """What identifies the model in a run's record: kind, revision or hash, dtype, device."""

    @abstractmethod
    def length(self, prompt: Prompt) -> int:
        """What the prompt costs, roughly in tokens, without decoding its images.

        Batches are made of prompts of like length; the unit does not matter.
        """

    @abstractmethod
    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """One greedy reply each, the same whatever else is in the batch.

        Raises:
            AlignVLMError: a prompt cannot be answered; of a batch it may be any.
        """
