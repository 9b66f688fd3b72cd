"""Which implementation computes ALIGN's mixture, and in what pieces."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from alignvlm.connectors.mixture.device import fused_problem
from alignvlm.errors import ConfigurationError

IMPLEMENTATIONS = ("auto", "eager", "chunked", "fused")
CHUNK_BY = ("auto", "tokens", "words")

# Below this many logits (32 MiB in float32) eager is as fast, and its memory does not matter.
_EAGER_LOGITS = 1 << 23
# Logits of one chunk: 128 MiB in bfloat16, large enough for matrix products at full speed.
_CHUNK_LOGITS = 1 << 26


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How the mixture is computed; the result is the same up to rounding.

    Attributes:
        implementation: "eager", "chunked", "fused", or "auto": eager for few logits, else chunked.
            `fused` is never chosen by itself before it has been measured on a GPU.
        chunk_by: "tokens": whole rows of logits at a time, the least work for few tokens;
            "words": one pass over the vocabulary with W2's statistics, in which every gradient row
            is summed in float32 and written once; "auto": words in training once N >= 8 D, where
            the statistics' 4VD^2 operations are below 4 % of the whole, else tokens.
        chunk_size: tokens or words at a time; None: about 67 million logits.
        negligible: leave words whose probability is below it for every token out of the matrix
            products of the backward pass. Off at 0: the gradients of W2, E and h are then exact.
            Needs chunks of words. `benchmarks/results/align.md` has the error that it makes.
    """

    implementation: str = "auto"
    chunk_by: str = "auto"
    chunk_size: int | None = None
    negligible: float = 0.0

    def __post_init__(self) -> None:
        _one_of("implementation", self.implementation, IMPLEMENTATIONS)
        _one_of("chunk_by", self.chunk_by, CHUNK_BY)
        size = self.chunk_size
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise ConfigurationError(
                f"ALIGN's chunk_size must be a positive number of tokens or words, not {size!r}: "
                "leave it out to have it chosen"
            )
        if not (math.isfinite(self.negligible) and 0 <= self.negligible < 1):
            raise ConfigurationError(
                f"ALIGN's negligible is a probability from 0 to below 1, not {self.negligible!r}"
            )
        if self.negligible > 0 and (self.chunk_by == "tokens" or self.implementation == "eager"):
            raise ConfigurationError(
                "ALIGN's negligible skips words, which only chunks of words can: set "
                'implementation="chunked" and chunk_by="words", or negligible=0'
            )

    def resolve(
        self,
        num_tokens: int,
        num_words: int,
        width: int,
        device: torch.device,
        *,
        trains: bool,
        has_bias: bool,
    ) -> Choice:
        """The choice for N tokens and V words of width D, with nothing left automatic.

        Raises:
            ConfigurationError: `fused` cannot run on this device, or chunks of words are asked for
                with a bias on W2.
        """
        implementation = self._implementation(num_tokens * num_words, device)
        by = self.chunk_by
        if has_bias and (by == "words" or self.negligible > 0):
            raise ConfigurationError(
                "ALIGN with a bias on W2 is computed in chunks of tokens: set "
                'chunk_by="tokens" and negligible=0, or bias=False'
            )
        if by == "auto":
            many = trains and num_tokens >= 8 * width
            by = "words" if self.negligible > 0 or (many and not has_bias) else "tokens"
        across = num_words if by == "tokens" else num_tokens
        size = self.chunk_size or min(8192, max(16, _CHUNK_LOGITS // max(1, across)))
        return replace(self, implementation=implementation, chunk_by=by, chunk_size=size)

    def _implementation(self, num_logits: int, device: torch.device) -> str:
        if self.implementation == "fused" and (problem := fused_problem(device)):
            raise ConfigurationError(
                f'ALIGN cannot be computed by implementation="fused": {problem}; use "auto" or '
                '"chunked"'
            )
        if self.implementation != "auto":
            return self.implementation
        if num_logits <= _EAGER_LOGITS and self.negligible == 0 and self.chunk_size is None:
            return "eager"
        return "chunked"


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigurationError(f"ALIGN's {name} is {value!r}: choose one of {', '.join(known)}")
