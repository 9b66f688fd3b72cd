"""TSV rows against the csv module that reads the whole file, and what is wrong with files."""

from __future__ import annotations

import csv
import hashlib
import io
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignvlm.data.rows.base import BadRowError
from alignvlm.errors import InputError
from alignvlm.evaluation.benchmarks import BENCHMARKS, open_questions, tsv
from alignvlm.evaluation.benchmarks.published import PUBLISHED_MD5
from alignvlm.evaluation.benchmarks.tsv import TsvRows

pytestmark = pytest.mark.usefixtures("bench_cache")

CELLS = st.text(alphabet="ab\t\n\r\"' é\u2028,|", max_size=6)
ROW = {"question": "Who?", "answer": "['Doe']"}


def doc(path: Path) -> Any:
    return open_questions(BENCHMARKS["docvqa"], path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=6),
    end=st.sampled_from(["\n", "\r\n"]),
    bom=st.booleans(),
)
def test_rows_are_what_csv_reads(
    rows: list[tuple[str, ...]], end: str, bom: bool, tmp_path: Path
) -> None:
    if end == "\n":  # the writer would leave a carriage return without quotes, which ends a row
        rows = [tuple(cell.replace("\r", "") for cell in row) for row in rows]
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter="\t", lineterminator=end).writerows([("x", "y", "z"), *rows])
    content = buffer.getvalue().encode("utf-8-sig" if bom else "utf-8")
    path = tmp_path / f"{hashlib.md5(content).hexdigest()}.tsv"
    path.write_bytes(content)
    with mock.patch.object(tsv, "indexed", lambda path, kind, scan: scan(path)):
        found = TsvRows(path)
    assert found.md5 == found.digest() == hashlib.md5(content).hexdigest()
    assert found.columns == ["x", "y", "z"]
    assert [tuple(found.row(i).values()) for i in reversed(range(len(found)))] == rows[::-1]


def test_cells_longer_than_csv_allows(tmp_path: Path, bench_write: Any) -> None:
    limit = csv.field_size_limit()
    long = 'a "quoted" word ' * 20_000
    bench_write.tsv(tmp_path / "x.tsv", [{"index": "1", "image": long}])
    rows = TsvRows(tmp_path / "x.tsv")
    assert rows.row(0)["image"] == long
    assert csv.field_size_limit() == limit


def test_the_index_is_kept_until_the_file_changes(
    tmp_path: Path, bench_write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bench_write.tsv(tmp_path / "x.tsv", [{"index": "1", "image": "a" * 65}])
    first = TsvRows(path)
    monkeypatch.setattr("alignvlm.evaluation.benchmarks.tsv._records", None)
    assert TsvRows(path).md5 == first.md5
    monkeypatch.undo()
    bench_write.tsv(path, [{"index": str(i), "image": "a" * 65} for i in range(3)])
    assert len(TsvRows(path)) == 3


def test_a_row_names_another_ones_image(tmp_path: Path, bench_write: Any) -> None:
    images = [bench_write.coded(0), "7", "9", "nowhere", ""]
    rows = [{"index": str(i), "image": image, **ROW} for i, image in enumerate(images, 7)]
    questions = doc(bench_write.tsv(tmp_path / "x.tsv", rows))
    assert questions[1].images[0].size() == questions[0].images[0].size() == (40, 30)
    with pytest.raises(InputError, match=r"^Row 3 of '.*x\.tsv' takes its image from the row '9'"):
        questions[2]  # a reference to a reference, which VLMEvalKit refuses too
    with pytest.raises(InputError, match=r"^Row 4 of '.*x\.tsv' takes its .* 'nowhere', which is"):
        questions[3]
    with pytest.raises(InputError, match=r"^Row 5 of '.*x\.tsv' has no image: "):
        questions[4]


def test_images_in_files(tmp_path: Path, bench_write: Any) -> None:
    (tmp_path / "images").mkdir()
    for number in range(2):
        (tmp_path / "images" / f"{number}.png").write_bytes(bench_write.png(number))
    paths = ["images/0.png", "['images/0.png', 'images/1.png']", "images/2.png", "../0.png"]
    paths.append(str(tmp_path / "images" / "1.png"))
    rows = [{"index": str(i), "image_path": path, **ROW} for i, path in enumerate(paths)]
    questions = doc(bench_write.tsv(tmp_path / "x.tsv", rows))
    assert [image.size() for image in questions[1].images] == [(40, 30), (20, 50)]
    assert questions[0].images == questions[1].images[:1]
    assert questions[4].images[0].size() == (20, 50)
    with pytest.raises(InputError, match=r"Row 3 of .* the image 'images/2.png', which is not in"):
        questions[2]
    with pytest.raises(InputError, match=r"Row 4 of .* outside the images folder"):
        questions[3]


def test_the_published_file_must_be_it(tmp_path: Path, bench_write: Any) -> None:
    rows = [{"index": "1", "image": bench_write.coded(), **ROW}]
    path = bench_write.tsv(tmp_path / "DocVQA_VAL.tsv", rows)
    found = hashlib.md5(path.read_bytes()).hexdigest()
    published = "d5ee77e1926ff10690d469c56b73eabf"
    for place in (path, tmp_path):
        with pytest.raises(InputError, match=rf"DocVQA_VAL.tsv' has the MD5 {found} .*{published}"):
            doc(place)
    with mock.patch.dict(PUBLISHED_MD5, {"DocVQA_VAL.tsv": found}):
        assert len(doc(tmp_path)) == 1
    path.rename(tmp_path / "part.tsv")
    assert len(doc(tmp_path)) == 1


def test_another_benchmarks_file_is_not_taken(tmp_path: Path, bench_write: Any) -> None:
    rows = [{"index": "1", "image": bench_write.coded(), **ROW}]
    for name in ("InfoVQA_VAL.tsv", "DocVQA_TEST.tsv"):
        path = bench_write.tsv(tmp_path / name, rows)
        for place in (path, tmp_path):
            with pytest.raises(InputError, match="holds no validation split of DocVQA"):
                doc(place)
    bench_write.tsv(tmp_path / "mine.tsv", rows)
    assert doc(tmp_path)[0].id == "1"


def test_every_published_file_is_a_benchmarks() -> None:
    homes = [home for one in BENCHMARKS.values() for home in one.homes if home.kind == "tsv"]
    files = [name for home in homes for name in home.files]
    assert sorted([*files, "DocVQA_TEST.tsv", "InfoVQA_TEST.tsv"]) == sorted(PUBLISHED_MD5)
    assert all(home.url.endswith(home.files[0]) for home in homes)
    assert len(set(PUBLISHED_MD5.values())) == len(PUBLISHED_MD5) - 7  # under two names each


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"index": "1", "question": "?", "answer": "a"}, "has no column 'image' but 'index'"),
        ({"index": "1", "question": "?", "image": "x"}, "has no column 'answer' but .*validation"),
        ({"question": "?", "answer": "a", "image": "x"}, "has no column 'index'"),
    ],
)
def test_wrong_columns(row: dict[str, str], message: str, tmp_path: Path, bench_write: Any) -> None:
    path = bench_write.tsv(tmp_path / "x.tsv", [row])
    with pytest.raises(InputError, match=rf"x\.tsv' {message}"):
        doc(path)


def test_ids_must_differ(tmp_path: Path, bench_write: Any) -> None:
    rows = [{"index": i, "image": bench_write.coded(), **ROW} for i in ("1", "2", "1")]
    path = bench_write.tsv(tmp_path / "x.tsv", rows)
    with pytest.raises(InputError, match=r"^Rows 1 and 3 of '.*x\.tsv' have the same index '1'"):
        doc(path)


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.tsv' is empty or has no header"):
        doc(tmp_path / "x.tsv")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_another_encoding(encoding: str, tmp_path: Path) -> None:
    content = "index\timage\tquestion\tanswer\tä\n1\tx\tWho?\tDoe\tä\n".encode(encoding)
    (tmp_path / "x.tsv").write_bytes(content)
    for _ in range(2):  # scanned, and from the index
        with pytest.raises(InputError, match=r"x\.tsv' is not UTF-8: save the file in that enc"):
            doc(tmp_path / "x.tsv")


def test_a_header_alone(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("index\timage\tquestion\tanswer\n")
    with pytest.raises(InputError, match=r"x\.tsv' holds no question"):
        doc(tmp_path / "x.tsv")


def test_broken_rows_leave_the_others_alone(tmp_path: Path, bench_write: Any) -> None:
    good = f"1\t{bench_write.coded()}\tWho?\t['Doe']\n".encode()
    broken = [
        b"2\tonly two\n",
        b"3\t" + b"a" * 80 + b"\tWho?\t\xff\xfe\n",
        b"4\t" + b"?" * 80 + b"\tWho?\tDoe\n",
        b"5\t" + b"a" * 80 + b"\t\tDoe\n",
        b'6\t"' + b"a" * 80 + b'"x\tWho?\tDoe\n',
    ]
    path = tmp_path / "x.tsv"
    path.write_bytes(b"index\timage\tquestion\tanswer\n" + b"".join(broken) + good)
    questions = doc(path)
    assert len(questions) == 6
    assert questions[5].text == "Who?"
    messages = [
        "has 2 cells where the header has 4", "is not UTF-8", "has an image that is not base64",
        "has no 'question'", "has a quotation mark that nothing closes",
    ]  # fmt: skip
    for index, message in enumerate(messages):
        with pytest.raises(InputError, match=rf"^Row {index + 1} of '.*x\.tsv' {message}.*: "):
            questions[index]


def test_a_file_that_ends_in_a_row(tmp_path: Path, bench_write: Any) -> None:
    path = tmp_path / "x.tsv"
    good = f"1\t{bench_write.coded()}\tWho?\tDoe\n"
    path.write_text(f'index\timage\tquestion\tanswer\n{good}2\t"{"a" * 99}\tWho?\tDoe\n')
    questions = doc(path)
    assert questions[0].id == "1"
    with pytest.raises(InputError, match=r"^Row 2 of"):
        questions[1]


def test_several_files(tmp_path: Path, bench_write: Any) -> None:
    for name in ("a.tsv", "b.tsv"):
        bench_write.tsv(tmp_path / name, [{"index": "1"}])
    with pytest.raises(InputError, match=r"several TSV files, such as a\.tsv and b\.tsv"):
        doc(tmp_path)


def test_rows_have_places(tmp_path: Path, bench_write: Any) -> None:
    rows = TsvRows(bench_write.tsv(tmp_path / "x.tsv", [{"index": "1", "image": "a\nb"}] * 2))
    assert rows.place(1).number == 2
    path = tmp_path / "x.tsv"
    path.unlink()
    with pytest.raises(BadRowError, match="cannot be read"):
        rows.row(0)
    with pytest.raises(InputError, match="cannot be read"):
        TsvRows(path)
