"""One battery over every source, by its exact name."""

from __future__ import annotations

import copy
import dataclasses
import operator
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignvlm.data.formats.base import RecordFormat, RecordSource
from alignvlm.data.rows.base import Place, Row, Rows
from alignvlm.data.sample import DataSource, Sample
from alignvlm.data.sources import SOURCES, guess_source, open_source
from alignvlm.errors import ConfigurationError, InputError

NAMES = sorted(SOURCES)

FIRST = {
    "messages": [("user", "[i]Question 0?"), ("assistant", "Answer 0")],
    "llava": [
        ("user", "Render a clear and concise summary of the photo.\n[i]"),
        ("assistant", "caption 0"),
    ],
    "llava_pretrain": [("user", "[i]"), ("assistant", "caption 0")],
    "cc12m": [("user", "[i]"), ("assistant", "caption 0")],
    "bigdocs": [("user", "[i]Transcribe the page."), ("assistant", "text 0")],
    "docdownstream": [
        ("user", "[i]what is the date mentioned in this letter?"),
        ("assistant", "1/8/93"),
    ],
    "vcr": [
        (
            "user",
            "[i]What is the covered texts in the image? Please restore the covered texts without "
            "outputting the explanations.",
        ),
        ("assistant", "town of 0\nin the north"),
    ],
    "cauldron": [
        ("user", "[i][i]Which is 0?"), ("assistant", "The first."),
        ("user", "And now?"), ("assistant", "The second."),
    ],
    "hf": [("user", "[i]Who?"), ("assistant", "name 0")],
}  # fmt: skip
FIRST["llava_next"] = FIRST["llava"]
FIRST["finevision"] = FIRST["cauldron"]


@pytest.fixture(scope="module")
def opened(made: Any) -> dict[str, DataSource]:
    return {name: open_source(name, *made[name]) for name in NAMES}


def same(one: Sample, other: Sample) -> bool:
    return (one.key, one.messages) == (other.key, other.messages) and [
        (image.name, image.size(), image.load().tobytes()) for image in one.images
    ] == [(image.name, image.size(), image.load().tobytes()) for image in other.images]


def test_every_source_is_in_the_battery(made: Any) -> None:
    assert set(made) == set(SOURCES) == set(FIRST) | {"synth"}


@pytest.mark.parametrize("name", NAMES)
def test_rows_blocks_and_keys(name: str, opened: dict[str, DataSource]) -> None:
    source = opened[name]
    assert source.name == name
    assert len(source) == 6 == sum(source.blocks())
    samples = [source.read(index) for index in range(6)]
    assert len({sample.key for sample in samples}) == 6
    for sample in samples:
        parts = [part for message in sample.messages for part in message["content"]]
        assert sum(part["type"] == "image" for part in parts) == len(sample.images) >= 1
        assert sample.messages[-1]["role"] == "assistant"
        for image in sample.images:
            loaded = image.load()
            assert (loaded.mode, loaded.size) == ("RGB", image.size())
    for wrong in (-1, 6):
        with pytest.raises(IndexError):
            source.read(wrong)


@pytest.mark.parametrize("name", sorted(FIRST))
def test_the_first_row_says(
    name: str, opened: dict[str, DataSource], said: Callable[[Any], Any], files: Any
) -> None:
    sample = opened[name].read(0)
    assert said(sample) == FIRST[name]
    assert sample.images[0].size() == files.sizes[0]


@pytest.mark.parametrize("name", NAMES)
def test_reading_does_not_depend_on_what_was_read(
    name: str, opened: dict[str, DataSource], made: Any
) -> None:
    other = open_source(name, *made[name])
    for index in (5, 0, 3, 3):
        assert same(other.read(index), opened[name].read(index))


def test_a_spawned_process_reads_the_same(opened: dict[str, DataSource]) -> None:
    for source in opened.values():
        source.read(2)  # what is open here must not travel
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        there = list(pool.map(operator.methodcaller("read", 4), opened.values()))
    for sample, source in zip(there, opened.values(), strict=True):
        assert same(sample, source.read(4))


class OneRow(Rows):
    """A row that any file might hold."""

    def __init__(self, row: Row, folder: Path) -> None:
        self._row, self._folder = row, folder

    def __len__(self) -> int:
        return 1

    def row(self, index: int) -> Row:
        return self._row

    def place(self, index: int) -> Place:
        return Place(self._folder / "rows.jsonl", 17)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    | st.sampled_from(["<image>", "<image> x", "user", "assistant", "human", "gpt", "a.png"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["role", "content", "from", "value", "user", "assistant", "bytes", "path",
                         "type", "text", "image_url", "url", "messages"]) | st.text(max_size=3),
        inner, max_size=3,
    ),
    max_leaves=6,
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a row that can be replaced."""
    found = [path] if path else []
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    return found + [inner for key, part in items for inner in places(part, (*path, key))]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "synth"])
@given(data=st.data())
def test_no_row_raises_anything_but_an_input_error(
    name: str, made: Any, opened: dict[str, DataSource], data: st.DataObject
) -> None:
    source = opened[name]
    assert isinstance(source, RecordSource)
    row = copy.deepcopy(dict(source._rows.row(1)))
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(places(row)))
        target: Any = row
        for key in path[:-1]:
            if not isinstance(target, (dict, list)):
                break
            target = target[key] if isinstance(target, list) else target.get(key)
        if isinstance(target, dict) or (isinstance(target, list) and path[-1] < len(target)):
            target[path[-1]] = data.draw(ANYTHING)
    folder = Path(made[name][0]).parent
    changed = RecordSource(name, OneRow(row, folder), source._form, folder)
    try:
        sample = changed.read(0)
    except InputError as error:
        sentence = str(error)
        assert sentence.startswith(f"Row 17 of '{folder}/rows.jsonl' ") and ": " in sentence
        assert sentence.isprintable() and not re.search(r"0x\w{4}|<[\w.]+ |object at", sentence)
        return
    for message in sample.messages:
        for part in message["content"]:
            part.get("text", "").encode()
    for image in sample.images:
        try:
            image.size()
            image.load()
        except InputError as error:
            assert str(error).isprintable()


@pytest.mark.parametrize("name", sorted({*NAMES} - {"synth", "llava_pretrain", "hf"}))
def test_a_source_is_guessed(name: str, made: Any) -> None:
    assert guess_source(made[name][0]) == name


def test_files_of_no_known_source(tmp_path: Path, files: Any) -> None:
    path = files.lines(tmp_path / "x.jsonl", [{"foo": 1, "bar": 2}])
    with pytest.raises(InputError, match=r"no fields of a known source \(bar, foo\): name one of"):
        guess_source(str(path))
    path.write_text("no\n", encoding="utf-8")
    with pytest.raises(InputError, match="no row that can be read"):
        guess_source(str(path))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lava", {}, r"no data source 'lava' \(did you mean 'llava'\?\): use one of messages"),
        ("xyz", {}, r"no data source 'xyz': use"),
        (
            "llava",
            {"image": "x"},
            r"no option 'image' \(did you mean 'images'\?\): use images, spl",
        ),
        (
            "llava",
            {"images": 3},
            "'images' of the data source 'llava' cannot be 3: give text or no",
        ),
        ("llava_pretrain", {"keep_prompt": 1}, "'keep_prompt' .* cannot be 1: give true or false"),
        ("synth", {"num_pages": True}, "cannot be True: give a whole number or nothing"),
        ("synth", {"strength": "x"}, "cannot be 'x': give a number"),
        ("synth", {"kinds": [1]}, r"cannot be \(1,\): give a list of texts"),
        ("synth", {"kinds": ["novel"]}, "no document kind 'novel': use easy"),
        ("synth", {"split": "test"}, "no split 'test'"),
        ("synth", {"strength": 2}, "strength is 2"),
        ("synth", {"num_pages": 0}, "num_pages is 0: ask"),
        ("llava", {}, "'llava' needs files: give its path"),
    ],
)
def test_wrong_names_and_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        open_source(name, None, options)


def test_drawn_pages_have_no_path() -> None:
    with pytest.raises(ConfigurationError, match="draws its pages: leave its path out"):
        open_source("synth", "x")


def test_an_images_folder_must_exist(made: Any) -> None:
    with pytest.raises(InputError, match="no images folder '/nowhere'"):
        open_source("llava", made["llava"][0], {"images": "/nowhere"})


def test_options_are_documented() -> None:
    for name, form in SOURCES.items():
        inherited = {field.name for field in dataclasses.fields(RecordFormat)}
        for field in dataclasses.fields(form):
            documented = form.__doc__ if field.name not in inherited else RecordFormat.__doc__
            docs = f"{documented}{form.__mro__[1].__doc__}"
            assert field.name in docs, (name, field.name)
