"""What every connector is: vision features in, visual tokens of the LLM's width out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alignvlm.connectors.mixture.eager import autocasts
from alignvlm.errors import ConfigurationError

__all__ = ["Connector", "ConnectorOutput", "Grid"]

Grid = tuple[int, int]
"""Rows and columns of the patches of one tile."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ConnectorOutput:
    """Result of a connector.

    Attributes:
        visual_tokens: [..., N', D], what takes the place of text embeddings in the LLM's input.
        grid: rows and columns of the visual tokens of one tile, or None where the caller gave no
            grid or the visual tokens have no spatial order.
        intermediates: the named steps on the way, or None unless they were asked for; always
            contains `visual_tokens`, and what else is said by each connector.
    """

    visual_tokens: Tensor
    grid: Grid | None = None
    intermediates: dict[str, Tensor] | None = None


class Connector(nn.Module, ABC):
    """Maps features of the vision encoder, F [..., N, d], to visual tokens F' [..., N', D].

    The LLM's text embeddings E [V, D] are an argument of `forward`, never a member: the connector
    sees the LLM's live table, gradients flow into it, and a caller that shards its parameters can
    gather it first. Connectors that do not need E accept and ignore it, so that a model calls all
    of them alike.

    A subclass implements `forward` and `flops`, and overrides `output_grid` (and
    `num_visual_tokens`, where the output has no grid) if it changes the number of tokens.

    Args:
        vision_dim: width d of the vision features.
        text_dim: width D of the LLM's embeddings.

    Raises:
        ConfigurationError: a width is not a positive integer.
    """

    needs_embeddings: bool = False
    """Whether `forward` fails without `embeddings`."""

    def __init__(self, vision_dim: int, text_dim: int) -> None:
        super().__init__()
        self.vision_dim = positive("vision_dim", vision_dim)
        self.text_dim = positive("text_dim", text_dim)

    @abstractmethod
    def forward(
        self,
        features: Tensor,
        *,
        embeddings: Tensor | None = None,
        grid: Grid | None = None,
        return_intermediates: bool = False,
    ) -> ConnectorOutput:
        """Turns vision features into visual tokens.

        Args:
            features: F [..., N, d], floating point, in the dtype of the parameters (any dtype
                under autocast); there may be no tile, but none without features.
            embeddings: E [V, D], the LLM's input embeddings; required if `needs_embeddings`.
            grid: rows and columns of the patches of one tile; N is a multiple of their product.
            return_intermediates: also return the named steps.

        Raises:
            ConfigurationError: widths, dtypes or grid do not fit this connector.
        """

    @abstractmethod
    def flops(self, grid: Grid, num_tiles: int = 1) -> int:
        """Floating-point operations of the matrix products of one forward pass.

        A multiply-add counts as two; norms and activations are left out.

        Args:
            grid: rows and columns of the patches of one tile, N = rows * columns.
            num_tiles: number T of tiles.
        """

    def output_grid(self, grid: Grid) -> Grid | None:
        """Rows and columns of one tile's visual tokens, None where they have no spatial order."""
        return grid

    def num_visual_tokens(self, grid: Grid) -> int:
        """Number N' of visual tokens of a tile with these rows and columns of patches."""
        new = self.output_grid(grid)
        if new is None:
            raise NotImplementedError("a connector without an output grid counts its own tokens")
        return new[0] * new[1]

    def split_tiles(self, features: Tensor, grid: Grid | None) -> Tensor:
        """F [..., k rows columns, d] as single tiles [T, rows, columns, d], in their order.

        For connectors that look at more than one feature at a time.

        Raises:
            ConfigurationError: no grid was given.
        """
        if grid is None:
            raise ConfigurationError(
                f"{type(self).__name__} needs to know where each feature lies: pass grid=(rows, "
                "columns) of the vision encoder's patches"
            )
        return features.reshape(-1, *grid, self.vision_dim)

    def join_tiles(self, tokens: Tensor, features: Tensor, grid: Grid) -> Tensor:
        """Visual tokens [T, N', D] of the tiles that `split_tiles` made, as [..., k N', D]."""
        num_tiles = features.shape[-2] // (grid[0] * grid[1])
        num_tokens = tokens.shape[1]
        return tokens.reshape(*features.shape[:-2], num_tiles * num_tokens, self.text_dim)

    def num_parameters(self) -> int:
        """Number of parameters, trained or not; the text embeddings E are not among them."""
        return sum(parameter.numel() for parameter in self.parameters())

    @torch.no_grad()
    def init_from_language_model(self, head: Tensor, embeddings: Tensor) -> None:
        """Sets what starts from the language model's own tables; nothing in most connectors.

        Call it once the language model's weights are loaded and tied.

        Args:
            head: weight of the LM head [V, D].
            embeddings: E [V, D].
        """

    def reset_parameters(self) -> None:
        """Initialises everything again, as after construction; needed after `to_empty`."""
        for module in self.modules():
            reset = getattr(module, "reset_parameters", None)
            if module is not self and callable(reset):
                reset()

    def check_inputs(
        self, features: Tensor, embeddings: Tensor | None = None, grid: Grid | None = None
    ) -> None:
        """Raises a ConfigurationError if the arguments of `forward` do not fit this connector."""
        self.check_features(features, grid)
        if self.needs_embeddings:
            self.check_embeddings(embeddings)

    def check_features(self, features: Tensor, grid: Grid | None = None) -> None:
        """Raises a ConfigurationError if the features have another width, type or grid."""
        name = type(self).__name__
        if not features.is_floating_point():
            raise ConfigurationError(
                f"{name} takes floating-point vision features, not {features.dtype}: pass the "
                "vision encoder's output, not pixels or ids"
            )
        self._check_dtype(features)
        if features.ndim < 2 or features.shape[-1] != self.vision_dim:
            raise ConfigurationError(
                f"{name} takes vision features of shape [..., N, {self.vision_dim}], not "
                f"{list(features.shape)}: build it with the vision encoder's width as vision_dim"
            )
        if features.shape[-2] == 0:
            raise ConfigurationError(
                f"{name} was given tiles without a single feature, {list(features.shape)}: pass "
                "the features of at least one patch, or no tile at all"
            )
        if grid is not None and (min(grid) < 1 or features.shape[-2] % (grid[0] * grid[1])):
            raise ConfigurationError(
                f"{name} was given {features.shape[-2]} features, which are no whole number of "
                f"{grid[0]} x {grid[1]} tiles: pass the grid of the vision encoder's patches"
            )
        if _has_values(features) and not torch.isfinite(features).all():
            whole = torch.isfinite(features).flatten(-2).all(-1).flatten()
            raise ConfigurationError(
                f"{name} was given vision features with NaN or infinite values, first in tile "
                f"{int(whole.int().argmin())} of {len(whole)} (from 0): look at what the vision "
                "encoder makes of it"
            )

    def _check_dtype(self, features: Tensor) -> None:
        if autocasts(features):
            return
        held = [p.dtype for p in self.parameters() if p.is_floating_point()]
        if held and features.dtype not in held:
            raise ConfigurationError(
                f"{type(self).__name__} holds {held[0]} and was given {features.dtype} features: "
                "convert one to the other's dtype, or run under autocast"
            )

    def check_embeddings(self, embeddings: Tensor | None) -> None:
        """Raises a ConfigurationError if text embeddings are missing or have another width."""
        name = type(self).__name__
        if embeddings is None:
            raise ConfigurationError(
                f"{name} mixes text embeddings and was given none: pass "
                "embeddings=llm.get_input_embeddings().weight"
            )
        if embeddings.ndim != 2 or embeddings.shape[1] != self.text_dim:
            raise ConfigurationError(
                f"{name} takes text embeddings of shape [V, {self.text_dim}], not "
                f"{list(embeddings.shape)}: build it with the LLM's width as text_dim"
            )


def _has_values(tensor: Tensor) -> bool:
    """Whether values can be looked at: not on the meta device, nor while a graph is recorded."""
    if tensor.is_cuda and torch.cuda.is_current_stream_capturing():
        return False
    return not (tensor.is_meta or torch.compiler.is_compiling())


def positive(name: str, value: int) -> int:
    """Returns `value`; raises a ConfigurationError if it is no positive integer."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{name} must be a positive integer, not {value!r}")
    return value
