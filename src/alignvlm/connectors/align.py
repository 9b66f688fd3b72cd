"""ALIGN: each visual token is a weighted mean of the LLM's own text embeddings (Eq. 1-2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

from alignvlm.connectors.base import Connector, ConnectorOutput, Grid, positive
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
            at these rows, and LN_V's statistics are over these rows alone. Unlike the paper, which
            removes rows only at evaluation (Table 4), if given. None keeps all V.

    Raises:
        ConfigurationError: an option is out of range, or the options leave no word.
    """

    needs_embeddings = True
    token_ids: Tensor | None
    excluded_rows: Tensor | None

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
    ) -> None:
        super().__init__(vision_dim, text_dim)
        self.vocab_size = positive("vocab_size", vocab_size)
        _check_norm(eps, gain, affine)
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
        self.norm_v = _VocabularyNorm(self.num_words, eps=eps, affine=affine, gain=gain)
        self.register_buffer("token_ids", None if self._kept is None else torch.tensor(self._kept))
        self.register_buffer("excluded_rows", torch.tensor(self._masked) if self._masked else None)

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
        assert embeddings is not None  # check_inputs has raised otherwise
        hidden = self.norm_d(self.w1(features))
        logits = self._logits(hidden)
        probs = logits.softmax(dim=-1)
        tokens = self._mix(probs, embeddings)
        steps = {
            "features": hidden,
            "vocab_logits": logits,
            "vocab_probs": probs,
            "visual_tokens": tokens,
        }
        return ConnectorOutput(
            visual_tokens=tokens,
            grid=None if grid is None else self.output_grid(grid),
            intermediates=steps if return_intermediates else None,
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
        rows = head_weight
        if self.token_ids is not None:
            rows = head_weight.index_select(0, self.token_ids.to(head_weight.device))
        self.w2.weight.copy_(rows)
        if self.w2.bias is not None:
            self.w2.bias.zero_()

    def reset_parameters(self) -> None:
        """Initialises parameters and the id buffers again; W2 is random until `init_from_head`."""
        super().reset_parameters()
        if self._kept is not None and self.token_ids is not None:
            self.token_ids.copy_(torch.tensor(self._kept))
        if self.excluded_rows is not None:
            self.excluded_rows.copy_(torch.tensor(self._masked))

    def flops(self, num_tokens: int) -> int:
        """2 N (dD + 2 V'D): 1.58e9 per token for d=1152, D=3072, V'=128,256."""
        return 2 * num_tokens * self.text_dim * (self.vision_dim + 2 * self.num_words)

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
        logits: Tensor = self.norm_v(self.w2(hidden))
        if self.excluded_rows is None:
            return logits
        return logits.index_fill(-1, self.excluded_rows, -math.inf)

    def _mix(self, probs: Tensor, embeddings: Tensor) -> Tensor:
        """Eq. 2, P E, in E's dtype or autocast's; through float32 where that is float16."""
        if self.token_ids is None:
            table = embeddings[: self.vocab_size]
        else:
            table = embeddings.index_select(0, self.token_ids)
        device = probs.device.type
        dtype = table.dtype
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        safe = torch.float32 if dtype == torch.float16 else dtype
        with _autocast_off(device):
            return (probs.to(safe) @ table.to(safe)).to(dtype)


class _VocabularyNorm(nn.Module):
    """LN_V: LayerNorm over the vocabulary, computed and returned in float32 or wider.

    Not a `torch.nn.LayerNorm`, because libraries reset the scale of those to 1, which would undo
    `gain`, or replace them by ones that work in the model's dtype.
    """

    def __init__(self, num_words: int, *, eps: float, affine: bool, gain: float) -> None:
        super().__init__()
        self.eps = eps
        self.gain = gain
        self.weight = nn.Parameter(torch.empty(num_words)) if affine else None
        self.bias = nn.Parameter(torch.empty(num_words)) if affine else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.weight is not None and self.bias is not None:
            nn.init.constant_(self.weight, self.gain)
            nn.init.zeros_(self.bias)

    def forward(self, logits: Tensor) -> Tensor:
        with _autocast_off(logits.device.type):
            wide = torch.promote_types(logits.dtype, torch.float32)
            weight = None if self.weight is None else self.weight.to(wide)
            bias = None if self.bias is None else self.bias.to(wide)
            return functional.layer_norm(logits.to(wide), logits.shape[-1:], weight, bias, self.eps)


def _autocast_off(device_type: str) -> AbstractContextManager[object]:
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()  # the meta device knows no autocast


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
