"""The default model's vision encoder: a text recogniser's trunk, run over whole pages.

The trunk is the recogniser of PP-OCRv6 (small), a convolutional network that was trained to read
lines 48 px high. Its features are taken at two depths (strides 8 x 4 and 16 x 4 px), added, and
refined by a few convolution blocks, so that every cell of 8 x 4 px becomes one visual feature.

Unlike the paper, which uses SigLIP-400M with 14 x 14 px patches: no SigLIP weights are carried by
a package index, and characters of 12 px need cells smaller than a patch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutput
from transformers.modeling_utils import PreTrainedModel

from alignvlm.errors import ConfigurationError

# (channels in, channels out, vertical stride, squeeze-and-excitation) of each block, as in
# PP-OCRv6's small recogniser; the horizontal stride stays 4 from the stem on.
_STAGE_S4 = ((96, 96, 1, True), (96, 96, 1, False), (96, 96, 1, False))
_STAGE_S8 = (
    (96, 192, 2, False),
    (192, 192, 1, True),
    (192, 192, 1, False),
    (192, 192, 1, True),
    (192, 192, 1, False),
    (192, 192, 1, True),
    (192, 192, 1, False),
)
_STAGE_S16 = ((192, 384, 2, False), (384, 384, 1, True), (384, 384, 1, False))


class DocumentEncoderConfig(PreTrainedConfig):
    """Geometry of the document encoder.

    Args:
        tile_px: side S of a square tile; a multiple of 16.
        cell_height_px, cell_width_px: size of the page area behind one visual feature; multiples
            of 8 and 4, the trunk's own cells. Larger cells put the features of theirs side by side.
        hidden_size: d, the width of a visual feature, over all the trunk's cells behind it.
        num_context_layers: convolution blocks after the trunk.
        context_kernel: their kernel (rows, columns) in cells.
    """

    model_type = "alignvlm_document_encoder"

    tile_px: int = 384
    cell_height_px: int = 8
    cell_width_px: int = 4
    hidden_size: int = 192
    num_context_layers: int = 3
    context_kernel: tuple[int, int] | list[int] = (3, 9)

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        rows, columns = self.merged_cells
        fits = self.cell_height_px % 8 == 0 and self.cell_width_px % 4 == 0
        fits = fits and self.tile_px % self.cell_height_px == 0
        fits = fits and self.tile_px % self.cell_width_px == 0 and self.tile_px % 16 == 0
        if not fits or self.hidden_size % (rows * columns):
            raise ConfigurationError(
                f"The document encoder cannot cut tiles of {self.tile_px} px into cells of "
                f"{self.cell_height_px} x {self.cell_width_px} px of width {self.hidden_size}: "
                "take cells of a multiple of 8 x 4 px that divide the tile, a tile of a multiple "
                "of 16 px, and a width that divides by the number of 8 x 4 px parts of a cell"
            )

    @property
    def merged_cells(self) -> tuple[int, int]:
        """Rows and columns of the trunk's cells behind one visual feature."""
        return max(1, self.cell_height_px // 8), max(1, self.cell_width_px // 4)

    @property
    def num_rows(self) -> int:
        """Rows of visual features in a tile."""
        return self.tile_px // self.cell_height_px

    @property
    def num_columns(self) -> int:
        """Columns of visual features in a tile."""
        return self.tile_px // self.cell_width_px


class _Stem(nn.Module):
    """Stride 4 in both directions, with a pooled and a convolved branch joined at stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 48, 3, stride=2, padding=1)
        self.branch_a = nn.Conv2d(48, 24, 2)
        self.branch_b = nn.Conv2d(24, 48, 2)
        self.join = nn.Conv2d(96, 48, 3, stride=2, padding=1)
        self.leave = nn.Conv2d(48, 96, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        x = functional.relu(self.enter(pixels))
        # Even kernels keep the size by padding one pixel on the right and at the bottom.
        branch = functional.relu(self.branch_a(functional.pad(x, (0, 1, 0, 1))))
        branch = functional.relu(self.branch_b(functional.pad(branch, (0, 1, 0, 1))))
        pooled = functional.max_pool2d(functional.pad(x, (0, 1, 0, 1)), 2, stride=1)
        x = functional.relu(self.join(torch.cat((pooled, branch), dim=1)))
        return functional.relu(self.leave(x))


class _TileGate(nn.Module):
    """Squeeze-and-excitation whose mean is taken over each tile, not over the whole canvas.

    A page of nine stitched tiles is then gated by the statistics that a single tile was trained
    with, however large or empty the rest of the page is.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // 4, 1)
        self.excite = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        mean = functional.adaptive_avg_pool2d(x, grid)
        gate = functional.hardsigmoid(self.excite(functional.relu(self.squeeze(mean))))
        if grid != (1, 1):
            gate = functional.interpolate(gate, size=x.shape[-2:], mode="nearest")
        return x * gate


class _TrunkBlock(nn.Module):
    """Depthwise 3 x 3 convolution, optional gate, then a pointwise expansion by two."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, gated: bool) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            channels_in, channels_in, 3, stride=(stride, 1), padding=1, groups=channels_in
        )
        self.gate = _TileGate(channels_in) if gated else None
        self.expand = nn.Conv2d(channels_in, 2 * channels_in, 1)
        self.compress = nn.Conv2d(2 * channels_in, channels_out, 1)
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        x = self.depthwise(x)
        if self.gate is not None:
            x = self.gate(x, grid)
        mixed = self.compress(functional.gelu(self.expand(x)))
        return x + mixed if self.residual else mixed


class Trunk(nn.Module):
    """The recogniser's convolutions up to its pooling layer: 54 of them, batch norms folded in."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Stem()
        self.stage_s4 = nn.ModuleList(_TrunkBlock(*block) for block in _STAGE_S4)
        self.stage_s8 = nn.ModuleList(_TrunkBlock(*block) for block in _STAGE_S8)
        self.stage_s16 = nn.ModuleList(_TrunkBlock(*block) for block in _STAGE_S16)

    def forward(self, pixels: Tensor, grid: tuple[int, int] = (1, 1)) -> tuple[Tensor, Tensor]:
        """Pixels [B, 3, H, W] -> features [B, 192, H/8, W/4] and [B, 384, H/16, W/4]."""
        x = self.stem(pixels)
        for block in self.stage_s4:
            x = block(x, grid)
        for block in self.stage_s8:
            x = block(x, grid)
        fine = x
        for block in self.stage_s16:
            x = block(x, grid)
        return fine, x


class _ContextLayer(nn.Module):
    """Large depthwise kernel, LayerNorm, pointwise expansion: what the neighbours say."""

    def __init__(self, width: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.depthwise = nn.Conv2d(width, width, kernel, padding=padding, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 2 * width)
        self.compress = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        mixed = self.compress(functional.gelu(self.expand(mixed)))
        return x + mixed.permute(0, 3, 1, 2)


class DocumentEncoder(PreTrainedModel):
    """Tiles to visual features, one for each cell, by default of 8 x 4 px.

    Convolutions see across tile borders: the tiles of one image are laid out on their grid again
    before they are encoded, so no character is cut at a seam.
    """

    config_class = DocumentEncoderConfig
    config: DocumentEncoderConfig
    main_input_name = "pixel_values"
    base_model_prefix = "document_encoder"
    input_modalities = ("image",)
    supports_gradient_checkpointing = False
    # It has no attention, so whichever a model around it asks for is fine.
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: DocumentEncoderConfig) -> None:
        super().__init__(config)
        width = config.hidden_size // (config.merged_cells[0] * config.merged_cells[1])
        self.trunk = Trunk()
        self.fine = nn.Conv2d(192, width, 1)
        self.coarse = nn.Conv2d(384, width, 1)
        kernel = (int(config.context_kernel[0]), int(config.context_kernel[1]))
        self.context = nn.ModuleList(
            _ContextLayer(width, kernel) for _ in range(config.num_context_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor,
        grids: list[tuple[int, int]] | None = None,
        **_: object,
    ) -> BaseModelOutput:
        """Encode tiles.

        Args:
            pixel_values: [T, 3, S, S], scaled to [-1, 1].
            grids: (rows, columns) of tiles for every image, row-major in `pixel_values`;
                without it every tile is an image of its own.

        Returns:
            `last_hidden_state` [T, N, d], N = (S / cell height) * (S / cell width), row-major
            inside each tile.
        """
        if grids is None or all(tuple(grid) == (1, 1) for grid in grids):
            return BaseModelOutput(last_hidden_state=self._cells(pixel_values, (1, 1)))
        pieces, start = [], 0
        for rows, columns in grids:
            tiles = pixel_values[start : start + rows * columns]
            start += rows * columns
            canvas = tiles.unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4)
            pieces.append(self._cells(canvas.flatten(3).flatten(1, 2)[None], (rows, columns)))
        return BaseModelOutput(last_hidden_state=torch.cat(pieces))

    def _cells(self, canvas: Tensor, grid: tuple[int, int]) -> Tensor:
        """Canvas [B, 3, rows*S, columns*S] -> features of its tiles [B*rows*columns, N, d]."""
        fine, coarse = self.trunk(canvas.contiguous(memory_format=torch.channels_last), grid)
        coarse = functional.interpolate(self.coarse(coarse), size=fine.shape[-2:], mode="nearest")
        x = self.fine(fine) + coarse
        for layer in self.context:
            x = layer(x)
        x = self.norm(x.permute(0, 2, 3, 1))
        rows, columns = self.config.num_rows, self.config.num_columns
        x = _merge(x, self.config.merged_cells)
        x = x.unflatten(1, (grid[0], rows)).unflatten(3, (grid[1], columns))
        return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, rows * columns, x.shape[-1])

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            # 54 layers without normalisation: any smaller start and the signal dies on the way.
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, _ContextLayer):
            # Start as the identity, so that training begins from the trunk's own features.
            nn.init.zeros_(module.compress.weight)
            nn.init.zeros_(module.compress.bias)


def _merge(x: Tensor, cells: tuple[int, int]) -> Tensor:
    """Features [B, rows, columns, c] of the trunk's cells, side by side within larger ones."""
    if cells == (1, 1):
        return x
    x = x.unflatten(1, (-1, cells[0])).unflatten(3, (-1, cells[1]))
    return x.permute(0, 1, 3, 2, 4, 5).flatten(3)


AutoConfig.register(DocumentEncoderConfig.model_type, DocumentEncoderConfig, exist_ok=True)
AutoModel.register(DocumentEncoderConfig, DocumentEncoder, exist_ok=True)
