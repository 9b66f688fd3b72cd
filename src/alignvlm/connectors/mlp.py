"""The two-layer MLP connector of LLaVA-1.5, the paper's main baseline."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from alignvlm.connectors.base import Connector, ConnectorOutput, Grid

__all__ = ["MLP"]


class MLP(Connector):
    """Two affine maps with an exact GELU between: F' = Wb GELU(Wa F + a) + b.

    Structure of LLaVA-NeXT's `mlp2x_gelu` (LLaVA-VL/LLaVA-NeXT, df17966,
    multimodal_projector/builder.py): Wa [D, d], Wb [D, D], both biased, no norm, torch's own
    initialisation (transformers' port draws from a normal distribution instead).

    Unlike the paper, whose section 3.2 writes a single layer, sigma(W F + b): it names the
    connector of LLaVA-1.5, which has two.

    Parameters: dD + D + D^2 + D, e.g. 12,982,272 for d=1152, D=3072. One visual token per feature.
    Intermediates: `hidden` [..., N, D], after the GELU, and `visual_tokens`.

    Args:
        vision_dim: width d of the vision features.
        text_dim: width D of the LLM's embeddings.
    """

    def __init__(self, vision_dim: int, text_dim: int) -> None:
        super().__init__(vision_dim, text_dim)
        self.fc1 = nn.Linear(vision_dim, text_dim)
        self.fc2 = nn.Linear(text_dim, text_dim)

    def forward(
        self,
        features: Tensor,
        *,
        embeddings: Tensor | None = None,
        grid: Grid | None = None,
        return_intermediates: bool = False,
    ) -> ConnectorOutput:
        """The two maps for F [..., N, d]; `embeddings` are not used. See `Connector.forward`."""
        self.check_inputs(features, embeddings, grid)
        hidden = functional.gelu(self.fc1(features))
        tokens = self.fc2(hidden)
        steps = {"hidden": hidden, "visual_tokens": tokens}
        return ConnectorOutput(
            visual_tokens=tokens,
            grid=None if grid is None else self.output_grid(grid),
            intermediates=steps if return_intermediates else None,
        )

    def flops(self, grid: Grid, num_tiles: int = 1) -> int:
        """2 T N D (d + D)."""
        return 2 * num_tiles * grid[0] * grid[1] * self.text_dim * (self.vision_dim + self.text_dim)
