"""Which implementation computes ALIGN's mixture, and in what pieces."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from alignvlm.connectors.mixture.device import fused_problem
from alignvlm.errors import ConfigurationError

IMPLEMENTATIONS = ("auto", "eager", "chunked", "fused")
CHUNK_BY = ("auto", "tokens", "words")

# Below this many logits (32 MiB in float32) eager is as fast, and its memory does not matter.
_EAGER_LOGITS = 1 << 23
# Logits of one chunk: 128 MiB in bfloat16, large enough for matrix products at full speed.
_CHUNK_LOGITS = 1 << 26
# The gradients of W2 and E are rounded once for each chunk of tokens: so few in training.
_MOST_CHUNKS = 4


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How the mixture is computed; the result is the same up to rounding.

    Attributes:
        implementation: "eager", "chunked", "fused", or "auto": eager for few logits, else chunked.
            `fused` is never chosen by itself before it has been measured on a GPU.
        chunk_by: "tokens": whole rows of logits at a time, the least work; "words": one pass over
            the vocabulary with W2's statistics, in which each row of E's gradient is summed in
            float32 and rounded once, at the price of 4VD^2 operations a step, half of them in
            float32; "auto": tokens, but words in training where more than four chunks of 268
            million logits would be needed, as each chunk of tokens rounds the gradients of W2
            and E once more.
        chunk_size: tokens or words at a time; None: about 67 million logits, in training up to
            four times that.
        negligible: leave words whose probability is below it for every token out of the matrix
            products of the backward pass. Off at 0: the gradients of W2, E and h are then exact.
            Needs chunks of words. `benchmarks/results/align_cpu.md` has the error that it makes.
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
        if not 0 <= self.negligible < 1:
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
        device: torch.device,
        *,
        trains: bool,
        has_bias: bool,
    ) -> Choice:
        """The choice for N tokens and V words, with nothing left automatic.

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
        many = num_tokens * num_words > _MOST_CHUNKS * 4 * _CHUNK_LOGITS
        if by == "auto":
            by = "words" if trains and not has_bias and (many or self.negligible > 0) else "tokens"
        across = num_words if by == "tokens" else num_tokens
        size = self.chunk_size or min(8192, max(16, _CHUNK_LOGITS // max(1, across)))
        if by == "tokens" and trains and self.chunk_size is None and not many:
            size = max(size, -(-num_tokens // _MOST_CHUNKS))
        # Without a backward pass there is nothing to skip.
        skips = self.negligible if by == "words" else 0.0
        return Choice(implementation=implementation, chunk_by=by, chunk_size=size, negligible=skips)

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
