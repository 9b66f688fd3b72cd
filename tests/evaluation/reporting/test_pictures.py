"""Images of cases: small, bounded in all, and never an error."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alignvlm.data.images import DrawnImage, FileImage
from alignvlm.errors import InputError
from alignvlm.evaluation.question import Question
from alignvlm.evaluation.reporting import pictures, read_runs
from alignvlm.evaluation.reporting.cases import Case, all_cases
from alignvlm.evaluation.reporting.pictures import Gallery, Pictures, open_benchmark
from alignvlm.evaluation.reporting.runs import Result

WriteRun = Callable[..., Path]


@dataclass
class Opened:
    """A result, its cases, and a way to show one of them."""

    result: Result
    cases: list[Case]

    def show(self, place: int, questions: Any, **options: Any) -> Pictures:
        return Gallery(lambda _: questions, **options).show(self.cases[place], self.result)


@pytest.fixture
def opened(reporting_write: WriteRun) -> Opened:
    rows = [{"id": f"q{i}", "answers": ["x"], "raw": "y"} for i in range(3)]
    runs = read_runs([reporting_write("r", {"docvqa": rows})])
    return Opened(runs[0].results["docvqa"], all_cases(runs, "docvqa"))


def question(name: str, *images: Any) -> Question:
    sources = tuple(
        DrawnImage(image, "drawn") if isinstance(image, Image.Image) else image for image in images
    )
    return Question(id=name, text="", images=sources, answers=["x"], measures=("anls",))


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def decoded(uri: str) -> Image.Image:
    head, _, content = uri.partition(",")
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_a_page_is_shown_small(opened: Opened) -> None:
    shown = opened.show(1, [question("q0"), question("q1", Image.new("L", (2000, 1000)))])
    (uri,) = shown.uris
    assert decoded(uri).size == (900, 450) and shown.remark == ""


def test_even_noise_fits(opened: Opened) -> None:
    (uri,) = opened.show(0, [question("q0", noise(3000, 3000))]).uris
    assert len(uri) < pictures.MAX_IMAGE_BYTES + 100


def test_a_question_that_moved_is_found_by_its_id(opened: Opened) -> None:
    page = Image.new("RGB", (10, 20))
    assert len(opened.show(0, [question("other"), question("q0", page)]).uris) == 1
    shown = opened.show(2, [question("other", page)])
    assert shown.uris == () and "no longer has this question" in shown.remark


class Broken(Sequence[Question]):
    """Row 0 cannot be read."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: Any) -> Any:
        if index == 0:
            raise InputError("Row 1 of 'x.tsv' has no image: add it")
        return question("q1", Image.new("RGB", (5, 5)))


def test_what_is_missing_is_said(opened: Opened, tmp_path: Path) -> None:
    assert len(opened.show(1, Broken()).uris) == 1
    assert "no longer has" in opened.show(0, Broken()).remark
    lost = FileImage(str(tmp_path / "lost.png"))
    shown = opened.show(0, [question("q0", lost)])
    assert shown.uris == () and "lost.png" in shown.remark
    assert opened.show(0, [question("q0")]).remark == "The question has no image."


def test_data_that_is_gone_is_looked_for_once(opened: Opened) -> None:
    tried = []

    def again(result: Result) -> Any:
        tried.append(result.name)
        raise InputError("the data is gone: put it back")

    gallery = Gallery(again)
    said = [gallery.show(case, opened.result).remark for case in opened.cases]
    assert said == ["No image: the data is gone: put it back."] * 3 and tried == ["docvqa"]


def test_the_page_stays_bounded(opened: Opened) -> None:
    many = question("q0", *[noise(400, 400)] * 6)
    shown = opened.show(0, [many])
    assert len(shown.uris) == 4 and shown.remark == "2 more images are not shown."
    shown = opened.show(0, [many], left_bytes=2 * pictures.MAX_IMAGE_BYTES)
    assert 0 < len(shown.uris) < 4 and "large enough" in shown.remark
    assert sum(map(len, shown.uris)) <= 2 * pictures.MAX_IMAGE_BYTES


def result_of(opened: Opened, called: str = "docvqa", **record: Any) -> Result:
    return Result(name=called, record=record, reported={}, predictions=opened.result.predictions,
                  scores=opened.result.scores)  # fmt: skip


def test_nothing_is_looked_for_where_the_run_does_not_say(opened: Opened, tmp_path: Path) -> None:
    for where in ("", str(tmp_path / "gone")):
        with pytest.raises(InputError, match="no longer where it was"):
            open_benchmark(result_of(opened, home="tsv", where=where))


def test_drawn_pages_are_drawn_again(opened: Opened) -> None:
    from alignvlm.evaluation.benchmarks import synthdoc

    record = {**synthdoc(6, seed=3).to_record(), "home": "drawn", "where": ""}
    again = open_benchmark(result_of(opened, "synthdoc", **record))
    assert len(again) == 6 and again[0].id.endswith("/3")


def test_a_user_s_own_questions_are_read_again(opened: Opened, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    Image.new("RGB", (8, 8)).save(tmp_path / "page.png")
    path.write_text('{"id": "q1", "image": "page.png", "question": "?", "answers": ["x"]}\n')
    record = {"home": "jsonl", "where": str(path), "measures": ["anls"]}
    again = open_benchmark(result_of(opened, "mine", **record))
    assert [one.id for one in again] == ["q1"]
