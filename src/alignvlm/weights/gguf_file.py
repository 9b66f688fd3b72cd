"""Read a GGUF file: its metadata and its tensors as float32 NumPy arrays.

Only what the default language model's file holds: version 3, little-endian, tensors stored as F32,
Q4_1 or Q8_0. Written from the format's specification (ggml, docs/gguf.md) because the usual readers
take half a minute for a file that this one reads in two seconds: they wrap each of 150,000
vocabulary strings in memory-mapped arrays, several times over.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from alignvlm.errors import WeightsError

__all__ = ["GGUFFile", "TensorInfo"]

_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9

_Q8_0 = np.dtype([("scale", "<f2"), ("values", "i1", 32)])
"""32 weights: value * scale."""

_Q4_1 = np.dtype([("scale", "<f2"), ("minimum", "<f2"), ("values", "u1", 16)])
"""32 weights: nibble * scale + minimum, low nibbles first, then the high ones."""

_KINDS = {0: np.dtype("<f4"), 3: _Q4_1, 8: _Q8_0}


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """Where one tensor lies. `shape` is in NumPy's order, the last axis contiguous."""

    shape: tuple[int, ...]
    kind: np.dtype[Any]
    offset_bytes: int


class GGUFFile:
    """A memory-mapped GGUF file with `metadata` (name -> value) and `tensors` (name -> place).

    Raises:
        WeightsError: the file is not GGUF version 3, ends early, or holds another tensor type.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            if file.read(8) != b"GGUF" + struct.pack("<I", 3):
                raise WeightsError(f"{path} is not a GGUF file of version 3: install it again")
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._at = 8
        try:
            num_tensors, num_values = self._scalar("Q"), self._scalar("Q")
            self.metadata = {self._string(): self._value() for _ in range(num_values)}
            self.tensors = dict(self._tensor_info() for _ in range(num_tensors))
        except (struct.error, KeyError, UnicodeDecodeError) as error:
            raise WeightsError(
                f"{path} is cut short or holds types this reader lacks: install it again"
            ) from error
        alignment = self.metadata.get("general.alignment", 32)
        self._data_start = -(-self._at // alignment) * alignment

    def read(self, name: str) -> np.ndarray:
        """The tensor as float32, dequantised with ggml's arithmetic (float32 throughout)."""
        info = self.tensors[name]
        num_blocks = prod(info.shape) // (32 if info.kind.names else 1)
        start = self._data_start + info.offset_bytes
        if start + num_blocks * info.kind.itemsize > len(self._bytes):
            raise WeightsError(f"{self._path} ends inside its tensor {name}: install it again")
        blocks = np.frombuffer(self._bytes, info.kind, num_blocks, start)
        if info.kind == _Q8_0:
            weights = blocks["values"] * blocks["scale"].astype(np.float32)[:, None]
        elif info.kind == _Q4_1:
            packed = blocks["values"]
            nibbles = np.concatenate([packed & 15, packed >> 4], axis=1)
            weights = nibbles * blocks["scale"].astype(np.float32)[:, None]
            weights += blocks["minimum"].astype(np.float32)[:, None]
        else:
            weights = blocks
        return weights.reshape(info.shape)

    def _scalar(self, code: str) -> Any:
        value = struct.unpack_from("<" + code, self._bytes, self._at)[0]
        self._at += struct.calcsize("<" + code)
        return value

    def _string(self) -> str:
        num_bytes = self._scalar("Q")
        return str(self._scalar(f"{num_bytes}s"), "utf-8")

    def _value(self) -> Any:
        kind = self._scalar("I")
        if kind != _ARRAY:
            return self._string() if kind == _STRING else self._scalar(_SCALARS[kind])
        kind, length = self._scalar("I"), self._scalar("Q")
        if kind == _STRING:
            return [self._string() for _ in range(length)]
        values = struct.unpack_from(f"<{length}{_SCALARS[kind]}", self._bytes, self._at)
        self._at += struct.calcsize(f"<{length}{_SCALARS[kind]}")
        return list(values)

    def _tensor_info(self) -> tuple[str, TensorInfo]:
        name = self._string()
        axes = [self._scalar("Q") for _ in range(self._scalar("I"))]
        kind = _KINDS[self._scalar("I")]
        offset_bytes = self._scalar("Q")
        return name, TensorInfo(shape=tuple(reversed(axes)), kind=kind, offset_bytes=offset_bytes)
