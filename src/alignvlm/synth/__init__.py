"""The page generator: pages drawn from a seed, with their text, boxes and questions.

Never torch: a page can be made wherever Pillow, NumPy and faker are installed.
"""

from __future__ import annotations

from alignvlm.synth.dataset import write_dataset
from alignvlm.synth.fonts import ALPHABET, Font, Split, find_fonts
from alignvlm.synth.generate import ALL_KINDS, KINDS, generate, stream
from alignvlm.synth.lines import text_tile
from alignvlm.synth.page import Glyph, Line, Page, Question

__all__ = [
    "ALL_KINDS",
    "ALPHABET",
    "KINDS",
    "Font",
    "Glyph",
    "Line",
    "Page",
    "Question",
    "Split",
    "find_fonts",
    "generate",
    "stream",
    "text_tile",
    "write_dataset",
]
