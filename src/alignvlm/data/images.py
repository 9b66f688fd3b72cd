"""Images of samples: a file, bytes out of a row, or an image that is there already."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, final

from PIL import Image

from alignvlm.data.rows.base import BadRowError
from alignvlm.data.sample import ImageSource
from alignvlm.errors import InputError, LimitError
from alignvlm.imaging.decode import decode_image, image_size, on_paper, upright
from alignvlm.imaging.sources import quoted, read_source
from alignvlm.limits import DEFAULT_LIMITS, Limits

__all__ = ["BytesImage", "DrawnImage", "FileImage", "ImageFolder", "image_source"]

_DATA_URI = re.compile(r"data:[\w.+/-]*(;[\w.=+-]+)*;base64,", re.ASCII)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


@final
@dataclass(frozen=True)
class FileImage(ImageSource):
    """An image file.

    Attributes:
        path: the file.
        limits: on what is read.
        named_by: what names it, e.g. "Row 3 of 'my.jsonl'", with which errors begin.
    """

    path: str
    limits: Limits = DEFAULT_LIMITS
    named_by: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """Its path."""
        return self.path

    def size(self) -> tuple[int, int]:
        """See `ImageSource.size`."""
        with self._named():
            try:
                with open(self.path, "rb") as file:
                    if os.fstat(file.fileno()).st_size <= self.limits.max_file_bytes:
                        return image_size(file, self.path, self.limits)
            except (OSError, ValueError):
                pass
            read_source(self.path, self.limits)  # says what is wrong
            raise InputError(f"{quoted(self.path)} cannot be read: check the disk")

    def load(self) -> Image.Image:
        """See `ImageSource.load`."""
        with self._named():
            return decode_image(*read_source(self.path, self.limits), self.limits)

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            if not self.named_by:
                raise
            raise type(error)(f"{self.named_by} names an unusable image: {error}") from error


@final
@dataclass(frozen=True)
class BytesImage(ImageSource):
    """The content of an image file, from a column, a tar or a data URI."""

    content: bytes = field(repr=False)
    called: str
    limits: Limits = DEFAULT_LIMITS

    @property
    def name(self) -> str:
        """Which image of which row it is."""
        return self.called

    def size(self) -> tuple[int, int]:
        """See `ImageSource.size`."""
        self._check_length()
        return image_size(BytesIO(self.content), self.called, self.limits)

    def load(self) -> Image.Image:
        """See `ImageSource.load`."""
        self._check_length()
        return decode_image(self.content, self.called, self.limits)

    def _check_length(self) -> None:
        if len(self.content) > self.limits.max_file_bytes:
            raise LimitError(
                f"{quoted(self.called)} is larger than the "
                f"{self.limits.max_file_bytes / 1e6:g} MB allowed: compress it"
            )


@final
@dataclass(frozen=True)
class DrawnImage(ImageSource):
    """An image that is there already, drawn or opened by others, in whatever mode."""

    image: Image.Image
    called: str

    @property
    def name(self) -> str:
        """What it was drawn from, or which image of which question it is."""
        return self.called

    def size(self) -> tuple[int, int]:
        """See `ImageSource.size`."""
        return upright(self.image).size

    def load(self) -> Image.Image:
        """See `ImageSource.load`."""
        return on_paper(upright(self.image), quoted(self.called))


@dataclass(frozen=True)
class ImageFolder:
    """Where the images lie that rows name by path.

    Attributes:
        path: the folder.
        given: the user named it, so that absolute paths below it are read too.
        remedy: what to do about an image outside of it.
    """

    path: Path
    given: bool = False
    remedy: str = "set the option images to a folder that holds it"

    def file(self, name: str) -> Path:
        """The path of the image that a row calls `name`; whether it exists is not checked.

        Raises:
            BadRowError: it is an address, or lies outside the folder.
        """
        if not name or "\0" in name or _ADDRESS.match(name):
            raise BadRowError(
                f"names the image {quoted(name)}, which is no file: download it and give its path"
            )
        relative = PurePosixPath(name)
        if self.given and relative.is_absolute():
            with suppress(ValueError):  # refused below
                relative = relative.relative_to(PurePosixPath(os.path.abspath(self.path)))
        if relative.is_absolute() or ".." in relative.parts:
            raise BadRowError(
                f"names the image {quoted(name)}, which is outside the images folder "
                f"{quoted(str(self.path))}: {self.remedy}"
            )
        return self.path / relative


def image_source(value: Any, folder: ImageFolder, name: str) -> ImageSource:
    """The image that a field of a row holds or names.

    Args:
        value: a path relative to `folder`, a base64 data URI, the bytes of a file, or
            `{"bytes": ..., "path": ...}` of which one is None, as data sets on the Hub have it.
        folder: see `ImageFolder`.
        name: of an image that has no path.

    Raises:
        BadRowError: it is none of these.
    """
    if isinstance(value, Mapping):
        content = value.get("bytes")
        value = value.get("path") if content is None else content
    if isinstance(value, (bytes, bytearray, memoryview)):
        return BytesImage(bytes(value), name)
    if not isinstance(value, str):
        raise BadRowError(
            "has an image that is neither a path, a data URI nor bytes: give one of these"
        )
    if value.startswith("data:"):
        return BytesImage(_from_data_uri(value), name)
    return FileImage(str(folder.file(value)))


def _from_data_uri(uri: str) -> bytes:
    match = _DATA_URI.match(uri)
    try:
        if match is not None:
            return base64.b64decode(uri[match.end() :], validate=True)
    except (binascii.Error, ValueError):
        pass
    raise BadRowError("has an image as a data URI that is not valid base64: encode it again")
