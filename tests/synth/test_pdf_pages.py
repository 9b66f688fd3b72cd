from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from alignvlm.errors import InputError, PdfError
from alignvlm.synth.pdf_pages import (
    HELD_OUT_PDF_PACKAGES,
    PDF_PACKAGES,
    _open,
    find_pdfs,
    pdf_page,
    pdf_stream,
)

LEFT = "The left column has this text, and the next line follows."
RIGHT = "Right of it: 12.50 $ (net)"
TEXT = f"BT /F1 12 Tf 50 700 Td ({LEFT}) Tj 0 -20 Td (second line) Tj ET\n"
TEXT += (
    f"BT /F1 12 Tf 420 700 Td ({RIGHT.replace('(', chr(92) + '(').replace(')', chr(92) + ')')}) "
)
TEXT += "Tj ET\nBT /F1 12 Tf 0 1 -1 0 30 300 Tm (turned text is left out) Tj ET"


def write_pdf(path: Path, content: str) -> Path:
    """A PDF of one page, 612 x 792 pt, with a content stream and Helvetica as /F1."""
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        "/Resources << /Font << /F1 5 0 R >> >> >>",
        f"<< /Length {len(content)} >>\nstream\n{content}\nendstream",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    body, offsets = "%PDF-1.4\n", []
    for number, item in enumerate(objects, 1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n{item}\nendobj\n"
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    tail = f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<< /Size {size} /Root 1 0 R >>\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(f"{body}{tail}startxref\n{len(body)}\n%%EOF\n".encode("ascii"))
    return path


def test_text_layer_becomes_lines_with_tight_boxes(tmp_path: Path) -> None:
    page = pdf_page(write_pdf(tmp_path / "one.pdf", TEXT), 0.0, 144)
    assert page is not None
    assert page.image.size == (1224, 1584)
    assert page.text == f"{LEFT}  {RIGHT}\nsecond line"
    assert [line.text for line in page.lines] == [LEFT, "second line", RIGHT]
    assert [line.baseline_px for line in page.lines] == pytest.approx([184, 224, 184], abs=0.5)
    dark = np.asarray(page.image.convert("L")) < 128
    dark[:, :100] = False  # the turned text is no line of this page
    boxes = np.zeros_like(dark)
    for line in page.lines:
        assert 0.4 < line.x_height_px / 24 < 0.6
        for glyph in line.glyphs:
            area = (
                slice(int(glyph.y0) - 1, int(glyph.y1) + 2),
                slice(int(glyph.x0) - 1, int(glyph.x1) + 2),
            )
            boxes[area] = True
            assert glyph.char == " " or dark[area].any(), glyph
    assert not (dark & ~boxes).any()


def test_pages_with_hardly_any_text_are_left_out(tmp_path: Path) -> None:
    assert pdf_page(write_pdf(tmp_path / "few.pdf", "BT /F1 12 Tf 9 9 Td (x) Tj ET"), 0, 72) is None


def test_damaged_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "broken.pdf"
    path.write_bytes(b"%PDF-1.4 and nothing else")
    with pytest.raises(PdfError, match=r"broken\.pdf cannot be read as a PDF"):
        pdf_page(path, 0.0, 72)


def test_packages_are_held_out_by_name(tmp_path: Path) -> None:
    assert set(HELD_OUT_PDF_PACKAGES) < set(PDF_PACKAGES)
    held_out = write_pdf(tmp_path / HELD_OUT_PDF_PACKAGES[0] / "usr" / "a.pdf", TEXT)
    train = write_pdf(tmp_path / "octave-doc" / "b.pdf", TEXT)
    own = write_pdf(tmp_path / "c.pdf", TEXT)
    assert find_pdfs(tmp_path, "heldout") == [held_out]
    assert find_pdfs(tmp_path, "train") == sorted([train, own])


def test_stream_is_seeded_and_stops_without_text(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_pdf(tmp_path / "full" / name / "doc.pdf", TEXT.replace("second", name * 6))
    made = [
        [(page.text, page.image.size) for page in islice(pdf_stream(tmp_path / "full", seed), 6)]
        for seed in (1, 1, 2)
    ]
    assert made[0] == made[1] != made[2]
    assert not _open.cache_info().currsize  # every document is closed again
    write_pdf(tmp_path / "empty" / "a" / "doc.pdf", "")
    with pytest.raises(InputError, match="hardly any page with a text layer"):
        next(pdf_stream(tmp_path / "empty", 0))
    with pytest.raises(InputError, match=r"get_pdfs\.sh"):
        next(pdf_stream(tmp_path / "empty", 0, "heldout"))
