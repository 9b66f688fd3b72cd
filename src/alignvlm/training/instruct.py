"""Instruction tuning: the language model learns to answer short, and from the page.

The default model's visual tokens are word embeddings (model/condense.py), so the language model
can be tuned on the text of pages alone, with the reader's errors imitated: no image is encoded,
and a step costs a fiftieth of one with images. Unlike the paper, whose stage 3 tunes the LLM and
the connector together on images.

All questions of a page share one copy of it. A mask lets each see the page and itself only, with
positions as if it stood there alone, so the loss equals that of separate samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from alignvlm.errors import MissingDependencyError
from alignvlm.model.chat import build_chat_template, choose_image_token
from alignvlm.model.condense import load_plain_tokenizer
from alignvlm.synth import generate
from alignvlm.synth.page import Page
from alignvlm.training.labels import IGNORED, labelled_reading
from alignvlm.training.noise import misread
from alignvlm.training.task import IndexedTask, Loss, Source

# Every matrix of the language model's layers; the embedding stays as it is, ALIGN mixes its rows.
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_LENGTH_STEP = 128  # rows are padded to a multiple, to keep the number of shapes small


@dataclass(frozen=True, kw_only=True)
class InstructMixture:
    """What the pages are.

    Attributes:
        kinds: document kinds, each with its weight.
        max_tokens: pages with a longer text are passed over.
        noisy_share: share of pages with reading errors.
        max_noise: largest share of wrong characters on such a page.
    """

    kinds: tuple[tuple[str, float], ...]
    max_tokens: int = 640
    noisy_share: float = 0.5
    max_noise: float = 0.04


@dataclass(frozen=True, kw_only=True)
class PromptParts:
    """The chat template, cut at the page and at the question (model/chat.py).

    Attributes:
        before: everything before the page.
        between: between page and question.
        after: between question and answer.
        end: what ends an answer.
    """

    before: str
    between: str
    after: str
    end: str


def prompt_parts(tokenizer: PreTrainedTokenizerBase) -> PromptParts:
    """Cut the model's chat template, so that training and inference share it."""
    image = choose_image_token(tokenizer)
    template = build_chat_template(tokenizer, image)
    content = [{"type": "image"}, {"type": "text", "text": "QUESTION"}]
    turns = [{"role": "user", "content": content}, {"role": "assistant", "content": "ANSWER"}]
    asked = tokenizer.apply_chat_template(
        turns[:1], chat_template=template, tokenize=False, add_generation_prompt=True
    )
    answered = tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False)
    before, rest = asked.split(image)
    between, after = rest.split("QUESTION")
    return PromptParts(before=before, between=between, after=after, end=answered.split("ANSWER")[1])


class InstructSource(Source):
    """Pages as text, with all their questions.

    Args:
        tokenizer_folder: holds the language model's tokenizer.json.
        parts: the chat template.
        characters: what each word of the connector says; index 0 is "empty".
        cell_px: (height, width) of a visual token.
        seed: of the pages.
    """

    def __init__(
        self,
        tokenizer_folder: Path,
        parts: PromptParts,
        *,
        characters: Sequence[str],
        cell_px: tuple[int, int],
        mixture: InstructMixture,
        seed: int,
    ) -> None:
        self._folder = tokenizer_folder
        self._parts = parts
        self._characters = list(characters)
        self._cell_px = cell_px
        self._mixture = mixture
        self._seed = seed

    def sample(self, index: int) -> tuple[list[int], list[tuple[list[int], list[int]]]]:
        """Page `index`: ids up to the page's end, then question ids and answer ids of each turn."""
        rng = Random(f"instruct-{self._seed}-{index}")
        kinds, weights = zip(*self._mixture.kinds, strict=True)
        while True:
            page = generate(rng.choices(kinds, weights)[0], rng.randrange(2**31), split="train")
            ids = self._page_ids(page, rng)
            if page.questions and len(ids) <= self._mixture.max_tokens:
                break
        turns = [self._turn(q.question, q.answers[0]) for q in page.questions]
        return _ids(self._tokenizers[1], self._parts.before) + ids, turns

    def collate(
        self, samples: Sequence[tuple[list[int], list[tuple[list[int], list[int]]]]]
    ) -> dict[str, Tensor]:
        """Pack pages into one row: `input_ids`, `positions`, `labels` [1, L], `mask` [1, 1, L, L].

        Labels stand at the position that predicts them.
        """
        ids: list[int] = []
        positions: list[int] = []
        labels: list[int] = []
        pages: list[int] = []
        turns: list[int] = []
        for number, (page, questions) in enumerate(samples, start=1):
            _extend(ids, page, positions, range(len(page)))
            labels += [IGNORED] * len(page)
            pages += [number] * len(page)
            turns += [0] * len(page)
            for turn, (question, answer) in enumerate(questions, start=1):
                run = question + answer
                _extend(ids, run, positions, range(len(page), len(page) + len(run)))
                labels += [IGNORED] * (len(question) - 1) + answer + [IGNORED]
                pages += [number] * len(run)
                turns += [turn] * len(run)
        padding = -len(ids) % _LENGTH_STEP
        ids += [0] * padding
        positions += [0] * padding
        labels += [IGNORED] * padding
        return {
            "input_ids": torch.tensor([ids]),
            "positions": torch.tensor([positions]),
            "labels": torch.tensor([labels]),
            "mask": _mask(pages + [0] * padding, turns + [0] * padding),
        }

    def _page_ids(self, page: Page, rng: Random) -> list[int]:
        # In the order and with the gaps that the reader sees, not those of the generator.
        text = labelled_reading(page, self._characters, self._cell_px).text
        if rng.random() < self._mixture.noisy_share:
            answers = [answer for question in page.questions for answer in question.answers]
            text = misread(text, rng, rng.uniform(0, self._mixture.max_noise), answers)
        return _ids(self._tokenizers[0], text)

    def _turn(self, question: str, answer: str) -> tuple[list[int], list[int]]:
        parts, tokenizer = self._parts, self._tokenizers[1]
        asked = _ids(tokenizer, parts.between + question + parts.after)
        return asked, _ids(tokenizer, answer + parts.end.rstrip("\n"))

    @cached_property
    def _tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        """For text of pages, where control tokens are plain text, and for the template."""
        control = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
        return load_plain_tokenizer(self._folder), control


class InstructTask(IndexedTask):
    """A language model with LoRA under the loss of its answers."""

    def __init__(self, language_model: nn.Module, source: InstructSource) -> None:
        self._source = source
        self._module = language_model

    @property
    def module(self) -> nn.Module:
        """The language model; only its adapter is trained."""
        return self._module

    @property
    def source(self) -> InstructSource:
        """Pages as text."""
        return self._source

    def part(self, name: str) -> str:
        """Adapters and the frozen language model."""
        return "adapter" if "lora_" in name else "llm"

    def loss(self, batch: dict[str, Tensor]) -> Loss:
        """Cross-entropy of the answers' tokens."""
        hidden = self._module.model(
            input_ids=batch["input_ids"],
            position_ids=batch["positions"],
            attention_mask=batch["mask"],
            use_cache=False,
        ).last_hidden_state
        labels = batch["labels"]
        answers = labels != IGNORED
        logits = self._module.lm_head(hidden[answers]).float()
        loss = functional.cross_entropy(logits, labels[answers], reduction="sum")
        right = float((logits.detach().argmax(-1) == labels[answers]).sum())
        weight = int(answers.sum())
        metrics = {"accuracy": (right, float(weight)), "tokens": (float(labels.numel()), 1.0)}
        return Loss(loss, weight, metrics)


def add_lora(language_model: nn.Module, rank: int, alpha: int) -> nn.Module:
    """Freeze a language model and add a LoRA adapter to the matrices of `LORA_TARGETS`.

    Raises:
        MissingDependencyError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingDependencyError("peft", "train an adapter", extra="train") from error
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(LORA_TARGETS))
    model = inject_adapter_in_model(config, language_model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            # Steps of 1e-4 vanish in bfloat16's 8 bits.
            parameter.data = parameter.data.float()
    return model


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


def _extend(ids: list[int], run: list[int], positions: list[int], places: range) -> None:
    ids += run
    positions += places


def _mask(pages: list[int], turns: list[int]) -> Tensor:
    """True where a token may look: earlier, on its page, in the page's text or its own question."""
    page, turn = torch.tensor(pages), torch.tensor(turns)
    order = torch.arange(len(pages))
    earlier = order[:, None] >= order[None, :]
    same_page = page[:, None] == page[None, :]
    visible = (turn[None, :] == 0) | (turn[:, None] == turn[None, :])
    return (earlier & same_page & visible)[None, None]
