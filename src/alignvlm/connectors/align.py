"""ALIGN: each visual token is a weighted mean of the LLM's own text embeddings (Eq. 1-2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from alignvlm.connectors.base import Connector, ConnectorOutput, Grid, positive
from alignvlm.connectors.mixture import (
    Choice,
    Remembered,
    Statistics,
    VocabularyNorm,
    mix,
    weight_statistics,
)
from alignvlm.connectors.mixture.eager import mix_table, products_dtype, vocabulary_scores
from alignvlm.errors import ConfigurationError

__all__ = ["Align"]


class Align(Connector):
    """The paper's connector, Eq. 1-2: F' = softmax(LN_V(W2 LN_D(W1 F))) E.

    W1 [D, d] takes the vision features to the LLM's width; W2 [V, D] scores every word of the
    vocabulary ("initialized from the LLM's language-model head", section 3.1: `init_from_head`,
    called once the LLM's weights are loaded); the softmax P weighs the LLM's text embeddings
    E [V, D]. The result lies in the convex hull of E's rows.

    Parameters: dD + 2D + VD + 2V, e.g. 397,804,032 for d=1152, D=3072, V=128,256. One visual token
    per feature, so the grid does not change. Intermediates: `features` = LN_D(W1 F) [..., N, D];
    `vocab_logits` [..., N, V'], after LN_V; `vocab_probs` [..., N, V']; `visual_tokens`
    [..., N, D]. V' is the number of words in use: V, or the length of `vocabulary`.

    Precision: the normalisation over V, the softmax, `vocab_logits` and `vocab_probs` are float32
    (float64 for a float64 model) whatever the model's dtype and under autocast: with 128 k words
    a probability is about 1e-5, and bfloat16 sums of those drift. The products with W1, W2 and E
    run in the model's dtype, or autocast's. With bfloat16 weights F' stays within 2e-2 of float64
    at gain 1 (relative Frobenius norm; 4e-3 was measured). bfloat16 rounds a logit by 2^-9 of its
    size, so a sharper softmax errs more: 2.2e-2 at gain 4 over 49,152 words. float16 cannot hold
    probabilities below 6e-8, so there the product with E is taken in float32. `visual_tokens` have
    the dtype of E, or autocast's.

    What the paper leaves open is chosen as in Ovis 1.6 (github.com/AIDC-AI/Ovis, d248e34), whose
    head, Linear without bias + LayerNorm + softmax, Eq. 1 extends by W1 and LN_D: both LayerNorms
    affine, eps 1e-5, no bias. W2 is trained apart from the head ("increases the total number of
    parameters").

    Args:
        vision_dim: width d of the vision features.
        text_dim: width D of the LLM's embeddings.
        vocab_size: V, rows of the LLM's head. E may have more rows later (a resized vocabulary);
            those are never used.
        bias: give W1 and W2 a bias. Off: Llama's head has none, so W2 is the head exactly.
        affine: learn a scale and a shift in both LayerNorms. Without, LN_V pins the standard
            deviation of the logits to 1, and no word can ever get much more than its share.
        eps: added to the variances of both LayerNorms.
        gain: first value of LN_V's scale. With 1 the first distributions are nearly uniform (over
            151,936 words, most probable 0.0005) and every visual token starts near the mean
            embedding; with features that match a head row, 2 gives it 0.79, 4 gives it 0.92.
            Unlike the paper, which names no gain, if it is not 1.
        excluded: token ids that must not be mixed in, e.g. special and reserved ones, whose
            embeddings may be untrained. Their logits are set to -inf after LN_V, so their
            probability is exactly 0. LN_V's statistics still include them: the other logits
            are those of Eq. 1, and only the softmax is renormalised. Ids outside `vocabulary` are
            excluded anyway. Unlike the paper, if not empty.
        vocabulary: token ids to keep, in this order; W2 and LN_V have one row for each, E is read
            at these rows. Unlike the paper, which removes rows only at evaluation (Table 4, see
            `alignvlm.connectors.prune`), if given. None keeps all V.
        full_statistics: with a `vocabulary`, LN_V's statistics are those of all V logits, from the
            mean row and the covariance of the whole W2 (buffers [D] and [D, D]), so that the
            logits of Eq. 1 do not change when rows are left out; else those of the kept rows.
        own_table: keep E's rows in the connector, a parameter [V', D] of its own: it then needs
            no embeddings, and does not depend on how a server splits the language model's table.
        implementation, chunk_by, chunk_size, negligible: how F' is computed, see
            `alignvlm.connectors.mixture.Choice`; the result is the same up to rounding. With
            `full_statistics`, and wherever intermediates are asked for, it is in one piece.

    Raises:
        ConfigurationError: an option is out of range, or the options leave no word.
    """

    token_ids: Tensor | None
    excluded_rows: Tensor | None
    row_mean: Tensor | None
    row_covariance: Tensor | None

    def __init__(
        self,
        vision_dim: int,
        text_dim: int,
        vocab_size: int,
        *,
        bias: bool = False,
        affine: bool = True,
        eps: float = 1e-5,
        gain: float = 1.0,
        excluded: Sequence[int] = (),
        vocabulary: Sequence[int] | None = None,
        full_statistics: bool = False,
        own_table: bool = False,
        implementation: str = "auto",
        chunk_by: str = "auto",
        chunk_size: int | None = None,
        negligible: float = 0.0,
    ) -> None:
        super().__init__(vision_dim, text_dim)
        self.vocab_size = positive("vocab_size", vocab_size)
        _check_norm(eps, gain, affine)
        self._start = {"bias": bias, "affine": affine, "eps": eps, "gain": gain}
        if full_statistics and (vocabulary is None or bias):
            raise ConfigurationError(
                "Align's full_statistics stand for rows that a `vocabulary` leaves out, of a W2 "
                "without bias: give a vocabulary and bias=False, or leave full_statistics out"
            )
        self.needs_embeddings = not own_table
        self.choice = Choice(
            implementation=implementation,
            chunk_by=chunk_by,
            chunk_size=chunk_size,
            negligible=negligible,
        )
        self._remembered = Remembered()
        self._kept = None if vocabulary is None else _ids("vocabulary", vocabulary, vocab_size)
        self._masked = _rows(_ids("excluded", excluded, vocab_size), self._kept)
        self.num_words = vocab_size if self._kept is None else len(self._kept)
        if len(self._masked) == self.num_words or self.num_words == 0:
            raise ConfigurationError(
                "Align is left without a single word to mix: keep at least one token id in "
                "`vocabulary` that is not in `excluded`"
            )
        self.w1 = nn.Linear(vision_dim, text_dim, bias=bias)
        self.norm_d = nn.LayerNorm(text_dim, eps=eps, elementwise_affine=affine)
        self.w2 = nn.Linear(text_dim, self.num_words, bias=bias)
        self.norm_v = VocabularyNorm(self.num_words, eps=eps, affine=affine, gain=gain)
        self.register_buffer("token_ids", None if self._kept is None else torch.tensor(self._kept))
        self.register_buffer("excluded_rows", torch.tensor(self._masked) if self._masked else None)
        mean, square = torch.zeros(text_dim), torch.eye(text_dim)
        self.register_buffer("row_mean", mean if full_statistics else None)
        self.register_buffer("row_covariance", square if full_statistics else None)
        # A plain parameter: servers split every nn.Embedding over their devices.
        self.table = nn.Parameter(torch.randn(self.num_words, text_dim)) if own_table else None

    def forward(
        self,
        features: Tensor,
        *,
        embeddings: Tensor | None = None,
        grid: Grid | None = None,
        return_intermediates: bool = False,
    ) -> ConnectorOutput:
        """Eq. 1-2 for F [..., N, d] and E [V or more, D]; see `Connector.forward`."""
        self.check_inputs(features, embeddings, grid)
        hidden = self.norm_d(self.w1(features))
        table = self._table(embeddings)
        steps: dict[str, Tensor] | None = None
        if return_intermediates:
            logits = self._logits(hidden)
            probs = logits.softmax(dim=-1)
            tokens = mix_table(probs, table, products_dtype(table))
            steps = {"features": hidden, "vocab_logits": logits, "vocab_probs": probs}
            steps["visual_tokens"] = tokens
        else:
            norm = self.norm_v
            tokens = mix(
                hidden,
                self._w2(),
                table,
                gamma=norm.weight,
                beta=norm.masked_bias(self.excluded_rows, self.w2.weight),
                bias=self.w2.bias,
                eps=norm.eps,
                choice=self.choice,
                known=self._whole(),
                remembered=self._remembered,
            )
        return ConnectorOutput(
            visual_tokens=tokens,
            grid=None if grid is None else self.output_grid(grid),
            intermediates=steps,
        )

    def vocab_logits(self, features: Tensor) -> Tensor:
        """What the softmax of Eq. 1 is taken of, e.g. for a cross-entropy; E is not needed.

        Args:
            features: F [..., N, d].

        Returns:
            float32 [..., N, V'], -inf at excluded words; column j stands for `kept_ids[j]`.
        """
        self.check_features(features)
        return self._logits(self.norm_d(self.w1(features)))

    def probabilities(self, features: Tensor) -> Tensor:
        """P of Eq. 1, float32 [..., N, V'], for features F [..., N, d]; E is not needed."""
        return self.vocab_logits(features).softmax(dim=-1)

    def options(self) -> dict[str, Any]:
        """What this Align is, under the names that the constructor knows, ready for JSON.

        How it is computed (`implementation`, ...) is left out: that is the machine's matter.
        The token ids are those of the loaded state; on the meta device, the constructor's.
        """
        kept, masked = self._kept, self._masked
        if not self.w2.weight.is_meta:
            kept = None if self.token_ids is None else self.token_ids.tolist()
            masked = [] if self.excluded_rows is None else self.excluded_rows.tolist()
        return {
            **self._start,
            "excluded": [row if kept is None else kept[row] for row in masked],
            "vocabulary": None if kept is None else list(kept),
            "full_statistics": self.row_mean is not None,
            "own_table": self.table is not None,
        }

    @property
    def kept_ids(self) -> Tensor:
        """Token id of each row of W2 and of each column of P, int64 [V']."""
        if self.token_ids is None:
            return torch.arange(self.vocab_size, device=self.w2.weight.device)
        return self.token_ids

    @torch.no_grad()
    def init_from_head(self, head_weight: Tensor) -> None:
        """Sets W2 to a copy of the LLM's head, and its bias, if it has one, to 0.

        Bit for bit where the dtypes are equal. W2 shares no memory with the head afterwards, tied
        or not: training one leaves the other alone. Call it when the LLM's weights are loaded and
        tied, with `llm.get_output_embeddings().weight`.

        Args:
            head_weight: [V, D]; with a `vocabulary`, still all V rows.

        Raises:
            ConfigurationError: the shape is another, or one of the two has no values yet (meta).
        """
        if tuple(head_weight.shape) != (self.vocab_size, self.text_dim):
            raise ConfigurationError(
                f"W2 cannot start from an LM head of shape {list(head_weight.shape)}: this Align "
                f"was built for [{self.vocab_size}, {self.text_dim}], so build it with the LLM's "
                "own vocab_size and text_dim"
            )
        if head_weight.is_meta or self.w2.weight.is_meta:
            raise ConfigurationError(
                "W2 cannot be copied from or to the meta device: load the weights first, then "
                "call init_from_head"
            )
        if self.row_mean is not None and self.row_covariance is not None:
            whole = weight_statistics(head_weight)
            self.row_mean.copy_(whole.mean)
            self.row_covariance.copy_(whole.covariance)
        rows = head_weight
        if self.token_ids is not None:
            rows = head_weight.index_select(0, self.token_ids.to(head_weight.device))
        self.w2.weight.copy_(rows)
        if self.w2.bias is not None:
            self.w2.bias.zero_()

    @torch.no_grad()
    def init_from_language_model(self, head: Tensor, embeddings: Tensor) -> None:
        """`init_from_head`, and E's rows where the connector keeps its own."""
        if self.table is not None:
            self.check_embeddings(embeddings)
        self.init_from_head(head[: self.vocab_size])
        if self.table is not None:
            rows = embeddings[: self.vocab_size]
            if self.token_ids is not None:
                rows = embeddings.index_select(0, self.token_ids.to(embeddings.device))
            self.table.copy_(rows)

    def reset_parameters(self) -> None:
        """Initialises parameters and buffers again; W2 and E's rows are random until filled."""
        super().reset_parameters()
        if self.table is not None:
            nn.init.normal_(self.table)
        if self.row_mean is not None and self.row_covariance is not None:
            self.row_mean.zero_()
            self.row_covariance.copy_(torch.eye(self.text_dim))
        if self._kept is not None and self.token_ids is not None:
            self.token_ids.copy_(torch.tensor(self._kept))
        if self.excluded_rows is not None:
            self.excluded_rows.copy_(torch.tensor(self._masked))

    def flops(self, grid: Grid, num_tiles: int = 1) -> int:
        """2 T N (dD + 2 V'D): 1.58e9 per token for d=1152, D=3072, V'=128,256.

        `full_statistics` add 2 T N D^2 5/8.
        """
        work = self.text_dim * (self.vision_dim + 2 * self.num_words)
        if self.row_mean is not None:
            work += self.text_dim**2 * 5 // 8
        return 2 * num_tiles * grid[0] * grid[1] * work

    def extra_repr(self) -> str:
        """Sizes for `print(connector)`."""
        return f"vocab_size={self.vocab_size}, words={self.num_words}, excluded={len(self._masked)}"

    def check_embeddings(self, embeddings: Tensor | None) -> None:
        """As the base class, and E must have a row for each of the V words."""
        super().check_embeddings(embeddings)
        if embeddings is not None and embeddings.shape[0] < self.vocab_size:
            raise ConfigurationError(
                f"Align was built for a vocabulary of {self.vocab_size} and was given only "
                f"{embeddings.shape[0]} text embeddings: pass the whole table of the LLM whose "
                "head it was built from"
            )

    def _logits(self, hidden: Tensor) -> Tensor:
        norm, whole = self.norm_v, self._whole()
        known = None if whole is None else whole.of_logits(hidden, norm.eps)
        beta = norm.masked_bias(self.excluded_rows, self.w2.weight)
        logits = functional.linear(hidden, self._w2(), self.w2.bias)
        return vocabulary_scores(logits, norm.weight, beta, norm.eps, known)

    def _whole(self) -> Statistics | None:
        """Statistics of the whole W2, of which this one has some rows."""
        if self.row_mean is None or self.row_covariance is None:
            return None
        return Statistics(self.row_mean, self.row_covariance)

    def _w2(self) -> Tensor:
        """W2 itself; nothing calls its module, so what wraps that would have no effect."""
        if hasattr(self.w2, "base_layer"):
            raise ConfigurationError(
                "ALIGN's W2 carries an adapter, which its computation in chunks would leave out: "
                "take `w2` out of the adapter's target modules, or train W2 itself"
            )
        return self.w2.weight

    def _table(self, embeddings: Tensor | None) -> Tensor:
        """The V' rows of E that are mixed."""
        if self.table is not None:
            return self.table
        assert embeddings is not None  # check_inputs has raised otherwise
        if self.token_ids is None:
            return embeddings[: self.vocab_size]
        return embeddings.index_select(0, self.token_ids)


def _check_norm(eps: float, gain: float, affine: bool) -> None:
    for name, value in (("eps", eps), ("gain", gain)):
        if not (math.isfinite(value) and value > 0):
            raise ConfigurationError(f"Align's {name} must be a positive number, not {value!r}")
    if gain != 1.0 and not affine:
        raise ConfigurationError(
            f"Align's gain of {gain} is the first value of a scale that affine=False removes: "
            "leave out one of the two"
        )


def _ids(name: str, ids: Sequence[int], vocab_size: int) -> list[int]:
    seen = [int(token_id) for token_id in ids]
    wrong = next((i for i in seen if not 0 <= i < vocab_size), None)
    if wrong is not None:
        raise ConfigurationError(
            f"Align's {name} holds token id {wrong}, which a vocabulary of {vocab_size} does not "
            f"have: use ids from 0 to {vocab_size - 1}"
        )
    if len(set(seen)) != len(seen):
        raise ConfigurationError(f"Align's {name} names a token id twice: list each id once")
    return seen


def _rows(excluded: list[int], kept: list[int] | None) -> list[int]:
    """Rows of W2 that stand for the excluded ids."""
    if kept is None:
        return sorted(excluded)
    unwanted = set(excluded)
    return [row for row, token_id in enumerate(kept) if token_id in unwanted]
