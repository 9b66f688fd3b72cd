"""Which files a path stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alignvlm.data.rows.find import data_files, open_rows
from alignvlm.errors import InputError


def names(path: Path, split: str = "train") -> list[str]:
    return [file.name for file in data_files(path, split)]


def touch(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("{}\n")


def test_test_data_never_slip_into_training(tmp_path: Path) -> None:
    touch(tmp_path, "data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet",
          "data/test-00000-of-00001.parquet", "data/validation-0.parquet")  # fmt: skip
    assert names(tmp_path) == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    assert names(tmp_path, "val") == ["validation-0.parquet"]
    assert names(tmp_path, "test") == ["test-00000-of-00001.parquet"]


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (("a/x.parquet", "b/y.parquet"), ["x.parquet", "y.parquet"]),
        (("train/x.parquet", "test/y.parquet"), ["x.parquet"]),
        (("test.parquet",), None),
        (("dataset_infos.json", "data/x.parquet"), ["x.parquet"]),
        (("train.jsonl", "val.jsonl", "imgs/a.json"), ["train.jsonl"]),
        (("blip.json", "blip_meta.json"), ["blip.json"]),
        (("_info.json", "cc12m-train-0000.tar", "cc12m-train-0001.tar"),
         ["cc12m-train-0000.tar", "cc12m-train-0001.tar"]),
        ((".hidden.jsonl",), None),
        (("page.png",), None),
    ],
)  # fmt: skip
def test_folders(tmp_path: Path, files: tuple[str, ...], found: list[str] | None) -> None:
    touch(tmp_path, *files)
    if found is None:
        with pytest.raises(InputError, match=r"holds no data file \(\.parquet, "):
            names(tmp_path)
    else:
        assert names(tmp_path) == found


def test_several_lists_in_a_folder_need_a_name(tmp_path: Path) -> None:
    touch(tmp_path, "a.jsonl", "b.jsonl")
    with pytest.raises(InputError, match=r"several .jsonl files, such as a.jsonl and b.jsonl"):
        names(tmp_path)


def test_patterns(tmp_path: Path) -> None:
    touch(tmp_path, "b.jsonl", "a.jsonl", "c.json")
    rows = open_rows(tmp_path / "*.jsonl")
    assert [rows.place(index).path.name for index in range(len(rows))] == ["a.jsonl", "b.jsonl"]
    assert [rows.row(index) for index in range(2)] == [{}, {}]
    assert list(rows.blocks()) == [2]
    with pytest.raises(InputError, match=r"several kinds \(.json, .jsonl\)"):
        open_rows(tmp_path / "*.json*")
    with pytest.raises(InputError, match="There is no file"):
        open_rows(tmp_path / "*.tar")


def test_a_list_is_told_by_its_content(tmp_path: Path) -> None:
    for name, content, expected in (
        ("a.json", '\ufeff [{"x": 1}]', [{"x": 1}]),
        ("b.json", '{"x": 1}\n{"x": 2}', [{"x": 1}, {"x": 2}]),
        ("no_suffix", '{"x": 3}', [{"x": 3}]),
    ):
        (tmp_path / name).write_text(content, encoding="utf-8")
        rows = open_rows(tmp_path / name)
        assert [rows.row(index) for index in range(len(rows))] == expected


def test_compressed_lines(tmp_path: Path) -> None:
    import gzip

    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b"{}\n"))
    with pytest.raises(InputError, match="is compressed: unpack it"):
        open_rows(path)


def test_what_datasets_saved(tmp_path: Path, files: Any) -> None:
    folder = files.save_to_disk(tmp_path / "set" / "train", [{"a": 1}, {"a": 2}])
    (tmp_path / "set" / "dataset_dict.json").write_text("{}")
    files.save_to_disk(tmp_path / "set" / "test", [{"a": 3}, {"a": 4}])
    for path in (folder, tmp_path / "set"):
        rows = open_rows(path)
        assert [rows.row(index) for index in range(len(rows))] == [{"a": 1}, {"a": 2}]
    (folder / "data-00001-of-00002.arrow").unlink()
    assert len(open_rows(folder)) == 1
