"""PDF pages drawn by PDFium; the only module that imports pypdfium2.

PDFium is not thread-safe, not even across documents: one more reason for a process of its own.
"""

from __future__ import annotations

import math
from typing import final

import pypdfium2
from PIL import Image

from alignvlm.errors import LimitError, PdfError
from alignvlm.imaging.decode import Document, check_page_size, decoding
from alignvlm.imaging.sources import quoted
from alignvlm.limits import Limits

__all__ = ["PdfDocument"]

_POINTS_PER_INCH = 72.0
_MAX_SIDE_PT = 14_400.0
"""200 inches: the largest page of PDF 1.7 (Annex C)."""


@final
class PdfDocument(Document):
    """A PDF in memory; pages are drawn at `dpi`, at most `max_side_px` long, on white."""

    def __init__(
        self, data: bytes, source: str, limits: Limits, *, dpi: float, max_side_px: int
    ) -> None:
        self._source, self._limits = source, limits
        self._dpi, self._max_side_px = dpi, max_side_px
        name = quoted(source)
        try:
            self._pdf = pypdfium2.PdfDocument(data)
            self._pdf.init_forms()  # without it the values filled into forms are not drawn
        except pypdfium2.PdfiumError as error:
            raise PdfError(f"{name} {_why_not(error)}") from error
        self.num_pages = len(self._pdf)
        if self.num_pages > limits.max_pages:
            raise LimitError(
                f"{name} has {self.num_pages} pages, more than the {limits.max_pages} allowed: "
                "split the file"
            )

    def page(self, number: int) -> Image.Image:
        """Draw the 1-based page."""
        name = f"Page {number} of {quoted(self._source)}"
        with decoding(name, "PDF page", damaged=PdfError):
            page = self._pdf[number - 1]
            width_pt, height_pt = page.get_size()
            scale = self._scale(width_pt, height_pt, number)
            image: Image.Image = page.render(scale=scale, rev_byteorder=True).to_pil()
            page.close()
            return image

    def _scale(self, width_pt: float, height_pt: float, number: int) -> float:
        longer = max(width_pt, height_pt)
        if not min(width_pt, height_pt) > 0 or not longer <= _MAX_SIDE_PT:
            raise LimitError(
                f"Page {number} of {quoted(self._source)} states a size that is not between 0 and "
                f"{_MAX_SIDE_PT / _POINTS_PER_INCH:g} inches: print it to a new PDF"
            )
        # A hair smaller: sizes are rounded up, and US letter at 150 dpi is 1650 px, not 1651.
        scale = min(self._dpi / _POINTS_PER_INCH, self._max_side_px / longer) * (1 - 1e-9)
        width_px, height_px = math.ceil(width_pt * scale), math.ceil(height_pt * scale)
        check_page_size(width_px, height_px, self._source, number, self._limits)
        return scale


def _why_not(error: pypdfium2.PdfiumError) -> str:
    if error.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD:
        return "needs a password: save a copy without one"
    if error.err_code == pypdfium2.raw.FPDF_ERR_SECURITY:
        return "is encrypted in a way that cannot be read: save a copy without encryption"
    # PDFium keeps the code of an earlier failure; in the worker, this file is the first.
    if error.err_code == pypdfium2.raw.FPDF_ERR_SUCCESS:
        return "is a PDF without pages: export it again"
    return "is a damaged or truncated PDF: get a complete copy or print it anew"
