"""Rows of every format that are odd and legal, and rows that are broken."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignvlm.data.sample import DataSource
from alignvlm.data.sources import open_source
from alignvlm.errors import InputError

Said = Callable[[Any], list[tuple[str, str]]]


@pytest.fixture
def one(tmp_path: Path, files: Any) -> Callable[..., DataSource]:
    """A source of one row, with images 0.png to 2.png beside its file."""

    def make(name: str, row: Any, **options: Any) -> DataSource:
        files.images(tmp_path)
        if name == "cc12m":
            path = files.tar(tmp_path / "row.tar", row)
        elif name in ("bigdocs", "vcr", "cauldron", "hf"):
            path = files.parquet(tmp_path / "row.parquet", [row])
        else:
            path = files.lines(tmp_path / "row.jsonl", [row])
        return open_source(name, str(path), options)

    return make


@pytest.fixture
def broken(one: Any) -> Callable[..., None]:
    def check(name: str, row: Any, reason: str, **options: Any) -> None:
        with pytest.raises(InputError, match=rf"^Row 1 of '.*/row\.\w+' .*{reason}") as caught:
            one(name, row, **options).read(0)
        assert ": " in str(caught.value)

    return check


ANSWER = {"role": "assistant", "content": "b"}


class TestMessages:
    def test_parts_take_the_next_image_or_bring_their_own(
        self, one: Any, said: Said, files: Any
    ) -> None:
        uri = "data:image/png;base64," + base64.b64encode(files.png(2)).decode()
        content = [
            {"type": "image"},
            {"type": "text", "text": "An <image> is "},
            {"type": "image_url", "image_url": {"url": uri}},
            "so.",
            {"type": "image", "image": "0.png"},
            {"type": "image", "image": None, "text": None},
        ]
        row = {"messages": [{"role": "user", "content": content}, ANSWER],
               "images": ["1.png", {"path": "2.png"}]}  # fmt: skip
        sample = one("messages", row).read(0)
        assert said(sample)[0] == ("user", "[i]An <image> is [i]so.[i][i]")
        assert [image.size() for image in sample.images] == [
            files.sizes[number] for number in (1, 2, 0, 2)
        ]
        assert sample.key == "row.jsonl:1"

    def test_queries_and_responses(self, one: Any, said: Said) -> None:
        row = {"system": "s", "query": "<image>now?", "response": "yes", "images": "0.png",
               "history": [["a", "b"], ["c", "d"]]}  # fmt: skip
        assert said(one("messages", row).read(0)) == [
            ("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"),
            ("assistant", "d"), ("user", "[i]now?"), ("assistant", "yes"),
        ]  # fmt: skip

    def test_pretraining(self, one: Any, said: Said) -> None:
        caption = {"role": "assistant", "content": "<image>a caption"}
        row = {"messages": [caption], "images": ["0.png"]}
        assert said(one("messages", row).read(0)) == [("user", "[i]"), ("assistant", "a caption")]
        row = {"response": "<image>a caption", "images": ["0.png"]}
        assert said(one("messages", row).read(0)) == [("user", "[i]"), ("assistant", "a caption")]

    def test_absolute_paths_below_the_images_option(self, one: Any, tmp_path: Path) -> None:
        row = {"messages": [{"role": "user", "content": "<image>a"}, ANSWER],
               "images": [str(tmp_path / "0.png")]}  # fmt: skip
        assert one("messages", row, images=str(tmp_path)).read(0).images[0].size() == (40, 30)
        with pytest.raises(InputError, match="outside the images folder"):
            one("messages", row).read(0)

    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            ({}, "has no 'response'"),
            ({"messages": []}, "has no list of messages"),
            ({"messages": "x"}, "has no list of messages"),
            ({"messages": ["x"]}, "messages that are no objects"),
            ({"messages": [{"role": "tool", "content": "a"}, ANSWER]}, "of role 'tool': use"),
            ({"messages": [{"content": "a"}, ANSWER]}, "of role 'None'"),
            ({"messages": [{"role": "user"}, ANSWER]}, "has no content of a message"),
            ({"messages": [{"role": "user", "content": [3]}, ANSWER]}, "neither text nor object"),
            ({"messages": [{"role": "user", "content": [{"type": "video"}]}, ANSWER]},
             "of type 'video': use text"),
            ({"messages": [{"role": "user", "content": [{"type": "text"}]}, ANSWER]}, "no text"),
            ({"messages": [{"role": "user", "content": [{"type": "image"}]}, ANSWER]},
             "1 image placeholder and 0 images"),
            ({"messages": [{"role": "user", "content": "a"}, ANSWER], "images": ["0.png"]},
             "0 image placeholders and 1 image"),
            ({"messages": [{"role": "user", "content": "<image>"}, ANSWER], "images": ["http://a"]},
             "is no file: download it"),
            ({"messages": [{"role": "user", "content": "a"}, ANSWER | {"loss": False}]},
             "weighs the loss"),
            ({"messages": [{"role": "user", "content": "a"}, ANSWER | {"loss_scale": 0.5}]},
             "weighs the loss"),
            ({"messages": [{"role": "user", "content": "a"}, ANSWER], "videos": ["a"]},
             "has 'videos', which training does not use"),
            ({"query": "a", "response": "b", "history": [["a"]]}, "that is no list of pairs"),
            ({"query": "a", "response": " "}, "an empty answer"),
        ],
    )  # fmt: skip
    def test_broken_rows(self, broken: Any, row: Any, reason: str) -> None:
        broken("messages", row, reason)


class TestLlava:
    def test_rows_without_images_and_with_several(self, one: Any, said: Said, files: Any) -> None:
        text = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
        assert said(one("llava", text).read(0)) == [("user", "a"), ("assistant", "b")]
        two = [{"from": "human", "value": "<image>\nOr <image>?"}, {"from": "gpt", "value": "b"}]
        sample = one("llava", {"image": ["0.png", "1.png"], "conversations": two}).read(0)
        assert said(sample)[0] == ("user", "[i]Or [i]?")

    def test_parquet_rows_without_an_image(self, tmp_path: Path, files: Any, said: Said) -> None:
        text = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
        rows = [
            files.llava_row(0, image=files.struct(0)),
            files.llava_row(1, image=None, conversations=text),
        ]
        path = files.parquet(tmp_path / "x.parquet", rows)
        source = open_source("llava_next", str(path))
        assert said(source.read(1)) == [("user", "a"), ("assistant", "b")]
        assert len(source.read(0).images) == 1

    def test_the_prompt_of_pretraining_can_be_kept(self, one: Any, said: Said, files: Any) -> None:
        row = files.llava_row(0)
        assert said(one("llava_pretrain", row).read(0))[0] == ("user", "[i]")
        kept = one("llava_pretrain", row, keep_prompt=True).read(0)
        assert said(kept)[0][1].startswith("Render a clear")

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"conversations": None}, "has no list of conversations"),
            ({"conversations": [{"from": "bard", "value": "a"}]}, "a turn from 'bard': use system"),
            ({"conversations": [{"from": ["x"], "value": "a"}]}, "a turn from "),
            ({"conversations": [{"from": "human"}]}, "has no value of a turn"),
            ({"image": None}, "1 image placeholder and 0 images"),
            ({"image": ["0.png", "1.png"]}, "1 image placeholder and 2 images"),
            ({"image": 5}, "neither a path"),
            ({"video": "x.mp4"}, "has a video"),
        ],
    )
    def test_broken_rows(self, broken: Any, files: Any, change: Any, reason: str) -> None:
        broken("llava", files.llava_row(0) | change, reason)


class TestCc12m:
    def test_captions_come_from_text_or_json(self, one: Any, said: Said, files: Any) -> None:
        for members, caption in (
            ([("1.txt", b" from text "), ("1.json", b"{}")], "from text"),
            ([("1.json", b'{"caption": "from json"}')], "from json"),
        ):
            sample = one("cc12m", [("1.png", files.png()), *members]).read(0)
            assert said(sample) == [("user", "[i]"), ("assistant", caption)]
        sample = one("cc12m", [("1.png", files.png()), ("1.txt", b"x")], prompt="Caption it.")
        assert said(sample.read(0))[0] == ("user", "[i]Caption it.")

    @pytest.mark.parametrize(
        ("members", "reason"),
        [
            ([("1.txt", b"x")], "has no image"),
            ([("1.jpg", b""), ("1.txt", b"x")], "has no image"),
            ([("1.jpg", b"x")], "has no caption"),
            ([("1.jpg", b"x"), ("1.txt", b" ")], "an empty answer"),
            ([("1.jpg", b"x"), ("1.txt", b"\xff")], "not valid JSON in UTF-8"),
            ([("1.jpg", b"x"), ("1.json", b"[")], "not valid JSON in UTF-8"),
            ([("1.jpg", b"x"), ("1.json", b"[]")], "has no caption"),
            ([("1.jpg", b"x"), ("1.json", b"[" * 100_000)], "not valid JSON in UTF-8"),
        ],
    )
    def test_broken_rows(self, broken: Any, members: Any, reason: str) -> None:
        broken("cc12m", members, reason)


class TestBigDocs:
    def test_columns_in_the_singular_and_plural(self, one: Any, said: Said, files: Any) -> None:
        struct = files.struct
        for row, expected in (
            ({"images": [struct(0), struct(1)], "queries": ["a", "b"], "annotations": ["c", "d"]},
             [("user", "[i][i]a"), ("assistant", "c"), ("user", "b"), ("assistant", "d")]),
            ({"image": struct(0), "query": "<image>a", "annotation": "c"},
             [("user", "[i]a"), ("assistant", "c")]),
            ({"image": struct(0), "queries": ["a"], "annotations": ["c", "or d"]},
             [("user", "[i]a"), ("assistant", "c")]),
            ({"image": files.png(), "question": "a", "answers": [7]},
             [("user", "[i]a"), ("assistant", "7")]),
        ):  # fmt: skip
            assert said(one("bigdocs", row).read(0)) == expected

    def test_images_are_joined_by_their_id(self, tmp_path: Path, files: Any, said: Said) -> None:
        path = files.lines(tmp_path / "TextOCR" / "train.jsonl", [
            {"img_id": "0", "query": "a", "annotations": ["b"]},
            {"img_id": 1, "query": "a", "annotations": ["b"]},
            {"img_id": "2.png", "query": "a", "annotations": ["b"]},
            {"img_id": "absent", "query": "a", "annotations": ["b"]},
            {"img_id": "../0", "query": "a", "annotations": ["b"]},
        ])  # fmt: skip
        files.images(tmp_path / "there")
        source = open_source("bigdocs", str(path), {"images": str(tmp_path / "there")})
        assert [source.read(n).images[0].size() for n in range(3)] == list(files.sizes)
        with pytest.raises(
            InputError,
            match=r"Row 4 of .* needs the image 'absent', which is not in '.*/there': download "
            r"the training images of TextOCR into that folder",
        ):
            source.read(3)
        with pytest.raises(InputError, match="outside the images folder"):
            source.read(4)
        without = open_source("bigdocs", str(path))
        with pytest.raises(InputError, match=r"comes without its image '0': download the training"):
            without.read(0)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"image": None}, "has neither an image nor an img_id"),
            ({"query": None}, "has no query: one of query, queries"),
            ({"annotations": None}, "has no annotation: one of annotations"),
            ({"annotations": [""]}, "an empty answer"),
            ({"query": ["a", "b"], "annotations": ["c"]}, "2 queries and 1 annotations"),
        ],
    )
    def test_broken_rows(self, broken: Any, files: Any, change: Any, reason: str) -> None:
        broken("bigdocs", files.bigdocs_row(0) | change, reason)


class TestDocuments:
    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"image": []}, "1 image placeholder and 0 images"),
            ({"image": None}, "has no 'image'"),
            ({"image": ["/a.png"]}, "outside the images folder"),
            ({"messages": [{"role": "gpt", "content": "a"}]}, "of role 'gpt'"),
        ],
    )
    def test_broken_rows_of_docdownstream(
        self, broken: Any, files: Any, change: Any, reason: str
    ) -> None:
        broken("docdownstream", files.doc_row(0) | change, reason)

    def test_several_images(self, one: Any, files: Any, said: Said) -> None:
        row = files.doc_row(0) | {"image": ["0.png", "1.png"]}
        row["messages"][0]["content"] = "<|image|><|image|>which?"
        assert said(one("docdownstream", row).read(0))[0] == ("user", "[i][i]which?")

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"crossed_text": []}, "has no crossed_text"),
            ({"crossed_text": None}, "has no crossed_text"),
            ({"crossed_text": ["a", " "]}, "or an empty one"),
            ({"stacked_image": None}, "has no 'stacked_image'"),
        ],
    )
    def test_broken_rows_of_vcr(self, broken: Any, files: Any, change: Any, reason: str) -> None:
        broken("vcr", files.vcr_row(0) | change, reason)

    def test_another_question(self, one: Any, files: Any, said: Said) -> None:
        assert said(one("vcr", files.vcr_row(0), prompt="Q?").read(0))[0] == ("user", "[i]Q?")


class TestTurns:
    def test_low_ratings_leave_turns_and_rows_out(
        self, tmp_path: Path, files: Any, said: Said
    ) -> None:
        rows = [files.fine_row(number) for number in range(6)]
        for number, low in enumerate([5, 1, 4, 1, 5, 1]):
            rows[number]["relevance_ratings"] = [low, 3]
        path = files.parquet(tmp_path / "x.parquet", rows)
        every = open_source("finevision", str(path))
        assert len(every) == 6 and len(every.read(1).messages) == 4
        some = open_source("finevision", str(path), {"min_relevance": 4})
        assert len(some) == 3 and list(some.blocks()) == [1, 1, 1]
        assert [some.read(n).key for n in range(3)] == [f"x.parquet:{n}" for n in (1, 3, 5)]
        assert said(some.read(1)) == [("user", "[i][i]Which is 2?"), ("assistant", "The first.")]
        low = open_source("finevision", str(path), {"min_relevance": 2})
        assert said(low.read(1)) == [("user", "[i][i]And now?"), ("assistant", "The second.")]
        with pytest.raises(InputError, match="No row has ratings as high"):
            open_source("finevision", str(path), {"min_relevance": 6})

    def test_rows_whose_ratings_cannot_be_read_are_kept_to_be_reported(
        self, tmp_path: Path, files: Any
    ) -> None:
        row = files.fine_row(0)
        for image in row["images"]:
            image["bytes"], image["path"] = None, "0.png"
        files.images(tmp_path)
        rows = [row | {"relevance_ratings": value} for value in ("x", None, [None, 1])]
        path = files.lines(tmp_path / "x.jsonl", [*rows, 7])
        source = open_source("finevision", str(path), {"min_relevance": 3})
        assert len(source) == 4
        with pytest.raises(InputError, match="relevance_ratings that are no list of numbers"):
            source.read(0)
        assert len(source.read(1).messages) == 4
        assert len(source.read(2).messages) == 2

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"texts": []}, "has no list of texts"),
            ({"texts": [{"user": "a"}]}, "has no assistant's text"),
            ({"texts": [{"user": "a", "assistant": ""}]}, "an empty answer"),
        ],
    )
    def test_broken_rows(self, broken: Any, files: Any, change: Any, reason: str) -> None:
        broken("cauldron", files.text_row(0) | change, reason)

    def test_rows_without_images(self, one: Any, said: Said) -> None:
        row = {"images": [], "texts": [{"user": "a", "assistant": "b"}]}
        assert said(one("cauldron", row).read(0)) == [("user", "a"), ("assistant", "b")]


class TestColumns:
    def test_columns_by_name(self, one: Any, files: Any, said: Said) -> None:
        row = {"picture": files.struct(0), "q": "Who?", "a": "Me", "n": 3}
        source = one("hf", row, image="picture", question="q", answer="a", prompt="In one word.")
        assert said(source.read(0)) == [("user", "[i]Who?\nIn one word."), ("assistant", "Me")]
        source = one("hf", row, image="", question="q", answer="n")
        assert said(source.read(0)) == [("user", "Who?"), ("assistant", "3")]
        source = one("hf", row, image="picture", question="", answer="a")
        assert said(source.read(0)) == [("user", "[i]"), ("assistant", "Me")]

    def test_missing_columns(self, broken: Any, files: Any) -> None:
        row = {"image": files.struct(0), "question": "Who?", "answer": []}
        broken("hf", row, "has no answer in its list")
        broken("hf", row, "has no 'q': add it", question="q")


class TestSynth:
    def test_pages_are_a_function_of_seed_and_number(self, said: Said) -> None:
        from alignvlm.synth import generate

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

    def test_one_question_of_a_page(self) -> None:
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

    def test_there_is_no_end_by_default(self) -> None:
        source = open_source("synth", None, {"kinds": ["easy"]})
        assert len(source) > 10**12
        assert source.read(10**12).key == f"train/easy/{10**12}"


def test_keys_tell_files_of_one_name_apart(tmp_path: Path, files: Any) -> None:
    for part in ("a", "b"):
        files.parquet(tmp_path / part / "train-0.parquet", [files.bigdocs_row(0)])
    source = open_source("bigdocs", str(tmp_path))
    assert [source.read(n).key for n in range(2)] == ["a/train-0.parquet:1", "b/train-0.parquet:1"]
    (image,) = source.read(1).images
    assert image.name == "image 1 of b/train-0.parquet:1"


def test_the_papers_record_of_docdownstream(tmp_path: Path, said: Said, files: Any) -> None:
    line = (
        '{"image":["./imgs/DUE_Benchmark/DocVQA/pngs/xnbl0037_1.png"],"messages":[{"role":"user",'
        '"content":"<|image|>what is the date mentioned in this letter?"},{"role":"assistant",'
        '"content":"1/8/93"}],"task_name":"qa_sft","dataset_name":"DocVQA"}\n'
    )
    folder = tmp_path / "imgs" / "DUE_Benchmark" / "DocVQA" / "pngs"
    folder.mkdir(parents=True)
    (folder / "xnbl0037_1.png").write_bytes(files.png(1))
    (tmp_path / "train.jsonl").write_text(line, encoding="utf-8")
    sample = open_source("docdownstream", str(tmp_path)).read(0)
    assert said(sample)[1] == ("assistant", "1/8/93")
    assert sample.images[0].size() == files.sizes[1]
    assert json.loads(line)["dataset_name"] == "DocVQA"
