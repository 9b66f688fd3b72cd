"""H-Reducer of DocOwl 1.5: neighbours in a row are merged by convolutions, as text runs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from alignvlm.connectors.base import Connector, ConnectorOutput, Grid
from alignvlm.connectors.grids import merge_blocks, pair
from alignvlm.errors import ConfigurationError

__all__ = ["HReducer"]


class HReducer(Connector):
    """Each block of a x b features, 1 x 4 by default, becomes one visual token.

    Published as two convolutions whose kernel and stride are both the block, with k = a b:
    Conv2d(d, kd) and the exact GELU; a rearrangement that lays each position's kd channels out as
    k positions of d channels; Conv2d(d, d); then Linear(d, D). A convolution whose stride is its
    kernel sees each block once, and the second one's block is just what the rearrangement laid
    out, so the whole is three linear maps on each block x [kd], and nothing passes between
    blocks: F' = V (W2 GELU(W1 x + w1) + w2) + v. That is how it is computed here, in any dtype
    and without a change of memory layout. `W1 = conv.weight.permute(0, 2, 3, 1).flatten(1)` takes
    over a published weight, and the same for W2; biases and V are the same.

    Structure of DocOwl 1.5 (X-PLUG/mPLUG-DocOwl, f91a768, DocOwl1.5/mplug_docowl/model/
    visual_encoder.py, MplugDocOwlHReducerModel). It also defines a LayerNorm `ln_q` that it never
    calls, and ends every tile with a learned token; here the first is left out and the second is
    `end_token`. Its initializer_range of 0.02 reaches neither convolution: they keep torch's
    initialisation, as all three maps do here. Unlike DocOwl, columns that fill no block are kept
    (`pad`), and a block of several rows is laid out as its own a rows and b columns: DocOwl lays
    all k positions out along the row, which is the same for a = 1, as in its config. The paper
    compares against an H-Reducer and says nothing of its block or of padding.

    Parameters: (kd)^2 + kd + kd^2 + d + dD + D, e.g. 30,089,856 for k=4, d=1152, D=3072; 30,092,928
    with the end token (D), and DocOwl's 30,095,232 with the unused norm (2d). 27 x 27 features give
    27 x 7 = 189 visual tokens, 27 x 6 = 162 with pad=False. Intermediates, of all T tiles:
    `merged` [T, rows', columns', kd], the blocks; `hidden` [T, rows', columns', kd], after the
    GELU; `reduced` [T, rows', columns', d]; and `visual_tokens` [..., N', D].

    Args:
        vision_dim: width d of the vision features.
        text_dim: width D of the LLM's embeddings.
        reduce: rows a and columns b of a block; DocOwl's is 1 x 4.
        pad: complete the last blocks with zeros at the bottom and at the right, so that no feature
            is lost. Without, as in DocOwl, the rows and columns that fill no block are dropped,
            3 of 27 columns for a block of 4.
        end_token: end every tile with one learned token, first values from N(0, 1), as DocOwl does;
            the visual tokens then have no grid. Off, because the tiling layouts of this package
            bring their own marks.

    Raises:
        ConfigurationError: a width or a side of the block is not a positive integer.
    """

    def __init__(
        self,
        vision_dim: int,
        text_dim: int,
        *,
        reduce: Sequence[int] = (1, 4),
        pad: bool = True,
        end_token: bool = False,
    ) -> None:
        super().__init__(vision_dim, text_dim)
        self.reduce = pair("reduce", reduce)
        self.pad = pad
        width = self.vision_dim * self.reduce[0] * self.reduce[1]
        self.before = nn.Linear(width, width)
        self.reducer = nn.Linear(width, self.vision_dim)
        self.fc = nn.Linear(self.vision_dim, self.text_dim)
        self.end_token = nn.Parameter(torch.empty(self.text_dim)) if end_token else None
        self._reset_end_token()

    def forward(
        self,
        features: Tensor,
        *,
        embeddings: Tensor | None = None,
        grid: Grid | None = None,
        return_intermediates: bool = False,
    ) -> ConnectorOutput:
        """One visual token per block of F [..., k rows columns, d]; `embeddings` are not used.

        See `Connector.forward`; here `grid` is required.

        Raises:
            ConfigurationError: the inputs do not fit, or pad=False and a tile fills no block.
        """
        self.check_inputs(features, embeddings, grid)
        tiles = self.split_tiles(features, grid)
        assert grid is not None  # split_tiles has raised otherwise
        rows, columns = self._blocks(grid)
        tiles = tiles[:, : rows * self.reduce[0], : columns * self.reduce[1]]
        merged = merge_blocks(tiles, self.reduce)
        hidden = functional.gelu(self.before(merged))
        reduced = self.reducer(hidden)
        tokens = self.join_tiles(self._end(self.fc(reduced).flatten(1, 2)), features, grid)
        steps = {"merged": merged, "hidden": hidden, "reduced": reduced, "visual_tokens": tokens}
        return ConnectorOutput(
            visual_tokens=tokens,
            grid=self.output_grid(grid),
            intermediates=steps if return_intermediates else None,
        )

    def output_grid(self, grid: Grid) -> Grid | None:
        """Rows and columns of blocks; None with an end token, which is none of them."""
        blocks = self._blocks(grid)
        return blocks if self.end_token is None else None

    def num_visual_tokens(self, grid: Grid) -> int:
        """Number of blocks of a tile, and 1 with an end token."""
        rows, columns = self._blocks(grid)
        return rows * columns + (self.end_token is not None)

    def reset_parameters(self) -> None:
        """Initialises everything again, as after construction."""
        super().reset_parameters()
        self._reset_end_token()

    def flops(self, grid: Grid, num_tiles: int = 1) -> int:
        """2 T B ((kd)^2 + kd^2 + dD), with B blocks a tile."""
        rows, columns = self._blocks(grid)
        maps = (self.before, self.reducer, self.fc)
        return 2 * num_tiles * rows * columns * sum(each.weight.numel() for each in maps)

    def extra_repr(self) -> str:
        """Options for `print(connector)`."""
        return f"reduce={self.reduce}, pad={self.pad}, end_token={self.end_token is not None}"

    def _blocks(self, grid: Grid) -> Grid:
        """Rows and columns of blocks, those completed with zeros included if `pad`."""
        if self.pad:
            return -(-grid[0] // self.reduce[0]), -(-grid[1] // self.reduce[1])
        blocks = grid[0] // self.reduce[0], grid[1] // self.reduce[1]
        if min(blocks) < 1:
            raise ConfigurationError(
                f"HReducer would drop all features of a {grid[0]} x {grid[1]} tile, which fills no "
                f"block of {self.reduce[0]} x {self.reduce[1]}: build it with pad=True or with a "
                "smaller `reduce`"
            )
        return blocks

    def _end(self, tokens: Tensor) -> Tensor:
        """Visual tokens [T, B, D], followed by the end token, if there is one."""
        if self.end_token is None:
            return tokens
        end = self.end_token.to(tokens.dtype).expand(tokens.shape[0], 1, self.text_dim)
        return torch.cat([tokens, end], dim=1)

    def _reset_end_token(self) -> None:
        if self.end_token is not None:
            nn.init.normal_(self.end_token)
