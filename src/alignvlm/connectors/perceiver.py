"""The Perceiver Resampler: a fixed number of learned latents read the features of a tile."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from alignvlm.connectors.base import Connector, ConnectorOutput, Grid, positive

__all__ = ["Perceiver"]


class Perceiver(Connector):
    """Learned latents that attend to a tile's features and to themselves, then one affine map.

    L latents of width d pass through `depth` layers. In each, the latents X are the queries, and
    LN(F) followed by LN(X) are the keys and values of a multi-head attention without biases;
    then comes a feed-forward step, Wb GELU(Wa LN(X)) without biases; both are added to X. A last
    LayerNorm and a biased Linear d -> D make visual tokens of the result.

    Structure of `PerceiverResampler` (mlfoundations/open_flamingo, 655f693, open_flamingo/src/
    helpers.py), without its optional embeddings of frame and time, which one image has no use for.
    LLaVA-NeXT's `perceiver` resampler (LLaVA-VL/LLaVA-NeXT, df17966, multimodal_resampler/
    perceiver.py) is the same with 32 latents and depth 3. The Linear is LLaVA-NeXT's order,
    resampler before projector; OpenFlamingo hands width d to its cross-attention layers instead.
    The latents start as standard normal draws, all else as torch does it.

    Unlike the paper, which names a Perceiver Resampler, cites three designs (Flamingo, BLIP-2,
    Idefics2) and gives none of its sizes, this is Flamingo's, with OpenFlamingo's sizes.

    Nothing tells the latents where a feature lies, other than the features: permuting a tile's
    features changes nothing. Each tile gives L visual tokens however many features it has, and
    they have no spatial order, so the output has no grid.

    Parameters, with I = num_heads * head_dim and m = ff_mult: Ld + depth (2m d^2 + 4dI + 6d) + 2d
    for the resampler and dD + D for the Linear, e.g. 77,974,272 + 3,542,016 = 81,516,288 for
    d=1152, D=3072 and the defaults. Intermediates: `latents` [..., k L, d] of k tiles, after the
    last LayerNorm, and `visual_tokens` [..., k L, D].

    Precision: all steps run in the model's dtype, or autocast's (the sum over the layers then stays
    in the parameters' dtype). With bfloat16 weights the visual tokens stay within 2e-2 of float64
    (relative Frobenius norm; 7e-3 was measured at d=1152).


    Args:
        vision_dim: width d of the vision features.
        text_dim: width D of the LLM's embeddings.
        num_latents: L, visual tokens per tile; 64 as in OpenFlamingo.
        depth: number of layers; 6 as in OpenFlamingo.
        num_heads: attention heads; 8 as in OpenFlamingo.
        head_dim: width of a head; 64 as in OpenFlamingo, whatever d is.
        ff_mult: width of the feed-forward step as a multiple of d; 4 as in OpenFlamingo.

    Raises:
        ConfigurationError: a width or an option is not a positive integer.
    """

    def __init__(
        self,
        vision_dim: int,
        text_dim: int,
        *,
        num_latents: int = 64,
        depth: int = 6,
        num_heads: int = 8,
        head_dim: int = 64,
        ff_mult: int = 4,
    ) -> None:
        super().__init__(vision_dim, text_dim)
        self.num_latents = positive("num_latents", num_latents)
        self.depth = positive("depth", depth)
        self.inner_dim = positive("num_heads", num_heads) * positive("head_dim", head_dim)
        self.ff_dim = positive("ff_mult", ff_mult) * vision_dim
        self.latents = nn.Parameter(torch.empty(num_latents, vision_dim))
        self.layers = nn.ModuleList(
            _Layer(vision_dim, num_heads, head_dim, self.ff_dim) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(vision_dim)
        self.proj = nn.Linear(vision_dim, text_dim)
        nn.init.normal_(self.latents)

    def forward(
        self,
        features: Tensor,
        *,
        embeddings: Tensor | None = None,
        grid: Grid | None = None,
        return_intermediates: bool = False,
    ) -> ConnectorOutput:
        """L visual tokens for each tile of F [..., N, d]; see `Connector.forward`.

        `grid` is required, to tell the tiles apart; `embeddings` are not used.

        Raises:
            ConfigurationError: as in `Connector.forward`, or no grid was given.
        """
        self.check_inputs(features, embeddings, grid)
        media = self.split_tiles(features, grid).flatten(1, 2).to(self.latents.dtype)
        assert grid is not None  # split_tiles has raised otherwise
        latents = self.latents.expand(media.shape[0], -1, -1)
        for layer in self.layers:
            latents = layer(media, latents)
        latents = self.norm(latents)
        tokens = self.join_tiles(self.proj(latents), features, grid)
        latents = latents.reshape(*tokens.shape[:-1], self.vision_dim)
        steps = {"latents": latents, "visual_tokens": tokens}
        return ConnectorOutput(
            visual_tokens=tokens,
            grid=self.output_grid(grid),
            intermediates=steps if return_intermediates else None,
        )

    def output_grid(self, grid: Grid) -> Grid | None:
        """None: latents have no spatial order."""
        return None

    def num_visual_tokens(self, grid: Grid) -> int:
        """L, whatever the grid."""
        return self.num_latents

    def reset_parameters(self) -> None:
        """Initialises everything again: the layers as torch does, the latents from N(0, 1)."""
        super().reset_parameters()
        nn.init.normal_(self.latents)

    def flops(self, grid: Grid, num_tiles: int = 1) -> int:
        """2 T (depth (2 I (d + L)(N + L) + 2 L d I + 2 m L d^2) + L dD)."""
        d, inner, queries = self.vision_dim, self.inner_dim, self.num_latents
        keys = grid[0] * grid[1] + queries
        attention = 2 * inner * (d + queries) * keys + 2 * queries * d * inner
        layer = attention + 2 * queries * d * self.ff_dim
        return 2 * num_tiles * (self.depth * layer + queries * d * self.text_dim)

    def extra_repr(self) -> str:
        """Sizes for `print(connector)`."""
        return f"num_latents={self.num_latents}, depth={self.depth}"


class _Layer(nn.Module):
    """Attention of latents [T, L, d] over media [T, N, d] and themselves, then feed-forward."""

    def __init__(self, dim: int, num_heads: int, head_dim: int, ff_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = head_dim
        inner_dim = num_heads * head_dim
        self.norm_media = nn.LayerNorm(dim)
        self.norm_latents = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner_dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner_dim, bias=False)
        self.to_out = nn.Linear(inner_dim, dim, bias=False)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, ff_dim, bias=False),
            nn.GELU(),
            nn.Linear(ff_dim, dim, bias=False),
        )

    def forward(self, media: Tensor, latents: Tensor) -> Tensor:
        latents = latents + self._attend(self.norm_media(media), self.norm_latents(latents))
        fed: Tensor = self.feed_forward(latents)
        return latents + fed

    def _attend(self, media: Tensor, latents: Tensor) -> Tensor:
        keys, values = self.to_kv(torch.cat((media, latents), dim=1)).chunk(2, dim=-1)
        read = functional.scaled_dot_product_attention(
            self._heads(self.to_q(latents)), self._heads(keys), self._heads(values)
        )
        out: Tensor = self.to_out(read.transpose(1, 2).flatten(2))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        """[T, n, heads * head_dim] as [T, heads, n, head_dim]."""
        return x.reshape(*x.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)
