"""Pixel shuffle: blocks of neighbouring features side by side, then one linear map."""

from __future__ import annotations

from torch import Tensor, nn

from alignvlm.connectors.base import Connector, ConnectorOutput, Grid, positive
from alignvlm.connectors.grids import merge_blocks

__all__ = ["PixelShuffle"]


class PixelShuffle(Connector):
    """Space to depth, then a linear map without bias: F' = W [f_1 ... f_{r^2}], W [D, r^2 d].

    Each r x r block of features becomes one visual token. Within a block the features are taken
    row by row, each whole: channel c of the feature in row i and column j of its block meets
    column (i r + j) d + c of W.

    Structure of nanoVLM (huggingface/nanoVLM, 4e0c096, models/modality_projector.py) and of
    SmolVLM (transformers 5.23, models/smolvlm/modeling_smolvlm.py, SmolVLMConnector): one matrix
    without bias, first values from N(0, 0.02^2), the order within a block as above in both, so
    that their weights fit W as they are. Both take square grids alone, and nanoVLM refuses those
    that r does not divide. Unlike them, any grid is taken: rows and columns that fill no block are
    completed with zeros at the bottom and at the right, so no feature is lost. The paper does not
    compare against it.

    Parameters: r^2 dD, e.g. 14,155,776 for r=2, 31,850,496 for r=3 and 56,623,104 for r=4, at
    d=1152, D=3072. The grid becomes ceil(rows / r) x ceil(columns / r): 27 x 27 gives 14 x 14,
    9 x 9 and 7 x 7. Intermediates, of all T tiles: `merged` [T, rows', columns', r^2 d], the
    blocks; and `visual_tokens` [..., N', D].

    Args:
        vision_dim: width d of the vision features.
        text_dim: width D of the LLM's embeddings.
        factor: r, side of a block. nanoVLM and SmolVLM use 2 to 4, by model; 2 keeps the most
            visual tokens.

    Raises:
        ConfigurationError: a width or the factor is not a positive integer.
    """

    def __init__(self, vision_dim: int, text_dim: int, *, factor: int = 2) -> None:
        super().__init__(vision_dim, text_dim)
        self.factor = positive("factor", factor)
        self.proj = _Projection(self.vision_dim * factor**2, self.text_dim, bias=False)

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
        """
        self.check_inputs(features, embeddings, grid)
        tiles = self.split_tiles(features, grid)
        assert grid is not None  # split_tiles has raised otherwise
        merged = merge_blocks(tiles, (self.factor, self.factor))
        tokens = self.join_tiles(self.proj(merged).flatten(1, 2), features, grid)
        steps = {"merged": merged, "visual_tokens": tokens}
        return ConnectorOutput(
            visual_tokens=tokens,
            grid=self.output_grid(grid),
            intermediates=steps if return_intermediates else None,
        )

    def output_grid(self, grid: Grid) -> Grid:
        """Rows and columns of r x r blocks, those completed with zeros included."""
        return -(-grid[0] // self.factor), -(-grid[1] // self.factor)

    def flops(self, grid: Grid, num_tiles: int = 1) -> int:
        """2 T N' r^2 dD, with N' visual tokens a tile."""
        return 2 * num_tiles * self.num_visual_tokens(grid) * self.proj.weight.numel()

    def extra_repr(self) -> str:
        """Options for `print(connector)`."""
        return f"factor={self.factor}"


class _Projection(nn.Linear):
    """A linear map that starts as nanoVLM's does."""

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=0.02)
