"""ALIGN's mixture, softmax(LN_V(W2 h)) E, without ever holding an N x V tensor.

Three implementations behind one call, `mix`:

- `eager`, the definition (`eager.py`), which keeps several N x V tensors for the backward pass;
- `chunked` (`tokens.py`, `words.py`), on any device: the logits of a few hundred tokens, or of a
  few thousand words, at a time, and taken again in the backward pass;
- `fused` (`fused.py`), on CUDA: the same with Triton kernels for all between the matrix products.
"""

from __future__ import annotations

from alignvlm.connectors.mixture.choice import CHUNK_BY, IMPLEMENTATIONS, Choice
from alignvlm.connectors.mixture.mix import mix
from alignvlm.connectors.mixture.remembered import Remembered
from alignvlm.connectors.mixture.statistics import Statistics, weight_statistics
from alignvlm.connectors.mixture.vocabulary_norm import VocabularyNorm

__all__ = [
    "CHUNK_BY",
    "IMPLEMENTATIONS",
    "Choice",
    "Remembered",
    "Statistics",
    "VocabularyNorm",
    "mix",
    "weight_statistics",
]
