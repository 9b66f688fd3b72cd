"""Parquet files of the Hub: which are read, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alignvlm.errors import InputError
from alignvlm.evaluation.benchmarks import BENCHMARKS, data_folder, open_questions

pytestmark = pytest.mark.usefixtures("bench_cache")

ONE = "validation-00000-of-00001.parquet"


@pytest.fixture
def bench_doc(bench_write: Any) -> Any:
    def row(name: str, **fields: Any) -> dict[str, Any]:
        return {
            "questionId": name,
            "question": "Who?",
            "answers": ["Doe"],
            "image": bench_write.struct(0),
            **fields,
        }

    return row


def doc(place: Path) -> Any:
    return open_questions(BENCHMARKS["docvqa"], place)


def test_columns_that_nobody_needs_are_not_read(
    tmp_path: Path, bench_write: Any, bench_doc: Any
) -> None:
    path = bench_write.parquet(tmp_path / ONE, [bench_doc("1", other=b"x" * 1000)])
    questions = doc(path)
    assert "other" not in questions._rows.row(0)


def test_a_changed_answer_is_another_digest(
    tmp_path: Path, bench_write: Any, bench_doc: Any
) -> None:
    before = doc(bench_write.parquet(tmp_path / ONE, [bench_doc("1")])).digest
    path = bench_write.parquet(tmp_path / ONE, [bench_doc("1", answers=["J. Doe"])])
    assert doc(path).digest != before


def test_a_file_without_a_split_in_its_name(
    tmp_path: Path, bench_write: Any, bench_doc: Any
) -> None:
    bench_write.parquet(tmp_path / "mine.parquet", [bench_doc("1")])
    assert [question.id for question in doc(tmp_path)] == ["1"]


def test_other_splits_are_not_taken(tmp_path: Path, bench_write: Any, bench_doc: Any) -> None:
    bench_write.parquet(tmp_path / "test-00000-of-00001.parquet", [bench_doc("1")])
    with pytest.raises(InputError, match=r"holds no validation split of DocVQA: download"):
        doc(tmp_path)


def test_other_configurations_are_not_taken(
    tmp_path: Path, bench_write: Any, bench_doc: Any
) -> None:
    bench_write.parquet(tmp_path / "InfographicVQA" / ONE, [bench_doc("info")])
    with pytest.raises(InputError, match="holds no validation split of DocVQA"):
        doc(tmp_path)
    bench_write.parquet(tmp_path / "DocVQA" / ONE, [bench_doc("doc")])
    assert doc(tmp_path)[0].id == "doc"
    assert open_questions(BENCHMARKS["infovqa"], tmp_path)[0].id == "info"


def test_a_part_of_the_files(tmp_path: Path, bench_write: Any, bench_doc: Any) -> None:
    for shard in (0, 2):
        name = f"validation-{shard:05}-of-00003.parquet"
        bench_write.parquet(tmp_path / name, [bench_doc(str(shard))])
    with pytest.raises(InputError, match=r"holds 2 of the 3 files of 'validation': download"):
        doc(tmp_path)


def test_ids_must_differ(tmp_path: Path, bench_write: Any, bench_doc: Any) -> None:
    rows = [bench_doc(name) for name in ("1", "2", "3", "2")]
    bench_write.parquet(tmp_path / ONE, rows)
    with pytest.raises(InputError, match=r"Rows 2 and 4 of '.*' have the same questionId '2'"):
        doc(tmp_path)


@pytest.mark.parametrize("name", ["questionId", "question", "answers", "image"])
def test_wrong_columns(name: str, tmp_path: Path, bench_write: Any, bench_doc: Any) -> None:
    row = bench_doc("1")
    del row[name]
    bench_write.parquet(tmp_path / ONE, [row])
    with pytest.raises(InputError, match=rf"{ONE}' has no column '{name}' but '"):
        doc(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": None}, "has no 'image'"),
        ({"image": {"bytes": None, "path": None}}, "has an image that is neither a path"),
        ({"answers": None}, "has no 'answers', as rows of a test split"),
        ({"question": None}, "has no 'question'"),
        ({"questionId": None}, "has no 'questionId'"),
    ],
)
def test_a_broken_row(
    fields: dict[str, Any], message: str, tmp_path: Path, bench_write: Any, bench_doc: Any
) -> None:
    bench_write.parquet(tmp_path / ONE, [bench_doc("1"), bench_doc("2", **fields)])
    questions = doc(tmp_path)
    assert questions[0].id == "1"
    with pytest.raises(InputError, match=rf"^Row 2 of '.*{ONE}' {message}"):
        questions[1]


def test_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / ONE).write_bytes(b"PAR1 and more")
    with pytest.raises(InputError, match=rf"{ONE}' is no whole parquet file"):
        doc(tmp_path)


def test_no_rows(tmp_path: Path, bench_write: Any, bench_doc: Any) -> None:
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.Table.from_pylist([bench_doc("1")])
    parquet.write_table(table[:0], tmp_path / ONE)
    with pytest.raises(InputError, match="holds no question"):
        doc(tmp_path)


def test_images_in_a_configuration_of_their_own(tmp_path: Path, bench_write: Any) -> None:
    asked = [
        {"id": name, "imageId": image, "question": "?", "answer": "yes"}
        for name, image in (("a", "n1"), ("b", "n9"))
    ]
    name = "testdev-00000-of-00001.parquet"
    bench_write.parquet(tmp_path / "testdev_balanced_instructions" / name, asked)
    with pytest.raises(InputError, match="not the folder 'testdev_balanced_images' with their"):
        open_questions(BENCHMARKS["gqa"], tmp_path)
    images = [{"id": "n1", "image": bench_write.struct(0)}]
    bench_write.parquet(tmp_path / "testdev_balanced_images" / name, images)
    questions = open_questions(BENCHMARKS["gqa"], tmp_path)
    assert questions[0].images[0].size() == (40, 30)
    with pytest.raises(InputError, match=r"^Row 2 of .* names the image 'n9', which is not among"):
        questions[1]


def test_golds_of_several_forms(tmp_path: Path, bench_write: Any) -> None:
    row = {
        "id": "validation_Math_1", "question": "<image 1>?", "options": "[]",
        "question_type": "open", "answer": "['24/7', '3.429']", "image_1": bench_write.struct(),
    }  # fmt: skip
    bench_write.parquet(tmp_path / ONE, [row])
    (question,) = open_questions(BENCHMARKS["mmmu"], tmp_path)
    assert question.answers == ["24/7", "3.429"]
    assert (question.group, question.measures) == ("Math", ("mmmu_open",))


def test_an_answer_that_is_no_choice(tmp_path: Path, bench_write: Any) -> None:
    row = {
        "id": "validation_Art_1", "question": "<image 1>?", "options": "['x', 'y']",
        "question_type": "multiple-choice", "answer": "C", "image_1": bench_write.struct(),
    }  # fmt: skip
    bench_write.parquet(tmp_path / ONE, [row])
    with pytest.raises(InputError, match=r"Row 1 .* 'C', which is none of its choices \(A, B\)"):
        open_questions(BENCHMARKS["mmmu"], tmp_path)[0]


def test_the_data_home(
    tmp_path: Path, bench_cache: Path, bench_write: Any, bench_doc: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    benchmark = BENCHMARKS["docvqa"]
    assert data_folder(benchmark) == bench_cache / "benchmarks" / "docvqa"
    bench_write.parquet(data_folder(benchmark) / ONE, [bench_doc("1")])
    assert open_questions(benchmark)[0].id == "1"
    monkeypatch.setenv("ALIGNVLM_DATA", str(tmp_path / "home"))
    bench_write.parquet(tmp_path / "home" / "docvqa" / "DocVQA" / ONE, [bench_doc("2")])
    assert open_questions(benchmark)[0].id == "2"


def test_no_data_and_no_hub(bench_cache: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_questions(BENCHMARKS["docvqa"])
    text = str(caught.value)
    assert f"'{bench_cache / 'benchmarks' / 'docvqa'}'" in text
    assert "the Hub could not be reached (OfflineModeIsEnabled)" in text
    assert "DocVQA_VAL.tsv into that folder" in text
    assert "huggingface.co/datasets/lmms-lab-encoder/DocVQA there" in text
    with pytest.raises(InputError, match=r"no data of TabFact in '.*tabfact': put test/, meta/"):
        open_questions(BENCHMARKS["tabfact"])
    with pytest.raises(InputError, match=r"no file or folder 'nowhere': check"):
        open_questions(BENCHMARKS["docvqa"], "nowhere")


def test_from_the_hub(tmp_path: Path, bench_write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of the Hub library; the network is not."""
    asked: list[dict[str, Any]] = []
    name = "testdev-00000-of-00001.parquet"
    rows = [{"id": "a", "imageId": "n", "question": "?", "answer": "yes"}]

    def download(repo: str, **options: Any) -> str:
        asked.append({"repo": repo, **options})
        if options.get("local_files_only"):
            raise FileNotFoundError
        bench_write.parquet(tmp_path / "testdev_balanced_instructions" / name, rows)
        images = [{"id": "n", "image": bench_write.struct()}]
        bench_write.parquet(tmp_path / "testdev_balanced_images" / name, images)
        return str(tmp_path)

    class Session:
        def head(self, url: str, timeout: float) -> None:
            assert url.startswith("https://")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.setattr("huggingface_hub.get_session", Session)
    assert open_questions(BENCHMARKS["gqa"])[0].answers == ["yes"]
    assert [one["repo"] for one in asked] == ["lmms-lab-encoder/GQA"] * 2
    assert asked[1]["repo_type"] == "dataset"
    assert asked[1]["allow_patterns"] == [
        "testdev_balanced_instructions/testdev-*.parquet",
        "testdev_balanced_images/testdev-*.parquet",
    ]
