"""Tokens to text, piece by piece."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from alignvlm.inference.decoding import TextPieces


@pytest.fixture(scope="module")
def tokenizer(base_folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(base_folder)


def pieces_of(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[str]:
    pieces = TextPieces(tokenizer)
    return [*(pieces.add(token) for token in ids), pieces.finish()]


def test_a_character_of_several_tokens_comes_whole(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer.encode("1 €!")
    assert pieces_of(tokenizer, ids) == ["1", " ", "", "", "€", "!", ""]


def test_half_a_character_comes_at_the_end(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer.encode("a€")[:-1]
    assert pieces_of(tokenizer, ids) == ["a", "", "", "\N{REPLACEMENT CHARACTER}"]


@given(text=st.text(max_size=30))
def test_pieces_make_up_the_text(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    expected = tokenizer.decode(ids, skip_special_tokens=True)
    assert "".join(pieces_of(tokenizer, ids)) == expected
