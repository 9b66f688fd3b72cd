from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from alignvlm.errors import LimitError, PdfError
from alignvlm.imaging.decode import open_document, rgb_strips
from alignvlm.limits import Limits


def pixels(image: Image.Image) -> np.ndarray:
    return np.concatenate([np.asarray(strip) for strip in rgb_strips(image, "a.pdf")])


def test_pages_are_drawn_at_150_dpi_on_white(make_pdf) -> None:
    document = open_document(make_pdf(((144, 288), (288, 144))), "a.pdf")
    assert document.num_pages == 2
    page = pixels(document.page(1))
    assert page.shape == (600, 300, 3)
    black = np.argwhere(page[..., 1] < 128)
    np.testing.assert_allclose(black.min(axis=0), [75, 75], atol=1)
    np.testing.assert_allclose(black.max(axis=0), [149, 149], atol=1)
    assert (page[80:145, 80:145] == 0).all()
    assert (page[:, 155:] == 255).all() and (page[155:] == 255).all()
    assert document.page(2).size == (600, 300)


def test_resolution_and_longest_side_are_parameters(make_pdf) -> None:
    data = make_pdf(((144, 288),))
    assert open_document(data, "a.pdf", pdf_dpi=72).page(1).size == (144, 288)
    assert open_document(data, "a.pdf", pdf_max_side_px=100).page(1).size == (50, 100)
    letter = make_pdf(((612, 792),))
    assert open_document(letter, "a.pdf").page(1).size == (1275, 1650)
    assert open_document(letter, "a.pdf", pdf_dpi=300).page(1).size == (1546, 2000)


def test_colours_are_in_order(make_pdf) -> None:
    data = make_pdf().replace(b"0 g 36 216 36 36 re f", b"1 0 0 rg 9 216 99 36 re f")
    assert pixels(open_document(data, "a.pdf").page(1))[100, 100].tolist() == [255, 0, 0]


def test_a_rotated_page_is_upright(make_pdf) -> None:
    page = open_document(make_pdf(page_extra=b"/Rotate 90"), "a.pdf").page(1)
    assert page.size == (600, 300)
    assert pixels(page)[100, 500, 0] == 0


def test_junk_before_the_header(make_pdf) -> None:
    assert open_document(b"\xef\xbb\xbf\n" + make_pdf(), "a.pdf").page(1).size == (300, 600)


def test_a_password_is_asked_for(make_pdf, refused) -> None:
    with refused(PdfError, "'a.pdf' needs a password"):
        open_document(make_pdf(password=b"secret"), "a.pdf")


def test_encryption_without_a_password_to_open_is_read(make_pdf) -> None:
    page = pixels(open_document(make_pdf(password=b""), "a.pdf").page(1))
    assert page[100, 100, 0] == 0 and page[10, 10, 0] == 255


def test_unknown_encryption(make_pdf, refused) -> None:
    data = make_pdf(password=b"").replace(b"/Filter /Standard", b"/Filter /Unheard")
    with refused(PdfError, "encrypt"):
        open_document(data, "a.pdf")


@pytest.mark.parametrize("length", [9, 40, 120])
def test_a_damaged_pdf(make_pdf, refused, length: int) -> None:
    with refused(PdfError, "'a.pdf' is a (damaged or truncated PDF|PDF without pages)"):
        open_document(make_pdf()[:length], "a.pdf")


def test_a_page_that_is_no_page(make_pdf, refused) -> None:
    data = re.sub(rb"/Kids \[3 0 R\]", b"/Kids [9 0 R]", make_pdf())
    with refused(PdfError, "a.pdf"):
        open_document(data, "a.pdf").page(1)


def test_too_many_pages(make_pdf, refused) -> None:
    data = make_pdf(((10, 10),) * 6)
    assert open_document(data, "a.pdf", Limits(max_pages=6)).num_pages == 6
    with refused(LimitError, "'a.pdf' has 6 pages, more than the 5 allowed"):
        open_document(data, "a.pdf", Limits(max_pages=5))


def test_a_pdf_that_claims_many_pages(make_pdf, refused) -> None:
    data = make_pdf().replace(b"/Count 1", b"/Count 100000")
    with refused(LimitError, "100000 pages"):
        open_document(data, "a.pdf")


@pytest.mark.parametrize("size", [(1e6, 1e6), (14_401, 100), (1e30, 1e30)])
def test_a_page_larger_than_any_paper(make_pdf, refused, size: tuple[float, float]) -> None:
    document = open_document(make_pdf((size,)), "a.pdf")
    with refused(LimitError, "Page 1 of 'a.pdf' states a size"):
        document.page(1)


def test_the_limits_hold_for_drawn_pages(make_pdf, refused) -> None:
    strip = open_document(make_pdf(((2, 1000),)), "a.pdf")
    with refused(LimitError, "one side more than 200 times"):
        strip.page(1)
    page = open_document(make_pdf(), "a.pdf", Limits(max_page_px=10_000))
    with refused(LimitError, "megapixels"):
        page.page(1)


def test_filled_form_fields_are_drawn(make_pdf) -> None:
    """A text field with an appearance stream, as PDF viewers store what was typed."""
    data = make_pdf(page_extra=b"/Annots [6 0 R]")
    look = b"0 0 1 rg 0 0 50 50 re f"
    objects = (
        b"6 0 obj\n<< /Type /Annot /Subtype /Widget /FT /Tx /T (a) /F 4 /Rect [50 50 100 100] "
        b"/AP << /N 7 0 R >> >>\nendobj\n"
        b"7 0 obj\n<< /Type /XObject /Subtype /Form /BBox [0 0 50 50] /Length %d >>\nstream\n%s\n"
        b"endstream\nendobj\n" % (len(look), look)
    )
    data = data.replace(b"/Type /Catalog", b"/Type /Catalog /AcroForm << /Fields [6 0 R] >>")
    data = data[: data.index(b"xref\n0")] + objects + b"trailer\n<< /Root 1 0 R >>\n%%EOF\n"
    page = pixels(open_document(data, "a.pdf").page(1))
    red, _, blue = page[600 - 156, 156].astype(int)
    assert blue - red > 50
