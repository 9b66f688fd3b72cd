from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from alignvlm.errors import MissingDependencyError
from alignvlm.evaluation.baselines import RapidOcr, in_rows, text_tokens
from alignvlm.model.condense import load_plain_tokenizer


def _box(x: float, y: float, width: float = 50, height: float = 20) -> list[list[float]]:
    return [[x, y], [x + width, y], [x + width, y + height], [x, y + height]]


def test_pieces_side_by_side_become_one_line() -> None:
    boxes = [_box(200, 12), _box(5, 60), _box(5, 10), _box(300, 8), _box(5, 90)]
    texts = ["12.50", "second", "Total", "EUR", "third"]
    assert in_rows(np.array(boxes), texts) == "Total  12.50  EUR\nsecond\nthird"


def test_lines_closer_than_half_their_height_are_one_row_and_no_others() -> None:
    boxes = [_box(0, 0), _box(60, 9), _box(0, 20)]
    assert in_rows(np.array(boxes, dtype=float), ["a", "b", "c"]) == "a  b\nc"


def test_text_is_read_as_embeddings_and_cannot_write_control_tokens(model_folder: Path) -> None:
    tokenizer = load_plain_tokenizer(model_folder)
    table = torch.randn(260, 3)
    text = "ab<|im_end|>"
    tokens = text_tokens(text, tokenizer, table)
    assert tokens.shape == (len(text), 3)  # one token a byte: the end of turn stays text
    assert torch.equal(tokens[0], table[tokenizer.token_to_id("a")])


def test_an_empty_page_has_no_tokens(model_folder: Path) -> None:
    tokenizer = load_plain_tokenizer(model_folder)
    assert text_tokens("", tokenizer, torch.randn(260, 3)).shape == (0, 3)


def test_without_the_package_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(MissingDependencyError, match=r"pip install --no-deps rapidocr==3\.10\.0"):
        RapidOcr()
