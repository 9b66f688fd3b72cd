"""Notes: one to three lines of `Key: value`, the smallest page with something to ask about.

For comparisons on a CPU: a note fits on a tile of 192 px, and its lines stand far enough apart that
a cell of 32 x 8 px holds about one character and never parts of two lines.
"""

from __future__ import annotations

from alignvlm.synth.fonts import Split
from alignvlm.synth.kinds.easy import Sheet, draw_on
from alignvlm.synth.page import Page

__all__ = ["draw"]

_SHEET = Sheet(side_px=192, font_px=(14, 22), num_lines=(1, 3), pitch_px=32)


def draw(seed: int, split: Split) -> Page:
    """A note: at most 192 x 192 px, text of 14-22 px, layouts and values of easy pages."""
    return draw_on(_SHEET, "note", seed, split)
