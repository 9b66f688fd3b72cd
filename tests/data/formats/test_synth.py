"""Drawn pages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignvlm.data.sources import guess_source, open_source
from alignvlm.synth import generate, write_dataset

Said = Callable[[Any], list[tuple[str, str]]]


def test_pages_are_a_function_of_seed_and_number(said: Said) -> None:
    source = open_source("synth", None, {"kinds": ["easy", "form"], "seed": 5})
    sample = source.read(3)
    page = generate("form", 8)
    assert sample.images[0].load().tobytes() == page.image.tobytes()
    assert said(sample)[:2] == [
        ("user", f"[i]{page.questions[0].question}"),
        ("assistant", page.questions[0].answers[0]),
    ]
    assert len(sample.messages) == 2 * len(page.questions)
    assert sample.key == "train/form/8"


def test_one_question_of_a_page() -> None:
    options = {"kinds": ["form"], "one_question": True}
    asked = set()
    for seed in range(4):
        source = open_source("synth", None, {**options, "seed": seed})
        sample = source.read(0)
        assert len(sample.messages) == 2
        assert sample.messages == source.read(0).messages
        every = open_source("synth", None, {"kinds": ["form"], "seed": seed}).read(0)
        texts = [m["content"][-1]["text"] for m in every.messages[::2]]
        asked.add(texts.index(sample.messages[0]["content"][-1]["text"]))
    assert len(asked) > 1


def test_there_is_no_end_by_default() -> None:
    source = open_source("synth", None, {"kinds": ["easy"]})
    assert len(source) > 10**12
    assert source.read(10**12).key == f"train/easy/{10**12}"


def test_what_data_synth_writes_can_be_trained_on(tmp_path: Path, said: Said) -> None:
    """The folder's rows ask what the source asks."""
    index = write_dataset(tmp_path, ["easy", "form"], 2, seed=5)
    written = open_source(guess_source(str(index)), str(index))
    drawn = open_source("synth", None, {"kinds": ["easy", "form"], "seed": 5})
    for number in range(2):
        ours, theirs = written.read(number), drawn.read(number)
        assert said(ours) == said(theirs)
        assert ours.images[0].load().tobytes() == theirs.images[0].load().tobytes()
