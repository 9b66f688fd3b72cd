from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
import tiny_stages as tiny
import torch
from tiny_models import chat_tokenizer
from tokenizers import Tokenizer

from alignvlm.training.instruct import InstructMixture, InstructSource, InstructTask
from alignvlm.training.labels import IGNORED
from alignvlm.training.noise import misread

PAGES = [
    ([5, 6, 7, 8], [([9, 10], [11, 12]), ([13], [14])]),
    ([15, 16], [([17, 18, 19], [20, 21, 22])]),
]


def make_source(tmp_path: Path) -> InstructSource:
    mixture = InstructMixture(kinds=(("easy", 1.0),))
    return InstructSource(
        tmp_path, tiny.PARTS, characters=["\n", " "], cell_px=(8, 4), mixture=mixture, seed=0
    )


def test_packed_questions_equal_separate_samples(tmp_path: Path) -> None:
    """One row for all pages and questions gives the loss and the gradient of one row for each."""
    source = make_source(tmp_path)
    packed, separate = tiny.language_model(), tiny.language_model()
    found = InstructTask(packed, source).loss(source.collate(PAGES))
    loss = found.total / found.weight
    loss.backward()
    total, count = torch.zeros(()), 0
    for page, turns in PAGES:
        for question, answer in turns:
            ids = torch.tensor([page + question + answer])
            logits = separate(input_ids=ids).logits[0, -len(answer) - 1 : -1]
            target = torch.tensor(answer)
            total = total + torch.nn.functional.cross_entropy(logits, target, reduction="sum")
            count += len(answer)
    (total / count).backward()
    torch.testing.assert_close(loss, total / count)
    for ours, theirs in zip(packed.parameters(), separate.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-4)


def test_only_answers_are_supervised(tmp_path: Path) -> None:
    labels = make_source(tmp_path).collate(PAGES)["labels"]
    assert labels[labels != IGNORED].tolist() == [11, 12, 14, 20, 21, 22]


def test_rows_have_few_lengths(tmp_path: Path) -> None:
    assert make_source(tmp_path).collate(PAGES)["input_ids"].shape[1] % 128 == 0


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_misread_text_keeps_answers_and_lines(rate: float) -> None:
    text = "Invoice 1001\nTotal: $12.50 paid\nTotal again $12.50"
    for seed in range(20):
        noisy = misread(text, Random(seed), rate, ["$12.50"])
        assert noisy.count("$12.50") == 2
        assert noisy.count("\n") == 2
        assert (noisy == text) == (rate == 0.0) or rate > 0


def test_misreading_happens_at_its_rate() -> None:
    text = "abcdefghij" * 200
    noisy = misread(text, Random(1), 0.1)
    from rapidfuzz.distance import Levenshtein

    assert 0.05 < Levenshtein.distance(text, noisy) / len(text) < 0.15


def test_samples_hold_the_page_as_read_and_its_answers(tmp_path: Path, fonts: object) -> None:
    """With the shipped tokenizer's form: page ids decode to the page, answers end the turn."""
    chat_tokenizer().save_pretrained(tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    characters = ["\n", " ", *(chr(code) for code in range(33, 127))]
    source = InstructSource(
        tmp_path,
        tiny.PARTS,
        characters=characters,
        cell_px=(8, 4),
        mixture=InstructMixture(kinds=(("easy", 1.0),), noisy_share=0.0),
        seed=3,
    )
    page, turns = source.sample(0)
    assert json.dumps(source.sample(0)) == json.dumps((page, turns))
    text = tokenizer.decode(page)
    assert text.startswith("<u>")
    for question, answer in turns:
        assert tokenizer.decode(question).startswith("\n")
        assert tokenizer.decode(question).endswith("</u>")
        assert tokenizer.decode(answer).endswith("</a>")
        assert tokenizer.decode(answer)[: -len("</a>")] in text
