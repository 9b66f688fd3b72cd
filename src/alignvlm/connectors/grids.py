"""What the connectors that change a tile's grid have in common."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from alignvlm.connectors.base import Grid
from alignvlm.errors import ConfigurationError

__all__ = ["merge_blocks", "pair"]


def merge_blocks(tiles: Tensor, block: Grid) -> Tensor:
    """Space to depth: each block of neighbouring features becomes one feature.

    Within a block the order is row by row, each feature whole: channel c of the feature in row i
    and column j of an a x b block becomes channel (i b + j) d + c. Rows and columns that fill no
    whole block are completed with zeros at the bottom and at the right.

    Args:
        tiles: [T, rows, columns, d].
        block: rows a and columns b of a block.

    Returns:
        [T, ceil(rows / a), ceil(columns / b), a b d], in the dtype of `tiles`.
    """
    num_tiles, rows, columns, width = tiles.shape
    new_rows, new_columns = -(-rows // block[0]), -(-columns // block[1])
    below, right = new_rows * block[0] - rows, new_columns * block[1] - columns
    padded = functional.pad(tiles, (0, 0, 0, right, 0, below))
    blocks = padded.reshape(num_tiles, new_rows, block[0], new_columns, block[1], width)
    return blocks.transpose(2, 3).reshape(
        num_tiles, new_rows, new_columns, block[0] * block[1] * width
    )


def pair(name: str, value: Sequence[int]) -> Grid:
    """`value` as (rows, columns); raises a ConfigurationError if it is no two positive integers."""
    numbers = tuple(value) if isinstance(value, list | tuple) else ()
    if len(numbers) != 2 or any(type(number) is not int or number < 1 for number in numbers):
        raise ConfigurationError(
            f"{name} must be two positive integers, rows and columns, not {value!r}"
        )
    return numbers[0], numbers[1]
