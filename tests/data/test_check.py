"""What a report says of a file, and the page that shows it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignvlm.data.check import Report, check
from alignvlm.data.check_page import render_html
from alignvlm.data.sources import open_source


class Words:
    """A processor whose tokens are the words of a conversation; it learns answers."""

    image_token_id = 0

    class image_processor:  # noqa: N801
        @staticmethod
        def num_tiles(height: int, width: int) -> int:
            return height // 10

    def __init__(self) -> None:
        self.words = ["[image]"]
        self.tokenizer = self

    def decode(self, ids: list[int]) -> str:
        return " ".join(self.words[token] for token in ids) + " "

    def training_text(self, conversation: Any) -> tuple[list[int], list[int]]:
        ids, labels = [], []
        for message in conversation:
            for part in message["content"]:
                for word in part.get("text", "[image]").split():
                    if word not in self.words:
                        self.words.append(word)
                    ids.append(self.words.index(word))
                    learns = message["role"] == "assistant" and word != "unlearned"
                    labels.append(ids[-1] if learns else -100)
        return ids, labels


@pytest.fixture
def path(tmp_path: Path, files: Any) -> Path:
    """Eight rows, of which the third, fifth, sixth and eighth are broken."""
    files.images(tmp_path)
    rows = [files.message_row(number) for number in range(8)]
    rows[2]["images"] = []
    rows[4]["images"] = ["absent.png"]
    rows[5]["images"] = ["gone.png"]
    rows[7]["messages"][1]["content"] = "unlearned"
    rows[1]["messages"][1]["content"] = "<b>one</b> two three"
    return files.lines(tmp_path / "rows.jsonl", rows)


def look(path: Path, **options: Any) -> Report:
    return check(open_source("messages", str(path)), str(path), Words(), **options)


def test_what_is_counted(path: Path) -> None:
    report = look(path)
    assert (report.num_rows, report.num_checked, report.num_broken) == (8, 8, 4)
    assert [row.row for row in report.broken] == [3, 5, 6, 8]
    assert report.reasons == {
        "There is no file '...': check the name and the folder": 2,
        "has N image placeholder and N images: give one placeholder for each image": 1,
        "rows.jsonl:N has no token to learn: give it an answer": 1,
    }
    assert report.num_images == 4
    assert report.tokens is not None and report.tiles is not None
    # Rows 0, 1, 3, 6: "Question 0?" and "Answer 0", or three words; images 30, 50 px high.
    assert report.num_supervised == 2 + 3 + 2 + 2
    assert report.tokens.total == 4 + 5 + 4 + 4
    assert report.tiles.total == 3 + 5 + 3 + 3
    assert (report.tokens.median, report.tokens.largest) == (4, 5)
    json.dumps(report.record())


def test_a_limit_and_progress(path: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = look(path, limit=2, progress=lambda *numbers: seen.append(numbers))
    assert (report.num_rows, report.num_checked, report.num_broken) == (8, 2, 0)
    assert seen == [(0, 2), (1, 2)]
    assert look(path, limit=100).num_checked == 8


def test_examples_skip_broken_rows(path: Path) -> None:
    report = look(path, num_examples=4)  # rows 0, 2, 4, 6, of which 2 and 4 are broken
    assert [example.key for example in report.examples] == [
        "rows.jsonl:1",
        "rows.jsonl:4",
        "rows.jsonl:7",
    ]
    assert [(piece.kind, piece.text) for piece in report.examples[0].pieces] == [
        ("image", f"[{path.parent}/0.png: 3 tiles]"),
        ("prompt", "Question 0? "),
        ("answer", "Answer 0 "),
    ]


def test_many_broken_rows_are_counted_and_some_listed(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("no\n" * 300, encoding="utf-8")
    report = look(path)
    assert report.num_broken == 300 and len(report.broken) == 100
    assert list(report.reasons.values()) == [300]
    assert report.tokens is None and report.record()["tiles"] is None


@pytest.mark.parametrize("values", [[5], [0, 1000], list(range(50)), [7, 7, 9]])
def test_histograms_count_every_value_once(values: list[int]) -> None:
    from alignvlm.data.check import _histogram

    histogram = _histogram(values)
    assert histogram is not None
    assert sum(histogram.counts) == len(values)
    assert len(histogram.counts) == len(histogram.edges) - 1 <= 16
    for low, high, count in zip(
        histogram.edges, histogram.edges[1:], histogram.counts, strict=False
    ):
        assert sum(low <= value < high for value in values) == count
    assert histogram.p95 == np.quantile(values, 0.95)


def test_the_page_marks_what_is_learned_and_runs_nothing(path: Path) -> None:
    rows = path.read_text(encoding="utf-8").replace("Question 3?", "<script>alert(1)</script>")
    path.write_text(rows, encoding="utf-8")
    page = render_html(look(path, num_examples=8))
    assert "<mark>Answer 0 </mark>" in page
    assert "<mark>&lt;b&gt;one&lt;/b&gt; two three </mark>" in page
    assert "<script" not in page and "&lt;script&gt;" in page
    assert page.count("data:image/jpeg;base64,") == 4
    assert "default-src 'none'" in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    assert '<td>broken rows</td><td class="number">4</td>' in page


def test_the_models_own_processor(path: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from alignvlm.model.chat import CHATML, build_chat_template
    from alignvlm.model.image_processing import AlignVLMImageProcessor
    from alignvlm.model.processing import AlignVLMProcessor

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(
        models.BPE(vocab={t: i for i, t in enumerate([*special, *letters])}, merges=[])
    )
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<image>"],
    )  # fmt: skip
    tokenizer.chat_template = CHATML
    processor = AlignVLMProcessor(
        image_processor=AlignVLMImageProcessor(tiling={"tile_px": 16}),
        tokenizer=tokenizer,
        chat_template=build_chat_template(tokenizer, "<image>"),
    )
    report = check(
        open_source("messages", str(path)), str(path), processor, limit=1, num_examples=1
    )
    assert report.num_supervised == len("Answer 0") + 1
    rendered = "<user\n\nQuestion 0?>\n<assistant\nAnswer 0>\n"  # < and > being one token each
    assert report.tokens is not None and report.tokens.total == len(rendered)
    assert report.tiles is not None
    assert report.tiles.total == processor.image_processor.num_tiles(30, 40)
    pieces = report.examples[0].pieces
    assert [piece.kind for piece in pieces] == ["prompt", "image", "prompt", "answer", "prompt"]
    assert pieces[3].text == "Answer 0<|im_end|>"
