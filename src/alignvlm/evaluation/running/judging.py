"""Who grades MM-Vet: replies that were recorded, or a model that is asked."""

from __future__ import annotations

from pathlib import Path
from typing import final

from alignvlm.errors import AlignVLMError, InputError
from alignvlm.evaluation.models.base import EvaluatedModel
from alignvlm.evaluation.question import Prompt
from alignvlm.evaluation.scorers import Judge, RecordedJudge

__all__ = ["ModelJudge", "open_judge"]

_MAX_NEW_TOKENS = 16


@final
class ModelJudge:
    """A judge that asks a model.

    Unlike the toolkits, which ask again at a higher temperature where a reply is no grade, the
    model is asked once for each prompt and repeats itself: grades can be made again.

    Args:
        model: is asked, greedily.
    """

    def __init__(self, model: EvaluatedModel) -> None:
        self._model = model
        self._last = ("", "")

    def __call__(self, prompt: str, temperature: float) -> str:
        """The model's reply.

        Raises:
            InputError: the model cannot answer.
            AlignVLMError: it cannot be asked at all.
        """
        if self._last[0] != prompt:
            asked = Prompt(
                question_id="",
                parts=({"type": "text", "text": prompt},),
                images=(),
                max_new_tokens=_MAX_NEW_TOKENS,
            )
            try:
                self._last = prompt, self._model.answer([asked])[0].text
            except InputError as error:
                raise InputError(f"The judge gave no grade: {error}") from error
            except AlignVLMError as error:
                raise AlignVLMError(f"The judge cannot be asked: {error}") from error
        return self._last[1]


def open_judge(name: str) -> Judge:
    """A judge by what the user calls it.

    Args:
        name: a JSONL file of recorded replies, or an endpoint as `http://host:port/v1#model`.

    Raises:
        InputError: there is no such file, or it holds something else.
        UsageError: the address names no model.
    """
    if name.lower().startswith(("http://", "https://")):
        from alignvlm.evaluation.models import open_model

        return ModelJudge(open_model(name))
    path = Path(name)
    if not path.is_file():
        raise InputError(
            f"There is no judge at {path}: name a JSONL file of recorded replies, or an endpoint "
            "as http://host:port/v1#model"
        )
    return RecordedJudge.read(path)
