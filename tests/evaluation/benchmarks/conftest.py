"""Every benchmark's files, in each form they are published in, written by the test."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

SIZES = ((40, 30), (20, 50), (33, 21))


@pytest.fixture
def bench_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder and no data home, so that nothing of this machine is found."""
    monkeypatch.setenv("ALIGNVLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ALIGNVLM_DATA", raising=False)
    return tmp_path / "cache"


def png(number: int = 0) -> bytes:
    """An image file; its size tells which. Noise, so that it is longer than 64 characters."""
    width, height = SIZES[number % 3]
    pixels = bytes((i * 37 + number * 91) % 256 for i in range(width * height * 3))
    buffer = io.BytesIO()
    Image.frombytes("RGB", (width, height), pixels).save(buffer, "PNG")
    return buffer.getvalue()


def coded(number: int = 0) -> str:
    return base64.b64encode(png(number)).decode()


def struct(number: int = 0) -> dict[str, Any]:
    return {"bytes": png(number), "path": None}


def write_tsv(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """As pandas writes it: cells in quotes only where they must be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([row.get(name, "") for name in columns] for row in rows)
    return path


def write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path, row_group_size=2)
    return path


def write_lines(path: Path, rows: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


class Case(NamedTuple):
    """One home of one benchmark."""

    benchmark: str
    home: str
    make: Callable[[Path], Path]
    """Writes its files into a folder; what is opened is returned."""
    num_questions: int


def _tsv(*rows: dict[str, Any]) -> Callable[[Path], Path]:
    """Rows with an index; the second of two without an image has the first one's."""
    full = [{"index": str(number), **row} for number, row in enumerate(rows, 10)]
    for number, row in enumerate(full):
        row.setdefault("image", coded(number) if number != 1 else "10")
    return lambda folder: write_tsv(folder / "rows.tsv", full)


def _hub(name: str, *rows: dict[str, Any], image: str = "image") -> Callable[[Path], Path]:
    full = [({image: struct(number)} if image else {}) | row for number, row in enumerate(rows)]

    def make(folder: Path) -> Path:
        half = max(1, len(full) // 2)
        write_parquet(folder / name.format("00000-of-00002"), full[:half])
        write_parquet(folder / name.format("00001-of-00002"), full[half:])
        # Another split beside it, which must not be read.
        write_parquet(folder / Path(name).parent / "train-00000-of-00001.parquet", full)
        return folder

    return make


def docowl(
    folder: Path,
    dataset: str,
    asked: Sequence[tuple[str, str, str]],
    documents: Sequence[dict[str, Any]] = (),
) -> Path:
    """A part of DocDownstream; asked: (document, question, answer)."""
    root = folder / "DocDownstream-1.0"
    rows, metadata = [], []
    for number, (document, question, answer) in enumerate(asked):
        image = f"imgs/DUE_Benchmark/{dataset}/pngs/{document}_{number}.png"
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        (root / image).write_bytes(png(number))
        said = [
            {"role": "user", "content": f"<|image|>{question}"},
            {"role": "assistant", "content": answer},
        ]
        rows.append({"image": [f"./{image}"], "messages": said, "dataset_name": dataset})
        parses = json.dumps({"gt_parses": [{"question": question, "answer": answer}]})
        metadata.append({"file_name": f"{dataset}/{document}.pdf_0.png", "ground_truth": parses})
    write_lines(root / "test" / f"{dataset}_test.jsonl", rows)
    if documents:
        write_lines(root / "meta" / dataset / "test" / "metadata.jsonl", metadata)
        write_lines(root / "meta" / dataset / "test" / "document.jsonl", documents)
    return folder


def document(name: str, **values: Sequence[Any]) -> dict[str, Any]:
    """A document of DUE's; a value is a text or an object with variants."""
    return {
        "name": name,
        "language": "en",
        "split": "test",
        "annotations": [
            {"key": key.replace("_QUESTION_", " "),
             "values": [v if isinstance(v, dict) else {"value": v} for v in found]}
            for key, found in values.items()
        ],
    }  # fmt: skip


def _deepform(folder: Path) -> Path:
    ask = "What is the value for the {}?".format
    return docowl(
        folder,
        "DeepForm",
        [("a-1", ask("advertiser"), "ACME"), ("a-1", ask("gross_amount"), "$12,500.00"),
         ("b-2", ask("flight_from"), "None")],
        [document("a-1", advertiser=["Acme"], gross_amount=["$12,500.00"]), document("b-2")],
    )  # fmt: skip


def _klc(folder: Path) -> Path:
    ask = "What is the value for the {}?".format
    return docowl(
        folder,
        "KleisterCharity",
        [("1", ask("address__postcode"), "AB1 2CD"), ("1", ask("charity_number"), "123"),
         ("2", ask("charity_name"), "The Trust")],
        [document("1", address__postcode=["AB1 2CD"], charity_number=["123"]),
         document("2", charity_name=["The Trust"])],
    )  # fmt: skip


def _wtq(folder: Path) -> Path:
    first = {"key": "how many ships?", "values": [{"value": "3"}]}
    second = {"key": "which were lost?", "values": [{"value": "Ada"}, {"value": "Bertha"}]}
    return docowl(
        folder,
        "WikiTableQuestions",
        [("204-1", "how many ships?", "3"), ("204-1", "which were lost?", "Ada, Bertha")],
        [{"name": "204-1", "annotations": [first, second]}],
    )


def _tabfact(folder: Path) -> Path:
    return docowl(
        folder, "TabFact", [("t", "the team win 3 game", "True"), ("u", "it rain", "False")]
    )


def _gqa(folder: Path) -> Path:
    asked = [
        {"id": "g1", "imageId": "n1", "question": "Is it red?", "answer": "yes"},
        {"id": "g2", "imageId": "n2", "question": "What is on the table?", "answer": "cup"},
        {"id": "g3", "imageId": "n1", "question": "Who sits?", "answer": "man"},
    ]
    shard = "testdev-00000-of-00001.parquet"
    write_parquet(folder / "testdev_balanced_instructions" / shard, asked)
    images = [{"id": "n2", "image": struct(1)}, {"id": "n1", "image": struct(0)}]
    write_parquet(folder / "testdev_balanced_images" / shard, images)
    return folder


def _tables_hub(folder: Path) -> Path:
    golds = {"vwtq": "Apple|Pear", "vwtq_syn": "2", "vtabfact": 1, "fintabnetqa": "$3 million"}
    for number, (split, gold) in enumerate(golds.items()):
        row = {"qa_id": f"q{number}", "question": "which?", "gt": gold, "image": struct(number)}
        write_parquet(folder / "data" / f"{split}-00000-of-00001.parquet", [row])
    return folder


TEN = ["red", "red", "red", "red", "Red", "red", "red", "red", "red", "a red"]
FOUR = {"A": "one", "B": "two", "C": "three", "D": "four"}
LETTERS = {"choice_a": "one", "choice_b": "two", "choice_c": "three", "choice_d": "four"}
VAL, TEST = "data/validation-{}.parquet", "data/test-{}.parquet"


def _cases() -> list[Case]:
    q = "Who signed?"
    short = [{"question": q, "answers": ["J. Doe", "Doe"]}, {"question": "When?", "answers": ["1"]}]
    as_text = [{"question": row["question"], "answer": str(row["answers"])} for row in short]
    charts = [{"question": q, "answer": "14.5"}, {"question": "Which bar?", "answer": "Norway"}]
    pope = [
        {"question": "Is there a dog?", "answer": "Yes", "category": "adversarial,popular,random"},
        {"question": "Is there a cat?", "answer": "No", "category": "popular"},
    ]
    tables = [
        {"question": "which?", "answer": "Apple|Pear", "split": "vwtq"},
        {"question": "how many?", "answer": "2", "split": "vwtq_syn"},
        {"question": "it rain", "answer": "0", "split": "vtabfact"},
        {"question": "what sum?", "answer": "$3,852 million", "split": "fintabnetqa"},
    ]
    mmmu = [
        {"question": "Look at <image 1>: which?", **FOUR, "answer": "C", "category": "Art",
         "l2-category": "Art & Design", "split": "validation", "image": f"['{coded(0)}']",
         "image_path": "['1.jpg']"},
        {"question": "<image 2> or <image 1>?", **FOUR, "answer": "A", "category": "Art",
         "split": "validation", "image": str([coded(1), coded(2)]), "image_path": "['2', '3']"},
        {"question": "The value in <image 1>?", "answer": "5.3", "category": "Math",
         "split": "validation", "image": coded(2)},
        {"question": "Another <image 1>?", **FOUR, "answer": "A", "category": "Art",
         "split": "dev", "image": coded(1)},
    ]  # fmt: skip
    none = {f"image_{number}": None for number in range(3, 8)}
    mmmu_hub = [
        {"id": "validation_Art_1", "question": "Look at <image 1>: which?",
         "options": "['one', 'two', 'three']", "question_type": "multiple-choice", "answer": "C",
         "image_1": struct(0), "image_2": None, **none},
        {"id": "validation_Art_Theory_2", "question": "<image 2> or <image 1>?",
         "options": "['one', 'two']", "question_type": "multiple-choice", "answer": "A",
         "image_1": struct(0), "image_2": struct(1), **none},
        {"id": "validation_Math_3", "question": "The value in <image 1>?", "options": "[]",
         "question_type": "open", "answer": "5.3", "image_1": struct(2),
         "image_2": None, **none},
    ]  # fmt: skip
    seed = [
        {"question": q, **FOUR, "answer": "D", "category": "Scene Understanding"},
        {"question": q, **FOUR, "answer": "B", "category": "Visual Reasoning"},
    ]
    seed_hub = [
        {"question_id": "1", "question": q, **LETTERS, "answer": "D", "data_type": "image",
         "question_type_id": 1, "image": [struct(0)]},
        {"question_id": "v", "question": q, **LETTERS, "answer": "A", "data_type": "video",
         "question_type_id": 10, "image": [struct(0), struct(1)]},
        {"question_id": "2", "question": q, **LETTERS, "answer": "B", "data_type": "image",
         "question_type_id": 2, "image": [struct(1)]},
    ]  # fmt: skip
    vet = [{"question": "What is x?", "answer": "-1 <AND> -5", "category": "ocr,math"}]
    vet_hub = [
        {"question_id": f"v1_{n}", "question": "What is x?", "answer": "-1", "capability": "ocr"}
        for n in range(2)
    ]
    covered = ["town of ten", "in the north"]
    vcr = [{"question": "What is the covered texts in the image?", "answer": str(covered)}]
    vcr_hub = [
        {"question_id": n, "caption": "A town of ten in the north", "crossed_text": covered,
         "image": struct(0), "only_it_image": struct(1)}
        for n in range(2)
    ]  # fmt: skip
    text_rows = [{"question": "WHAT color?", "answer": str(TEN)}]
    text_hub = [{"question_id": n, "question": "WHAT color?", "answers": TEN} for n in range(2)]
    ids = [{"questionId": str(number), **row} for number, row in enumerate(short)]
    pope_hub = [
        {"id": str(n), "question_id": "1", "question": "Is it? ", "answer": "yes", "category": c}
        for n, c in enumerate(("adversarial", "popular"))
    ]
    cases = [
        Case("docvqa", "tsv", _tsv(*as_text), 2),
        Case("docvqa", "hub", _hub("DocVQA/validation-{}.parquet", *ids), 2),
        Case("infovqa", "tsv", _tsv(*as_text), 2),
        Case("infovqa", "hub", _hub("InfographicVQA/validation-{}.parquet", *ids), 2),
        Case("deepform", "docdownstream", _deepform, 3),
        Case("klc", "docdownstream", _klc, 3),
        Case("wtq", "docdownstream", _wtq, 2),
        Case("tabfact", "docdownstream", _tabfact, 2),
        Case("chartqa", "tsv", _tsv(*({**row, "split": "test_human"} for row in charts)), 2),
        Case("chartqa", "hub", _hub(TEST, *({**row, "type": "human_test"} for row in charts)), 2),
        Case("textvqa", "tsv", _tsv(*text_rows), 1),
        Case("textvqa", "hub", _hub(VAL, *text_hub), 2),
        Case("tablevqa", "tsv", _tsv(*tables), 4),
        Case("tablevqa", "hub", _tables_hub, 4),
        Case("mmmu", "tsv", _tsv(*mmmu), 3),
        Case("mmmu", "hub", _hub(VAL, *mmmu_hub, image=""), 3),
        Case("seedbench", "tsv", _tsv(*seed), 2),
        Case("seedbench", "hub", _hub(TEST, *seed_hub), 2),
        Case("mmvet", "tsv", _tsv(*vet), 1),
        Case("mmvet", "hub", _hub(TEST, *vet_hub), 2),
        Case("pope", "tsv", _tsv(*pope), 2),
        Case("pope", "hub", _hub(TEST, *pope_hub), 2),
        Case("gqa", "tsv", _tsv({"question": q, "answer": "yes"}), 1),
        Case("gqa", "hub", _gqa, 3),
    ]
    for name in ("vcr_easy", "vcr_hard"):
        cases.append(Case(name, "tsv", _tsv(*vcr), 1))
        cases.append(Case(name, "hub", _hub(TEST, *vcr_hub, image="stacked_image"), 2))
    return cases


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests that take `bench_case` run for every home of every benchmark."""
    if "bench_case" in metafunc.fixturenames:
        cases = _cases()
        ids = [f"{case.benchmark}-{case.home}" for case in cases]
        metafunc.parametrize("bench_case", cases, ids=ids)


@pytest.fixture
def bench_cases() -> list[Case]:
    return _cases()


class Writers(NamedTuple):
    png: Callable[..., bytes]
    coded: Callable[..., str]
    struct: Callable[..., dict[str, Any]]
    tsv: Callable[[Path, Sequence[dict[str, Any]]], Path]
    parquet: Callable[[Path, Sequence[dict[str, Any]]], Path]
    lines: Callable[[Path, Sequence[Any]], Path]
    docowl: Callable[..., Path]
    document: Callable[..., dict[str, Any]]


@pytest.fixture
def bench_write() -> Writers:
    return Writers(png, coded, struct, write_tsv, write_parquet, write_lines, docowl, document)
