"""What every source gives: a conversation with its images, none of them decoded yet."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

__all__ = ["DataSource", "ImageSource", "Message", "Sample"]

Message = dict[str, Any]
"""`{"role": "system" | "user" | "assistant", "content": [part, ...]}` with parts
`{"type": "text", "text": str}` and `{"type": "image"}`."""


class ImageSource(ABC):
    """An image that can say its size without being decoded."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What a message calls it, e.g. its path."""

    @abstractmethod
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels as `load` would return it, from the header alone.

        Raises:
            InputError: it is missing, of no accepted format, or larger than allowed.
        """

    @abstractmethod
    def load(self) -> Image.Image:
        """The image, RGB and upright.

        Raises:
            InputError: as `size`, or its content is damaged.
        """


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One conversation.

    Attributes:
        key: names it within its source, e.g. "train.jsonl:17"; rows are counted from 1.
        messages: in the form of `Message`; image parts stand for `images` in their order.
        images: as many as the messages have image parts.
    """

    key: str
    messages: Sequence[Message]
    images: Sequence[ImageSource] = ()


class DataSource(ABC):
    """Samples by number; reading one does not depend on what was read before.

    Instances are sent to worker processes, so what they hold open is opened again there.
    """

    name: str

    @abstractmethod
    def __len__(self) -> int:
        """Number of rows, whole or broken."""

    @abstractmethod
    def read(self, index: int) -> Sample:
        """Row `index`, counted from 0.

        Raises:
            InputError: the row is broken; the message names the file and the row.
        """

    def fingerprint(self) -> str:
        """What tells these rows from others of the same name, as far as it costs nothing to see.

        The order of a mixture depends on it: a run does not go on with another one.
        """
        return f"{len(self)} rows"

    def blocks(self) -> Sequence[int]:
        """Rows that are cheap to read together, e.g. of a row group or a shard: sizes in order.

        Mixtures shuffle blocks, then rows among a few neighbouring blocks. One block, the default,
        means that any row is as cheap as any other.
        """
        return (len(self),)
