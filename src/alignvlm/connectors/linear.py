"""The plain linear connector, the smallest baseline."""

from __future__ import annotations

from torch import Tensor, nn

from alignvlm.connectors.base import Connector, ConnectorOutput, Grid

__all__ = ["Linear"]


class Linear(Connector):
    """One affine map, F' = W F + b, with W [D, d].

    Structure of the `linear` projector of LLaVA-NeXT (LLaVA-VL/LLaVA-NeXT, df17966,
    multimodal_projector/builder.py) and of Prismatic (TRI-ML/prismatic-vlms, 874c5bb): biased,
    torch's own initialisation. The paper does not compare against it.

    Parameters: dD + D, e.g. 3,542,016 for d=1152, D=3072. One visual token per feature.
    Intermediates: `visual_tokens` only.

    Args:
        vision_dim: width d of the vision features.
        text_dim: width D of the LLM's embeddings.
    """

    def __init__(self, vision_dim: int, text_dim: int) -> None:
        super().__init__(vision_dim, text_dim)
        self.proj = nn.Linear(vision_dim, text_dim)

    def forward(
        self,
        features: Tensor,
        *,
        embeddings: Tensor | None = None,
        grid: Grid | None = None,
        return_intermediates: bool = False,
    ) -> ConnectorOutput:
        """W F + b for F [..., N, d]; `embeddings` are not used. See `Connector.forward`."""
        self.check_inputs(features, embeddings, grid)
        tokens = self.proj(features)
        return ConnectorOutput(
            visual_tokens=tokens,
            grid=None if grid is None else self.output_grid(grid),
            intermediates={"visual_tokens": tokens} if return_intermediates else None,
        )

    def flops(self, grid: Grid, num_tiles: int = 1) -> int:
        """2 T N dD."""
        return 2 * num_tiles * grid[0] * grid[1] * self.vision_dim * self.text_dim
