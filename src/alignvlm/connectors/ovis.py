"""Ovis: each visual token is a weighted mean of rows of a visual embedding table of its own."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from alignvlm.connectors.base import Connector, ConnectorOutput, Grid, positive
from alignvlm.connectors.grids import merge_blocks
from alignvlm.errors import ConfigurationError
from alignvlm.hints import did_you_mean

__all__ = ["Ovis"]

_TOKENIZERS = ("softmax", "gumbel", "straight_through")


class Ovis(Connector):
    """A softmax over K visual words, and a learned embedding for each: F' = tokenize(LN(W F)) T.

    W [K - n, d s^2] scores the visual words, and their probabilities weigh the rows of the visual
    embedding table T [K, D]. T's last n rows are no words but the embeddings of the model's image
    indicators (start of an image, end of a row ...); `indicators` returns them, and the caller
    puts them between the visual tokens where its layout asks for them. With stride s, the grid is
    padded with zeros at the right and at the bottom to multiples of s, and each s x s block of
    features becomes one of width d s^2 (row by row), so a 27 x 27 grid gives 14 x 14 visual
    tokens at s=2 and 9 x 9 at s=3.

    Structure of Ovis 1.6 (AIDC-AI/Ovis, d248e34, ovis/model/visual_tokenizer/
    base_visual_tokenizer.py and ovis/model/modeling_ovis.py): `head` is Linear without bias +
    LayerNorm (eps 1e-5, affine), both as torch initialises them, and the table starts from
    N(0, 1). The softmax is taken in float32, as in Ovis 2.5 (4de4946); 1.6 takes it in the model's
    dtype. Ovis appends n zero probabilities before the product with T; here the product is with
    the first K - n rows, which is the same. Ovis takes its features from the encoder's last layer
    before the LayerNorm that follows it. The paper compares against an Ovis connector and gives
    neither its K nor its stride.

    How logits l become weights, `tokenize`:

    - `"softmax"`: softmax(l), what every published script of Ovis uses.
    - `"straight_through"`: forward, one at the largest logit and exactly 0 elsewhere; backward,
      the gradient of softmax(l). This is what transformers' port of Ovis2 does; Ovis 1.6 passes
      the gradient on to the logits as if there were no softmax.
    - `"gumbel"`: forward, one at the largest of l + Gumbel noise, which draws a word with its
      softmax probability; backward, the gradient of softmax((l + noise) / temperature). In eval
      mode no noise is drawn, so that a model answers alike each time: the word is the most
      probable one. Ovis goes on drawing there.

    Parameters: d s^2 (K - n) + 2 (K - n) + KD, for d=1152, D=3072, n=5: 276,949,366 with K=65,536
    and stride 1, 503,424,502 with stride 2, 553,904,502 with K=131,072 and stride 1.
    Intermediates, with N' visual tokens: `visual_logits` [..., N', K - n], after the LayerNorm;
    `visual_probs` [..., N', K - n], the weights; `visual_tokens` [..., N', D].

    Precision: all but the softmax runs in the model's dtype, or autocast's, and the probabilities
    are rounded to it. With bfloat16 weights the visual tokens stay within 2e-2 of float64 at first
    (relative Frobenius norm; 6e-3 was measured with K=65,536); bfloat16 logits make sharper
    softmaxes err more, 5e-2 where the LayerNorm's scale is 4.

    Args:
        vision_dim: width d of the vision features.
        text_dim: width D of the LLM's embeddings.
        visual_vocab_size: K, rows of the table. 65,536 is the default of Ovis 2.5 and what the
            size of the published Ovis1.6-Llama3.2-3B comes to; the scripts of 1.0 and 1.5 have
            131,072.
        stride: s, edge of the blocks that become one visual token. 1 is Ovis's default;
            Ovis1.6-Llama3.2-3B has 2.
        tokenize: see above.
        temperature: of the softmax that "gumbel" differentiates; 1 is Ovis 1.6's default. Its
            recipe anneals it from 5 to 0.05 by setting it anew at each step; so can a caller, by
            assigning to `temperature`.
        num_indicators: n, rows at the end of the table that are never mixed in. 5 as in Ovis 1.6
            (start, after the thumbnail, column, row, end).
        table_from_text: let `init_from_language_model` draw the table at the scale of the LLM's
            embeddings, see `init_from_embeddings`. Off, as in Ovis's published scripts.

    Raises:
        ConfigurationError: an option is unknown or out of range, or none of the K rows is left.
    """

    def __init__(
        self,
        vision_dim: int,
        text_dim: int,
        *,
        visual_vocab_size: int = 65_536,
        stride: int = 1,
        tokenize: Literal["softmax", "gumbel", "straight_through"] = "softmax",
        temperature: float = 1.0,
        num_indicators: int = 5,
        table_from_text: bool = False,
    ) -> None:
        super().__init__(vision_dim, text_dim)
        self.visual_vocab_size = positive("visual_vocab_size", visual_vocab_size)
        self.stride = positive("stride", stride)
        self.num_words = _num_words(visual_vocab_size, num_indicators)
        self.tokenize = _tokenizer(tokenize)
        self.temperature = _temperature(temperature, tokenize)
        self.head_linear = nn.Linear(vision_dim * stride**2, self.num_words, bias=False)
        self.head_norm = nn.LayerNorm(self.num_words)
        self.table_from_text = table_from_text
        self.table = nn.Parameter(torch.empty(visual_vocab_size, text_dim))
        nn.init.normal_(self.table)

    def forward(
        self,
        features: Tensor,
        *,
        embeddings: Tensor | None = None,
        grid: Grid | None = None,
        return_intermediates: bool = False,
    ) -> ConnectorOutput:
        """Mixes rows of the table for F [..., N, d]; see `Connector.forward`.

        `grid` is required with a stride above 1; `embeddings` are not used.

        Raises:
            ConfigurationError: as in `Connector.forward`, or the stride needs a grid and none was
                given.
        """
        self.check_inputs(features, embeddings, grid)
        logits = self.head_norm(self.head_linear(self._blocks(features, grid)))
        probs = self._weights(logits)
        tokens = probs @ self.table[: self.num_words]
        steps = {"visual_logits": logits, "visual_probs": probs, "visual_tokens": tokens}
        return ConnectorOutput(
            visual_tokens=tokens,
            grid=None if grid is None else self.output_grid(grid),
            intermediates=steps if return_intermediates else None,
        )

    def indicators(self) -> Tensor:
        """Embeddings of the image indicators [n, D]: the table's last rows, gradients included."""
        return self.table[self.num_words :]

    def init_from_language_model(self, head: Tensor, embeddings: Tensor) -> None:
        """`init_from_embeddings`, if the option `table_from_text` says so."""
        if self.table_from_text:
            self.init_from_embeddings(embeddings)

    @torch.no_grad()
    def init_from_embeddings(self, embeddings: Tensor) -> None:
        """Draws the whole table, indicators included, from N(mean(E), std(E)).

        One mean and one standard deviation over all entries of E, so that visual words start at
        the scale of the LLM's embeddings, which is far below that of N(0, 1). It is Ovis's option
        `vte_re_init` (AIDC-AI/Ovis, d248e34, ovis/train/train.py), off there unless asked for.
        Call it when the LLM's weights are loaded, with `llm.get_input_embeddings().weight`.

        Args:
            embeddings: E [V, D].

        Raises:
            ConfigurationError: the width is another, or E or the table is on the meta device, or
                E holds values that are not finite.
        """
        self.check_embeddings(embeddings)
        if embeddings.is_meta or self.table.is_meta:
            raise ConfigurationError(
                "Ovis's table cannot be drawn from or on the meta device: load the weights first, "
                "then call init_from_embeddings"
            )
        std, mean = (value.item() for value in torch.std_mean(embeddings))
        if not math.isfinite(std):
            raise ConfigurationError(
                "Ovis's table cannot be drawn from text embeddings that are not finite: check the "
                "weights of the LLM"
            )
        nn.init.normal_(self.table, mean, std)

    def output_grid(self, grid: Grid) -> Grid:
        """Rows and columns of the s x s blocks, the last ones padded."""
        return -(-grid[0] // self.stride), -(-grid[1] // self.stride)

    def reset_parameters(self) -> None:
        """Initialises everything again; the table is drawn from N(0, 1)."""
        super().reset_parameters()
        nn.init.normal_(self.table)

    def flops(self, grid: Grid, num_tiles: int = 1) -> int:
        """2 T N' (K - n) (d s^2 + D), with N' visual tokens a tile."""
        width = self.vision_dim * self.stride**2 + self.text_dim
        return 2 * num_tiles * self.num_visual_tokens(grid) * self.num_words * width

    def extra_repr(self) -> str:
        """Options for `print(connector)`."""
        return (
            f"visual_vocab_size={self.visual_vocab_size}, stride={self.stride}, "
            f"tokenize={self.tokenize!r}, num_indicators={self.visual_vocab_size - self.num_words}"
        )

    def _blocks(self, features: Tensor, grid: Grid | None) -> Tensor:
        """F [..., k rows columns, d] as blocks [..., k N', d s^2], tile by tile, row by row."""
        s = self.stride
        if s == 1:
            return features
        tiles = self.split_tiles(features, grid)
        assert grid is not None  # split_tiles has raised otherwise
        blocks = merge_blocks(tiles, (s, s))
        num_blocks = features.shape[-2] // (grid[0] * grid[1]) * self.num_visual_tokens(grid)
        return blocks.reshape(*features.shape[:-2], num_blocks, self.vision_dim * s * s)

    def _weights(self, logits: Tensor) -> Tensor:
        wide = torch.promote_types(logits.dtype, torch.float32)
        if self.tokenize == "softmax":
            return logits.softmax(dim=-1, dtype=wide).to(logits.dtype)
        if self.tokenize == "gumbel" and self.training:
            soft = functional.gumbel_softmax(logits.to(wide), tau=self.temperature)
        else:  # the temperature is 1 but for "gumbel"
            soft = (logits.to(wide) / self.temperature).softmax(dim=-1)
        hard = torch.zeros_like(soft).scatter(-1, soft.argmax(dim=-1, keepdim=True), 1.0)
        return (hard + (soft - soft.detach())).to(logits.dtype)  # the bracket is exactly 0


def _num_words(visual_vocab_size: int, num_indicators: int) -> int:
    if (
        isinstance(num_indicators, bool)
        or not isinstance(num_indicators, int)
        or num_indicators < 0
    ):
        raise ConfigurationError(
            f"Ovis's num_indicators must be an integer of at least 0, not {num_indicators!r}"
        )
    if num_indicators >= visual_vocab_size:
        raise ConfigurationError(
            f"Ovis has no visual word left when {num_indicators} of {visual_vocab_size} rows are "
            "indicators: raise visual_vocab_size above num_indicators"
        )
    return visual_vocab_size - num_indicators


def _tokenizer(tokenize: str) -> str:
    if tokenize not in _TOKENIZERS:
        raise ConfigurationError(
            f"Ovis has no tokenize={tokenize!r}{did_you_mean(tokenize, _TOKENIZERS)}: use one of "
            f"{', '.join(_TOKENIZERS)}"
        )
    return tokenize


def _temperature(temperature: float, tokenize: str) -> float:
    if not (math.isfinite(temperature) and temperature > 0):
        raise ConfigurationError(
            f"Ovis's temperature must be a positive number, not {temperature!r}"
        )
    if temperature != 1.0 and tokenize != "gumbel":
        raise ConfigurationError(
            f"Ovis's temperature of {temperature} is that of the Gumbel softmax and "
            f"tokenize={tokenize!r} has none: leave it out or use tokenize='gumbel'"
        )
    return temperature
