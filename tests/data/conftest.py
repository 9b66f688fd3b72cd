"""Files of every source in its own schema, written by the test, and what their rows must say."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

SIZES = ((40, 30), (20, 50), (33, 21))


def png(number: int = 0, kind: str = "PNG") -> bytes:
    """An image file; its size tells which."""
    buffer = io.BytesIO()
    Image.new("RGB", SIZES[number % 3], (number * 40 % 256, 90, 200)).save(buffer, kind)
    return buffer.getvalue()


def write_lines(path: Path, rows: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: Sequence[dict[str, Any]], row_group_size: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=row_group_size)
    return path


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def struct(number: int) -> dict[str, Any]:
    """An image as the Hub's parquet files hold it."""
    return {"bytes": png(number), "path": f"{number}.png"}


def llava_row(number: int, **fields: Any) -> dict[str, Any]:
    human = "Render a clear and concise summary of the photo.\n<image>"
    said = [{"from": "human", "value": human}, {"from": "gpt", "value": f"caption {number}"}]
    return {"id": f"{number:09}", "image": f"{number % 3}.png", "conversations": said} | fields


def doc_row(number: int) -> dict[str, Any]:
    asked = "<|image|>what is the date mentioned in this letter?"
    said = [{"role": "user", "content": asked}, {"role": "assistant", "content": "1/8/93"}]
    return {
        "image": [f"./imgs/DUE_Benchmark/DocVQA/pngs/{number % 3}.png"],
        "messages": said, "task_name": "qa_sft", "dataset_name": "DocVQA",
    }  # fmt: skip


def text_row(number: int) -> dict[str, Any]:
    """A turn of the Cauldron with two images."""
    texts = [
        {"user": f"Which is {number}?", "assistant": "The first.", "source": "nlvr2"},
        {"user": "And now?", "assistant": "The second.", "source": "nlvr2"},
    ]
    return {"images": [struct(number), struct(number + 1)], "texts": texts}


def message_row(number: int) -> dict[str, Any]:
    asked = {"role": "user", "content": f"<image>Question {number}?"}
    answer = {"role": "assistant", "content": f"Answer {number}"}
    return {"messages": [asked, answer], "images": [f"{number % 3}.png"]}


def shard(first: int, count: int) -> list[tuple[str, bytes]]:
    members = []
    for number in range(first, first + count):
        about = {
            "caption": f"caption {number}", "url": "https://i.example.com/x.jpg",
            "key": f"{number:09}", "status": "success", "error_message": None, "width": 555,
            "height": 416, "exif": "{}", "original_width": 555, "original_height": 416,
        }  # fmt: skip
        members += [
            (f"{number:09}.jpg", png(number, "JPEG")),
            (f"{number:09}.txt", f"caption {number}".encode()),
            (f"{number:09}.json", json.dumps(about).encode()),
        ]
    return members


def save_to_disk(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """What `datasets.Dataset.save_to_disk` leaves: arrow streams and their list."""
    folder.mkdir(parents=True)
    table = pyarrow.Table.from_pylist(rows)
    half = table.num_rows // 2
    names = [f"data-{part:05}-of-00002.arrow" for part in range(2)]
    for name, part in zip(names, (table[:half], table[half:]), strict=True):
        with pyarrow.ipc.new_stream(folder / name, table.schema) as stream:
            stream.write_table(part, max_chunksize=2)
    state = {"_data_files": [{"filename": name} for name in names], "_split": "train"}
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
    (folder / "dataset_info.json").write_text("{}", encoding="utf-8")
    return folder


def images_in(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(3):
        (folder / f"{number}.png").write_bytes(png(number))


def bigdocs_row(number: int) -> dict[str, Any]:
    return {
        "sample_id": f"s{number}", "image": struct(number), "query": "Transcribe the page.",
        "annotations": [f"text {number}"], "query_info": {"notes": None},
        "annotation_info": {"created": "2024"}, "image_info": {"width": 40},
    }  # fmt: skip


def vcr_row(number: int) -> dict[str, Any]:
    return {
        "image": struct(0), "caption": f"A town of {number} people in the north",
        "stacked_image": struct(number), "only_it_image": struct(1),
        "only_it_image_small": struct(1), "crossed_text": [f"town of {number}", "in the north"],
    }  # fmt: skip


def fine_row(number: int) -> dict[str, Any]:
    names = ("relevance", "image_correspondence", "visual_dependency", "formatting")
    return (
        text_row(number)
        | {f"{name}_ratings": [5, number % 5 + 1] for name in names}
        | {f"{name}_min": number % 5 + 1 for name in names}
    )


Made = dict[str, tuple[str | None, dict[str, Any]]]


def make_all(root: Path) -> Made:
    """Six rows of every source: its path and options."""
    numbers = range(6)
    for folder in ("messages", "llava", "pretrain", "docs/imgs/DUE_Benchmark/DocVQA/pngs"):
        images_in(root / folder)
    listed = root / "pretrain" / "blip_laion_cc_sbu_558k.json"
    listed.write_text(json.dumps([llava_row(n) for n in numbers], indent=1), encoding="utf-8")
    (root / "pretrain" / "blip_laion_cc_sbu_558k_meta.json").write_text("[]", encoding="utf-8")
    write_lines(root / "messages" / "train.jsonl", [message_row(n) for n in numbers])
    write_lines(root / "llava" / "mix.jsonl", [llava_row(n) for n in numbers])
    write_lines(root / "docs" / "train.jsonl", [doc_row(n) for n in numbers])
    write_lines(root / "docs" / "val.jsonl", [doc_row(0)])
    next_rows = [llava_row(n, image=struct(n), data_source="x") for n in numbers]
    write_parquet(root / "next" / "data" / "train-00000-of-00001.parquet", next_rows)
    for part in range(2):
        write_tar(root / "cc12m" / f"cc12m-train-{part:04}.tar", shard(3 * part, 3))
    write_parquet(root / "bigdocs" / "ArxivOCR" / "train-0.parquet", map_to(bigdocs_row))
    write_parquet(root / "vcr" / "train-0.parquet", map_to(vcr_row))
    write_parquet(root / "cauldron" / "nlvr2" / "train-0.parquet", map_to(text_row))
    write_parquet(root / "fine" / "x" / "train-0.parquet", map_to(fine_row))
    hf_rows = [{"image": struct(n), "query": "Who?", "answers": [f"name {n}"]} for n in numbers]
    save_to_disk(root / "hf" / "train", hf_rows)
    (root / "hf" / "dataset_dict.json").write_text('{"splits": ["train"]}', encoding="utf-8")
    return {
        "messages": (str(root / "messages" / "train.jsonl"), {}),
        "llava": (str(root / "llava" / "mix.jsonl"), {}),
        "llava_pretrain": (str(root / "pretrain"), {}),
        "llava_next": (str(root / "next"), {}),
        "cc12m": (str(root / "cc12m"), {}),
        "bigdocs": (str(root / "bigdocs"), {}),
        "docdownstream": (str(root / "docs"), {}),
        "vcr": (str(root / "vcr"), {}),
        "cauldron": (str(root / "cauldron"), {}),
        "finevision": (str(root / "fine"), {}),
        "hf": (str(root / "hf"), {"question": "query", "answer": "answers"}),
        "synth": (None, {"num_pages": 6, "kinds": ["easy"], "seed": 3, "strength": 0.0}),
    }


def map_to(make: Callable[[int], dict[str, Any]]) -> list[dict[str, Any]]:
    return [make(number) for number in range(6)]


class Files:
    """The helpers of this file, for tests to call."""

    png = staticmethod(png)
    sizes = SIZES
    struct = staticmethod(struct)
    lines = staticmethod(write_lines)
    parquet = staticmethod(write_parquet)
    tar = staticmethod(write_tar)
    images = staticmethod(images_in)
    shard = staticmethod(shard)
    save_to_disk = staticmethod(save_to_disk)
    llava_row = staticmethod(llava_row)
    text_row = staticmethod(text_row)
    bigdocs_row = staticmethod(bigdocs_row)
    vcr_row = staticmethod(vcr_row)
    fine_row = staticmethod(fine_row)
    message_row = staticmethod(message_row)
    doc_row = staticmethod(doc_row)


@pytest.fixture(scope="session")
def files() -> type[Files]:
    return Files


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Six good rows of every source."""
    return make_all(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="session", autouse=True)
def _own_index(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What is learned about the tests' files is forgotten with them."""
    folder = tmp_path_factory.mktemp("cache")
    patch = pytest.MonkeyPatch()
    patch.setattr("alignvlm.data.rows.index.cache_dir", lambda: folder)
    yield folder
    patch.undo()


@pytest.fixture
def said() -> Callable[[Any], list[tuple[str, str]]]:
    """A sample's messages as pairs of role and text, an image being [i]."""

    def flat(sample: Any) -> list[tuple[str, str]]:
        return [
            (m["role"], "".join("[i]" if p["type"] == "image" else p["text"] for p in m["content"]))
            for m in sample.messages
        ]

    return flat
