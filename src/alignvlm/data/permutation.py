"""Shuffles that are computed, not stored: where an element goes is known without the others."""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Permutation", "key_of", "shuffled"]

_MASK: Final = (1 << 64) - 1
_GOLDEN: Final = 0x9E3779B97F4A7C15
_NUM_ROUNDS: Final = 4
"""Rounds of the network; four make it a strong pseudo-random permutation (Luby and Rackoff)."""


def key_of(*parts: object) -> int:
    """64 bits that depend on all parts, the same on every machine."""
    text = "\0".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


class Permutation:
    """A shuffle of 0, ..., size - 1.

    A Feistel network permutes the next power of four; what falls outside is permuted again until
    it falls inside (cycle walking), which takes less than four turns on average.

    Args:
        size: number of elements, at least 1.
        key: of the shuffle; see `key_of`.
    """

    def __init__(self, size: int, key: int) -> None:
        self.size = size
        self._half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
        self._keys = [_hash(key + number * _GOLDEN & _MASK) for number in range(_NUM_ROUNDS)]

    def __getitem__(self, index: int) -> int:
        """Where the shuffle sends `index`."""
        if not 0 <= index < self.size:
            raise IndexError(index)
        value = self._mixed(index)
        while value >= self.size:
            value = self._mixed(value)
        return value

    def _mixed(self, value: int) -> int:
        bits = self._half_bits
        mask = (1 << bits) - 1
        left, right = value >> bits, value & mask
        for key in self._keys:
            left, right = right, left ^ (_hash(right ^ key) >> (64 - bits))
        return left << bits | right


def shuffled(size: int, key: int) -> NDArray[np.int64]:
    """0, ..., size - 1 in an order that depends on `key` alone, int64 [size]; stored."""
    values = np.arange(size, dtype=np.uint64) ^ np.uint64(key)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.argsort(values ^ (values >> np.uint64(31)), kind="stable")


def _hash(value: int) -> int:
    """The finaliser of SplitMix64: every bit of 64 depends on every other."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 31
