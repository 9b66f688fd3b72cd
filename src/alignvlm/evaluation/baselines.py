"""What the model is measured against: text of the page, given to a language model as text."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from alignvlm.errors import MissingDependencyError

RAPIDOCR_COMMAND = 'pip install "alignvlm[rapidocr]" && pip install --no-deps rapidocr==3.10.0'


def text_tokens(text: str, tokenizer: Tokenizer, embeddings: Tensor) -> Tensor:
    """A page's text as the language model reads it in place of visual tokens, [M, D].

    Args:
        text: of the whole page.
        tokenizer: one that takes control tokens for text (`model.condense.load_plain_tokenizer`).
        embeddings: E [V, D].
    """
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    return embeddings[torch.tensor(ids, dtype=torch.long, device=embeddings.device)]


class RapidOcr:
    """The OCR package that a user would take: detection and recognition by PP-OCRv6 on CPU.

    Its models come inside the package `rapidocr` 3.10.0; nothing is downloaded.

    Raises MissingDependencyError where the package or one of its dependencies is absent.
    """

    def __init__(self) -> None:
        try:
            from rapidocr import RapidOCR
        except ImportError as error:
            raise MissingDependencyError(
                "rapidocr", "measure the OCR baseline", command=RAPIDOCR_COMMAND
            ) from error
        self._engine: Any = RapidOCR(
            params={
                "Global.log_level": "error",
                "EngineConfig.onnxruntime.intra_op_num_threads": torch.get_num_threads(),
            }
        )

    def read(self, image: Image.Image) -> str:
        """The page's text, laid out as the pages' own: a visual row a line."""
        result = self._engine(np.asarray(image.convert("RGB"))[..., ::-1])
        if result.boxes is None:
            return ""
        return in_rows(np.asarray(result.boxes, dtype=np.float64), list(result.txts))


def in_rows(boxes: NDArray[np.float64], texts: list[str]) -> str:
    """Pieces of text to lines: pieces side by side become one line, joined by two spaces.

    Args:
        boxes: corners [n, 4, 2] in px, x then y.
        texts: what stands in each.
    """
    left, top = boxes[..., 0].min(1), boxes[..., 1].min(1)
    middle, height = boxes[..., 1].mean(1), boxes[..., 1].max(1) - top
    rows: list[list[int]] = []
    for index in np.argsort(middle).tolist():
        last = rows[-1][-1] if rows else index
        if rows and middle[index] - middle[last] < 0.5 * min(height[index], height[last]):
            rows[-1].append(index)
        else:
            rows.append([index])
    ordered = (sorted(row, key=lambda index: left[index]) for row in rows)
    return "\n".join("  ".join(texts[index] for index in row) for row in ordered)
