"""The model `alignvlm` of lmms-eval; only lmms-eval imports this file."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, final

import torch
from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from PIL import Image
from rich.progress import track

from alignvlm.data.images import DrawnImage, FileImage
from alignvlm.data.sample import ImageSource
from alignvlm.errors import InputError, UsageError
from alignvlm.evaluation.models import open_model
from alignvlm.evaluation.question import Prompt, Reply

__all__ = ["AlignVLM", "to_prompt"]

_LOG = logging.getLogger(__name__)


@final
class AlignVLM(lmms):
    """Any model that `alignvlm eval` takes, asked by lmms-eval.

    The arguments are those of `--model_args`; lmms-eval adds `--batch_size` and `--device`.

    Args:
        pretrained: as `alignvlm eval` names a model.
        device, dtype: as in `alignvlm.evaluation.models.open_model`. Of several processes each
            takes the device that Accelerate gives it, unless one is named.
        batch_size: how many questions are answered at once.
        max_new_tokens: most tokens of an answer where a task sets no limit.

    Raises:
        AlignVLMError: as `open_model`.
    """

    is_simple = False  # asked by messages

    def __init__(
        self,
        pretrained: str = "default",
        *,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int | str = 1,
        max_new_tokens: int = 1024,
    ) -> None:
        super().__init__()
        self.accelerator = Accelerator()
        if device is None and self.accelerator.num_processes > 1:
            device = str(self.accelerator.device)
        if not str(batch_size).isdecimal():
            raise UsageError(f"--batch_size is {batch_size!r}: give a number, 1 or more")
        self._model = open_model(pretrained, device=device, dtype=dtype, batch_size=int(batch_size))
        self._max_new_tokens = int(max_new_tokens)
        self._warned: set[str] = set()

    @property
    def device(self) -> torch.device:
        """Where lmms-eval puts the tensors by which its processes talk."""
        device: torch.device = self.accelerator.device
        return device

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """One answer to each request.

        A question of which the image or the length is at fault is answered by nothing and logged,
        as the models that come with lmms-eval do; it counts as the task scores an empty answer.

        Raises:
            UsageError: a request is no question about images with one turn.
            AlignVLMError: the model cannot be loaded.
        """
        size = self._model.batch_size
        starts = range(0, len(requests), size)
        shown = track(starts, description="Answering", disable=self.rank != 0)
        replies = [
            reply
            for start in shown
            for reply in self._answer([self._prompt(one) for one in requests[start : start + size]])
        ]
        return [
            GenerationResult(
                text=reply.text,
                token_counts=TokenCounts(
                    input_tokens=reply.num_input_tokens, output_tokens=reply.num_tokens
                ),
            )
            for reply in replies
        ]

    def loglikelihood(self, requests: Sequence[Instance]) -> NoReturn:
        """Not supported.

        Raises:
            UsageError: always.
        """
        raise UsageError(_NO_LIKELIHOODS)

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> NoReturn:
        """Not supported.

        Raises:
            UsageError: always.
        """
        raise UsageError(_ONE_TURN.format(task=requests[0].args[4]))

    def _prompt(self, request: Instance) -> Prompt:
        _, doc_to_messages, options, doc_id, task, split = request.args
        if (sampled := _sampling(options)) and task not in self._warned:
            self._warned.add(task)
            _LOG.warning("The task %s asks for %s; answers are greedy all the same", task, sampled)
        messages = doc_to_messages(self.task_dict[task][split][doc_id])
        return to_prompt(messages, options, task, doc_id, self._max_new_tokens)

    def _answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        try:
            return self._model.answer(prompts)
        except InputError as error:
            if len(prompts) > 1:
                return [reply for prompt in prompts for reply in self._answer([prompt])]
            _LOG.error("%s was answered by nothing: %s", prompts[0].question_id, error)
            return [Reply(text="")]


def to_prompt(
    messages: Sequence[Mapping[str, Any]],
    options: Mapping[str, Any],
    task: str,
    doc_id: int,
    max_new_tokens: int,
) -> Prompt:
    """What a task of lmms-eval asks, as evaluation here has it.

    Args:
        messages: as the task's `doc_to_messages` gives them.
        options: the task's `generation_kwargs`.
        task: its name.
        doc_id: number of the question.
        max_new_tokens: where `options` set no limit.

    Raises:
        UsageError: the messages are more than one of the user's, or hold videos or audio.
    """
    if [message["role"] for message in messages] != ["user"]:
        raise UsageError(_ONE_TURN.format(task=task))
    name = f"{task}/{doc_id}"
    parts: list[dict[str, str]] = []
    images: list[ImageSource] = []
    for content in messages[0]["content"]:
        if content["type"] == "text":
            parts.append({"type": "text", "text": content["text"]})
        elif content["type"] == "image":
            parts.append({"type": "image"})
            images.append(_source(content["url"], f"image {len(images) + 1} of {name}"))
        else:
            raise UsageError(f"{task} asks about {content['type']}: the model takes images alone")
    until = options.get("until") or ()
    return Prompt(
        question_id=name,
        parts=tuple(parts),
        images=tuple(images),
        max_new_tokens=int(options.get("max_new_tokens") or max_new_tokens),
        stop=tuple(mark for mark in ([until] if isinstance(until, str) else until) if mark),
    )


def _source(value: Image.Image | str, name: str) -> ImageSource:
    """Of a picture that the task has opened, or of the path of one."""
    return FileImage(value) if isinstance(value, str) else DrawnImage(value, name)


def _sampling(options: Mapping[str, Any]) -> str:
    """What a task wants else than the likeliest answer; "" if nothing."""
    if (options.get("temperature") or 0) > 0 and options.get("do_sample", True):
        return f"sampling at temperature {options['temperature']:g}"
    num_beams = options.get("num_beams") or 1
    return f"{num_beams} beams" if num_beams > 1 else ""


_ONE_TURN = "{task} has more to say than one message of the user: choose a task of one turn"
_NO_LIKELIHOODS = (
    "The model gives no likelihoods of answers: choose a task of output type generate_until"
)
