"""Images of samples: where they may come from and what is said of broken ones."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alignvlm.data.images import BytesImage, DrawnImage, FileImage, ImageFolder, image_source
from alignvlm.data.rows.base import BadRowError
from alignvlm.errors import InputError, LimitError
from alignvlm.limits import Limits


@pytest.fixture
def folder(tmp_path: Path, files: Any) -> ImageFolder:
    files.images(tmp_path / "in" / "deep")
    return ImageFolder(tmp_path / "in")


def test_a_path_is_relative_to_the_folder(folder: ImageFolder, files: Any) -> None:
    for name in ("deep/1.png", "./deep/1.png"):
        image = image_source(name, folder, "")
        assert isinstance(image, FileImage)
        assert image.name == str(folder.path / "deep" / "1.png")
        assert image.size() == image.load().size == files.sizes[1]


@pytest.mark.parametrize("value", ["../x.png", "deep/../../x.png", "/etc/passwd", "deep/..", "/"])
def test_a_path_stays_in_its_folder(folder: ImageFolder, value: str) -> None:
    with pytest.raises(BadRowError, match=r"outside the images folder .*: set the option images"):
        image_source(value, folder, "")


def test_who_reads_says_what_to_do_about_other_paths(folder: ImageFolder) -> None:
    with pytest.raises(BadRowError, match=r"outside the images folder '.*in': put it there$"):
        image_source("../x.png", replace(folder, remedy="put it there"), "")


def test_absolute_paths_need_a_folder_that_was_given(folder: ImageFolder) -> None:
    path = str(folder.path / "deep" / "2.png")
    with pytest.raises(BadRowError, match="outside"):
        image_source(path, folder, "")
    given = ImageFolder(folder.path, given=True)
    assert image_source(path, given, "").name == path
    assert image_source(path, ImageFolder(Path("/"), given=True), "").name == path
    with pytest.raises(BadRowError, match="outside"):
        image_source(str(folder.path.parent / "x.png"), given, "")


@pytest.mark.parametrize("value", ["https://x.org/a.png", "FILE:///a", "", "a\0b"])
def test_no_address_is_a_file(folder: ImageFolder, value: str) -> None:
    with pytest.raises(BadRowError, match="is no file: download it and give its path"):
        image_source(value, folder, "")


def test_bytes_columns_and_data_uris(folder: ImageFolder, files: Any) -> None:
    content = files.png(1)
    uri = "data:image/png;base64," + base64.b64encode(content).decode()
    for value in (content, {"bytes": content, "path": "x"}, {"bytes": content}, uri):
        image = image_source(value, folder, "image 1 of x:7")
        assert isinstance(image, BytesImage)
        assert image.name == "image 1 of x:7"
        assert image.size() == image.load().size == files.sizes[1]
    assert image_source({"bytes": None, "path": "deep/0.png"}, folder, "").size() == files.sizes[0]


@pytest.mark.parametrize("value", [None, 3, [], {"bytes": None, "path": None}, {}])
def test_what_is_no_image(folder: ImageFolder, value: Any) -> None:
    with pytest.raises(BadRowError, match="neither a path, a data URI nor bytes"):
        image_source(value, folder, "")


@pytest.mark.parametrize(
    "uri", ["data:", "data:image/png,xx", "data:image/png;base64,a", "data:;base64,é", "data:x"]
)
def test_data_uris_that_hold_nothing(folder: ImageFolder, uri: str) -> None:
    with pytest.raises(BadRowError, match="not valid base64"):
        image_source(uri, folder, "")


def test_missing_damaged_and_large_files(folder: ImageFolder, files: Any) -> None:
    for image in (FileImage(str(folder.path / "no.png")), FileImage(str(folder.path))):
        for read in (image.size, image.load):
            with pytest.raises(InputError, match=r"There is no file|is a folder"):
                read()
    small = Limits(max_file_bytes=50)
    for image in (
        FileImage(str(folder.path / "deep" / "0.png"), small),
        BytesImage(files.png(), "x", small),
    ):
        for read in (image.size, image.load):
            with pytest.raises(LimitError, match="is larger than the 5e-05 MB allowed"):
                read()
    with pytest.raises(InputError, match="'image 1 of x:7' is of an unknown format"):
        BytesImage(b"\0\1", "image 1 of x:7").size()


def test_errors_begin_with_what_names_the_file(folder: ImageFolder) -> None:
    path = str(folder.path / "deep" / "0.png")
    for image, kind in (
        (FileImage(str(folder.path / "no.png"), named_by="Row 7 of 'x'"), InputError),
        (FileImage(path, Limits(max_file_bytes=50), "Row 7 of 'x'"), LimitError),
    ):
        for read in (image.size, image.load):
            with pytest.raises(kind, match=r"^Row 7 of 'x' names an unusable image: .*: "):
                read()
    assert FileImage(path, named_by="Row 1 of 'x'") == FileImage(path)


def test_a_drawn_image() -> None:
    from PIL import Image

    image = DrawnImage(Image.new("RGB", (3, 4), "teal"), "train/easy/1")
    assert (image.name, image.size(), image.load().size) == ("train/easy/1", (3, 4), (3, 4))
    assert image.load().tobytes() == image.image.tobytes()


def test_an_opened_image_is_laid_upright_on_paper() -> None:
    from PIL import Image

    page = Image.new("RGBA", (3, 4), (0, 0, 0, 0))
    page.putpixel((0, 3), (255, 0, 0, 255))
    page.getexif()[0x0112] = 6  # its left side is up
    image = DrawnImage(page, "image 1 of docvqa/7")
    shown = image.load()
    assert (image.size(), shown.size, shown.mode) == ((4, 3), (4, 3), "RGB")
    assert shown.getpixel((0, 0)) == (255, 0, 0) and shown.getpixel((3, 2)) == (255, 255, 255)
    with pytest.raises(InputError, match="'image 1 of docvqa/7' has 32 bits a sample"):
        DrawnImage(Image.new("F", (3, 4)), "image 1 of docvqa/7").load()
