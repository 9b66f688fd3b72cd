"""The MLP connector with an output norm: the control that tells norm from alignment."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from alignvlm.connectors.base import Connector, ConnectorOutput, Grid
from alignvlm.errors import ConfigurationError

__all__ = ["MLPNorm"]


class MLPNorm(Connector):
    """The MLP connector, its output brought to the norm of text embeddings: F' = s LN_D(MLP(F)).

    MLP(F) = Wb GELU(Wa F + a) + b, with the exact GELU. LN_D has no scale or shift of its own: it
    takes the mean out of each token and gives it a root mean square (RMS) of 1. The gain s, one
    learned number, then sets the RMS of every visual token; `init_from_embeddings`, called once
    the LLM's weights are loaded, sets it to the mean RMS of the text embeddings. The visual tokens
    then share with the text embeddings their norm and nothing else, so what ALIGN, whose visual
    tokens are mixtures of text embeddings, gains over this connector is no matter of norm.

    The two maps are LLaVA-NeXT's `mlp2x_gelu` (LLaVA-VL/LLaVA-NeXT, df17966,
    multimodal_projector/builder.py), with torch's own initialisation. The norm was checked
    against no published code: it follows the proposal of a LayerNorm after the MLP against visual
    tokens of large norm (arXiv 2512.08374). Unlike the paper, which compares against no such
    control. One gain serves all channels, since it is the norm that is to be controlled.

    Parameters: dD + D + D^2 + D + 1, e.g. 12,982,273 for d=1152, D=3072. One visual token per
    feature. Intermediates: `hidden` [..., N, D], after the GELU; `projected` [..., N, D], before
    the norm; and `visual_tokens`. The norm is taken in float32 or wider; `visual_tokens` have the
    dtype of the model, or autocast's.

    Args:
        vision_dim: width d of the vision features.
        text_dim: width D of the LLM's embeddings.
        eps: added to the variance within a token, 1e-5 as in torch and in ALIGN's LayerNorms.

    Raises:
        ConfigurationError: a width is not a positive integer, or eps is no positive number.
    """

    def __init__(self, vision_dim: int, text_dim: int, *, eps: float = 1e-5) -> None:
        super().__init__(vision_dim, text_dim)
        if not (math.isfinite(eps) and eps > 0):
            raise ConfigurationError(f"MLPNorm's eps must be a positive number, not {eps!r}")
        self.eps = eps
        self.fc1 = nn.Linear(vision_dim, text_dim)
        self.fc2 = nn.Linear(text_dim, text_dim)
        self.gain = nn.Parameter(torch.ones(1))

    def forward(
        self,
        features: Tensor,
        *,
        embeddings: Tensor | None = None,
        grid: Grid | None = None,
        return_intermediates: bool = False,
    ) -> ConnectorOutput:
        """The maps and the norm for F [..., N, d]; `embeddings` are not used.

        See `Connector.forward`; the text embeddings count in `init_from_embeddings` only.
        """
        self.check_inputs(features, embeddings, grid)
        hidden = functional.gelu(self.fc1(features))
        projected = self.fc2(hidden)
        wide = projected.to(torch.promote_types(projected.dtype, torch.float32))
        normed = functional.layer_norm(wide, (self.text_dim,), eps=self.eps)
        tokens = (self.gain * normed).to(projected.dtype)
        steps = {"hidden": hidden, "projected": projected, "visual_tokens": tokens}
        return ConnectorOutput(
            visual_tokens=tokens,
            grid=None if grid is None else self.output_grid(grid),
            intermediates=steps if return_intermediates else None,
        )

    @torch.no_grad()
    def init_from_embeddings(self, embeddings: Tensor) -> None:
        """Sets the gain to the mean over E's rows of a row's RMS; until then it is 1.

        Args:
            embeddings: E [V, D], the LLM's input embeddings, any V > 0.

        Raises:
            ConfigurationError: E has another width, no rows, or one of the two has no values yet
                (meta), or the mean is not a positive number.
        """
        self.check_embeddings(embeddings)
        if embeddings.is_meta or self.gain.is_meta:
            raise ConfigurationError(
                "MLPNorm's gain cannot be measured from or on the meta device: load the weights "
                "first, then call init_from_embeddings"
            )
        wide = torch.promote_types(embeddings.dtype, torch.float32)
        norms = torch.linalg.vector_norm(embeddings, dim=-1, dtype=wide)
        rms = norms.mean().item() / math.sqrt(self.text_dim)
        if not (math.isfinite(rms) and rms > 0):
            raise ConfigurationError(
                f"MLPNorm's gain cannot start from text embeddings whose mean RMS is {rms}: pass "
                "the loaded table of the LLM, with at least one row"
            )
        self.gain.fill_(rms)

    def init_from_language_model(self, head: Tensor, embeddings: Tensor) -> None:
        """`init_from_embeddings`; the head is not used."""
        self.init_from_embeddings(embeddings)

    def reset_parameters(self) -> None:
        """Initialises everything again; the gain is 1 until `init_from_embeddings`."""
        super().reset_parameters()
        nn.init.ones_(self.gain)

    def flops(self, grid: Grid, num_tiles: int = 1) -> int:
        """2 T N D (d + D)."""
        return 2 * num_tiles * grid[0] * grid[1] * self.text_dim * (self.vision_dim + self.text_dim)

    def extra_repr(self) -> str:
        """Options for `print(connector)`."""
        return f"eps={self.eps}"
