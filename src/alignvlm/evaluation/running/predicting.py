"""From questions to predictions: batches of like length, and a failing sample alone.

Questions are taken in the benchmark's order, in windows of sixteen batches; within a window the
longest come first. So no more than a window of questions is held in memory, whatever the size of
the benchmark, and batches hold questions of like length. One by one they come in their own order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from alignvlm.errors import AlignVLMError, InputError, UsageError
from alignvlm.evaluation.models.base import EvaluatedModel
from alignvlm.evaluation.question import Prediction, Prompt, Question, Reply
from alignvlm.evaluation.running.scoring import score_answer
from alignvlm.evaluation.scorers import Judge

__all__ = ["Asker"]

_WINDOW_BATCHES = 16


@dataclass(frozen=True, kw_only=True)
class _Task:
    index: int
    question: Question
    prompt: Prompt
    length: int


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Asks a model the questions of one benchmark.

    Attributes:
        model: is asked.
        questions: the question of a number in the benchmark's order; raises InputError for a row
            that cannot be read.
        put: the prompt of a question.
        measures: of the benchmark, for questions that cannot be read.
        dialect: in which answers are scored.
        judge: grades MM-Vet.
        batch_size: most questions at a time.
    """

    model: EvaluatedModel
    questions: Callable[[int], Question]
    put: Callable[[Question], Prompt]
    measures: tuple[str, ...]
    dialect: str
    judge: Judge | None
    batch_size: int

    def predict(self, indices: Sequence[int]) -> Iterator[tuple[int, Prediction]]:
        """A prediction for each of these questions as it comes, with the question's number.

        A batch that fails is asked again one by one; what fails alone is a prediction with an
        error.

        Raises:
            AlignVLMError: what no other question would escape, e.g. weights that are missing.
        """
        window = _WINDOW_BATCHES * self.batch_size
        for start in range(0, len(indices), window):
            tasks: list[_Task] = []
            for index in indices[start : start + window]:
                made = self._task(index)
                if isinstance(made, Prediction):
                    yield index, made
                else:
                    tasks.append(made)
            tasks.sort(key=lambda task: (-task.length, task.index))
            for first in range(0, len(tasks), self.batch_size):
                yield from self._answer(tasks[first : first + self.batch_size])

    def _task(self, index: int) -> _Task | Prediction:
        question = prompt = None
        try:
            question = self.questions(index)
            prompt = self.put(question)
            length = self.model.length(prompt) if self.batch_size > 1 else 0
        except Exception as error:
            return self._failed(index, question, prompt, _reason(error))
        return _Task(index=index, question=question, prompt=prompt, length=length)

    def _answer(self, tasks: Sequence[_Task]) -> Iterator[tuple[int, Prediction]]:
        start = time.perf_counter()
        replies, reason = self._replies([task.prompt for task in tasks])
        seconds = (time.perf_counter() - start) / len(tasks)
        if replies:
            for task, reply in zip(tasks, replies, strict=True):
                yield task.index, self._scored(task, reply, seconds)
        elif len(tasks) > 1:
            for task in tasks:
                yield from self._answer([task])
        else:
            task = tasks[0]
            yield task.index, self._failed(task.index, task.question, task.prompt, reason, seconds)

    def _replies(self, prompts: Sequence[Prompt]) -> tuple[list[Reply], str]:
        """Replies, or none and the reason; what failed is let go of before anything is repeated."""
        try:
            replies = list(self.model.answer(prompts))
        except Exception as error:
            return [], _reason(error)
        if len(replies) != len(prompts):
            return [], f"The model gave {len(replies)} replies to {len(prompts)} prompts"
        return replies, ""

    def _scored(self, task: _Task, reply: Reply, seconds: float) -> Prediction:
        answered = _prediction(
            task.question, task.prompt, reply.text, seconds, reply.num_tokens, reply.complete
        )
        error = None
        scores = {}
        try:
            found = score_answer(answered, self.dialect, self.judge)
            scores = {n: {"value": s.value, "parts": dict(s.parts)} for n, s in found.items()}
        except UsageError as raised:  # the row's own answers or options do not fit its measure
            error = _one_line(raised)
        except Exception as raised:
            error = _reason(raised)
        return replace(answered, scores=scores, error=error)

    def _failed(
        self,
        index: int,
        question: Question | None,
        prompt: Prompt | None,
        reason: str,
        seconds: float = 0.0,
    ) -> Prediction:
        if question is None:
            question = Question(
                id=f"row {index + 1}", text="", images=(), answers=None, measures=self.measures
            )
        failed = _prediction(question, prompt, None, seconds, None, complete=False)
        return replace(failed, error=reason)


def _prediction(
    question: Question,
    prompt: Prompt | None,
    raw: str | None,
    seconds: float,
    tokens: int | None,
    complete: bool,
) -> Prediction:
    return Prediction(
        id=question.id,
        group=question.group,
        question=question.text,
        prompt=prompt.text if prompt else "",
        prompt_sha256=prompt.sha256 if prompt else "",
        answers=question.answers,
        options=dict(question.options),
        measures=question.measures,
        raw=raw,
        scores={},
        tokens=tokens,
        complete=complete,
        error=None,
        seconds=seconds,
    )


def _reason(error: Exception) -> str:
    """Why a sample failed, on one line.

    Raises:
        AlignVLMError: the error is no sample's own: every other question would end like it.
    """
    if isinstance(error, AlignVLMError) and not isinstance(error, InputError):
        raise error
    text = _one_line(error)
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
