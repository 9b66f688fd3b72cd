"""C-Abstractor of Honeybee: convolutions, pooling to a fixed number of tokens, convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from alignvlm.connectors.base import Connector, ConnectorOutput, Grid, positive
from alignvlm.connectors.grids import pair
from alignvlm.errors import ConfigurationError

__all__ = ["CAbstractor"]


class CAbstractor(Connector):
    """sqrt(M) x sqrt(M) visual tokens of a tile, whatever its grid, by convolution and pooling.

    Learned positions are added to the features; then come a stage of `depth` blocks from width d
    to width h, adaptive average pooling to sqrt(M) x sqrt(M), a second stage at width h, and an
    MLP of `mlp_depth` linear maps with SiLU between, from h to D. A grid smaller than
    sqrt(M) x sqrt(M) is stretched by the pooling, which then repeats features.

    A block is RegNet's, from width c to h: 1x1 convolution, LayerNorm, SiLU; depthwise 3x3
    convolution (zeros beyond the tile's edge), LayerNorm, SiLU; squeeze-excite; 1x1 convolution,
    LayerNorm; plus the block's input, through a 1x1 convolution and a LayerNorm where c is not h;
    SiLU. Convolutions have no bias, LayerNorms are over channels, affine, eps 1e-5. Squeeze-excite
    multiplies each channel by sigmoid(S2 SiLU(S1 m + s1) + s2), where m is the tile's mean and
    S1 [round(c / 4), h] goes by the block's input width.

    Structure of Honeybee (khanrc/honeybee, 68a8d84, honeybee/projectors/projectors.py and
    configs/model_config/c-abs.yaml, whose values are the defaults here) on RegStage of
    huggingface/pytorch-image-models (timm 1.0.31, models/regnet.py; the same in 0.9.8, which
    Honeybee asks for), with outputs equal to timm's; positions from a normal distribution of
    deviation 0.02, cut off at +-2, all else as torch initialises it, as there. 1x1 convolutions are
    linear maps here: timm's weights [h, c, 1, 1] fit after `flatten(1)`, in the same order.
    Unlike Honeybee, whose positions fit one square grid alone: on another grid than `positions`
    they are interpolated bilinearly (align_corners=False, no antialias). The paper compares
    against a C-Abstractor and gives none of its sizes.

    Parameters: Pd, for P positions; a block's ch + h^2 + 16h + 2hs + s with s = round(c / 4), and
    ch + 2h more where c is not h; hD + D + (mlp_depth - 1)(D^2 + D). In all
    30,635,680 for d=1152, D=3072 and the defaults: 839,808 + 9,292,576 + 7,914,240 + 12,589,056.
    Intermediates, of all T tiles: `stage1` [T, rows, columns, h]; `pooled` and `stage2`
    [T, sqrt(M), sqrt(M), h]; and `visual_tokens` [..., M, D].

    Args:
        vision_dim: width d of the vision features.
        text_dim: width D of the LLM's embeddings.
        num_queries: M, visual tokens of a tile, a square number.
        hidden_dim: h.
        depth: blocks of a stage.
        mlp_depth: linear maps of the last MLP.
        positions: rows and columns of the grid that the learned positions belong to, 27 x 27 for
            SigLIP-so400m at 384 pixels; None for no positions.

    Raises:
        ConfigurationError: a size is not a positive integer, or M is no square.
    """

    def __init__(
        self,
        vision_dim: int,
        text_dim: int,
        *,
        num_queries: int = 144,
        hidden_dim: int = 1024,
        depth: int = 3,
        mlp_depth: int = 2,
        positions: Sequence[int] | None = (27, 27),
    ) -> None:
        super().__init__(vision_dim, text_dim)
        self.side = _square_root(positive("num_queries", num_queries))
        h = positive("hidden_dim", hidden_dim)
        positive("depth", depth)
        grid = None if positions is None else pair("positions", positions)
        self.positions = None if grid is None else _Positions(self.vision_dim, grid)
        widths = [self.vision_dim, *[h] * depth]
        self.stage1 = nn.Sequential(*(_Block(c, h) for c in widths[:-1]))
        self.stage2 = nn.Sequential(*(_Block(h, h) for _ in range(depth)))
        self.readout = nn.Sequential(nn.Linear(h, self.text_dim))
        for _ in range(positive("mlp_depth", mlp_depth) - 1):
            self.readout.append(nn.SiLU())
            self.readout.append(nn.Linear(self.text_dim, self.text_dim))

    def forward(
        self,
        features: Tensor,
        *,
        embeddings: Tensor | None = None,
        grid: Grid | None = None,
        return_intermediates: bool = False,
    ) -> ConnectorOutput:
        """M visual tokens for each tile of F [..., k rows columns, d]; `embeddings` are not used.

        See `Connector.forward`; here `grid` is required.
        """
        self.check_inputs(features, embeddings, grid)
        tiles = self.split_tiles(features, grid)
        assert grid is not None  # split_tiles has raised otherwise
        if self.positions is not None:
            tiles = tiles + self.positions(grid)
        first = self.stage1(tiles)
        pooled = _channels_last(
            functional.adaptive_avg_pool2d(_channels_first(first), (self.side, self.side))
        )
        second = self.stage2(pooled)
        tokens = self.join_tiles(self.readout(second).flatten(1, 2), features, grid)
        steps = {"stage1": first, "pooled": pooled, "stage2": second, "visual_tokens": tokens}
        return ConnectorOutput(
            visual_tokens=tokens,
            grid=self.output_grid(grid),
            intermediates=steps if return_intermediates else None,
        )

    def output_grid(self, grid: Grid) -> Grid:
        """sqrt(M) x sqrt(M), for every grid."""
        return self.side, self.side

    def flops(self, grid: Grid, num_tiles: int = 1) -> int:
        """2 T (sum over blocks + M (hD + (mlp_depth - 1) D^2)).

        A block costs ch + 9h + h^2 at each position, ch more where c is not h, and 2hs once; the
        first stage has rows x columns positions, the second M.
        """
        num_queries = self.side**2
        readout = sum(m.weight.numel() for m in self.readout if isinstance(m, nn.Linear))
        macs = num_queries * readout
        for stage, positions in ((self.stage1, grid[0] * grid[1]), (self.stage2, num_queries)):
            macs += sum(b.macs(positions) for b in stage if isinstance(b, _Block))
        return 2 * num_tiles * macs

    def extra_repr(self) -> str:
        """Options for `print(connector)`."""
        return f"num_queries={self.side**2}"


class _Positions(nn.Module):
    """A learned vector for each position of one grid, interpolated for others."""

    def __init__(self, width: int, grid: Grid) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(*grid, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, grid: Grid) -> Tensor:
        """[rows, columns, width]."""
        if grid == tuple(self.weight.shape[:2]):
            return self.weight
        table = self.weight.permute(2, 0, 1)[None]
        return functional.interpolate(table, grid, mode="bilinear")[0].permute(1, 2, 0)


class _Block(nn.Module):
    """RegNet's block, [T, rows, columns, c] to [T, rows, columns, h]; channels stay last."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Linear(width_in, width, bias=False)
        self.norm1 = nn.LayerNorm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm2 = nn.LayerNorm(width)
        squeezed = max(1, round(width_in / 4))  # 1 and 2 channels would be squeezed to none
        self.squeeze = nn.Linear(width, squeezed)
        self.excite = nn.Linear(squeezed, width)
        self.conv3 = nn.Linear(width, width, bias=False)
        self.norm3 = nn.LayerNorm(width)
        self.shortcut: nn.Module = nn.Identity()
        if width_in != width:
            self.shortcut = nn.Sequential(
                nn.Linear(width_in, width, bias=False), nn.LayerNorm(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = functional.silu(self.norm1(self.conv1(x)))
        y = _channels_last(self.conv2(_channels_first(y)))
        y = functional.silu(self.norm2(y))
        mean = y.mean((1, 2), keepdim=True)
        y = y * self.excite(functional.silu(self.squeeze(mean))).sigmoid()
        y = self.norm3(self.conv3(y))
        return functional.silu(y + self.shortcut(x))

    def macs(self, positions: int) -> int:
        """Multiply-adds of the convolutions of a tile with so many positions."""
        maps = [m for m in self.shortcut.children() if isinstance(m, nn.Linear)]
        everywhere = [self.conv2.weight, *(m.weight for m in (self.conv1, self.conv3, *maps))]
        once = self.squeeze.weight.numel() + self.excite.weight.numel()
        return positions * sum(weight.numel() for weight in everywhere) + once


def _channels_first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _square_root(num_queries: int) -> int:
    side = math.isqrt(num_queries)
    if side * side != num_queries:
        raise ConfigurationError(
            f"CAbstractor pools to a square of visual tokens, which {num_queries} cannot fill: use "
            f"num_queries={side * side} or {(side + 1) ** 2}"
        )
    return side
