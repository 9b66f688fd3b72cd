"""Draws `invoice.png`, the page that `make ask` asks about.

The company, the goods and the people are invented. The sums are right: three lines, 20 % tax.

    python examples/make_invoice.py
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

WIDTH_PX, HEIGHT_PX = 800, 1000
MARGIN_PX = 56
RIGHT_PX = WIDTH_PX - MARGIN_PX
INK, GREY, RULE = (24, 24, 28), (70, 70, 78), (150, 150, 158)

ITEMS = [
    ("Oak desk, 140 cm", 2, 18_950),
    ("Desk lamp, brass", 2, 4_225),
    ("Delivery and assembly", 1, 6_000),
]
TAX_PERCENT = 20


def font(size_px: int, *, bold: bool = False) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans where the system has it, otherwise the face that Pillow carries."""
    try:
        return ImageFont.truetype(f"DejaVuSans{'-Bold' if bold else ''}.ttf", size_px)
    except OSError:
        return ImageFont.load_default(size_px)


def money(cents: int) -> str:
    """Dollars and cents, e.g. 4225 -> "$42.25"."""
    return f"${cents // 100:,}.{cents % 100:02d}"


def draw_header(draw: ImageDraw.ImageDraw) -> None:
    """Sender, invoice number and dates, and the customer."""
    draw.text((MARGIN_PX, 52), "Halden Furniture Ltd", INK, font(28, bold=True))
    draw.text((MARGIN_PX, 92), "14 Mill Lane, Bristol BS1 4ND", GREY, font(18))
    draw.text((MARGIN_PX, 118), "Phone: 0117 496 0233", GREY, font(18))
    draw.line((MARGIN_PX, 160, RIGHT_PX, 160), RULE, 2)
    draw.text((MARGIN_PX, 186), "INVOICE", INK, font(30, bold=True))
    rows = [
        ("Invoice number:", "HF-20471"),
        ("Invoice date:", "12 March 2025"),
        ("Due date:", "11 April 2025"),
        ("Bill to:", "Marta Lindqvist"),
        ("Address:", "8 Park Street, Bath BA1 2TE"),
    ]
    for row, (label, value) in enumerate(rows):
        y_px = 246 + 36 * row
        draw.text((MARGIN_PX, y_px), label, INK, font(20, bold=True))
        draw.text((MARGIN_PX + 210, y_px), value, INK, font(20))


def draw_row(draw: ImageDraw.ImageDraw, y_px: int, cells: tuple[str, ...], *, bold: bool) -> None:
    """One row of the table: the description to the left, numbers flush right."""
    face = font(20, bold=bold)
    draw.text((MARGIN_PX, y_px), cells[0], INK, face)
    for text, x_px in zip(cells[1:], (470, 600, RIGHT_PX), strict=True):
        draw.text((x_px, y_px), text, INK, face, anchor="ra")


def draw_items(draw: ImageDraw.ImageDraw) -> int:
    """The table of goods; returns their sum in cents."""
    draw_row(draw, 462, ("Description", "Quantity", "Price", "Amount"), bold=True)
    draw.line((MARGIN_PX, 496, RIGHT_PX, 496), RULE, 2)
    for row, (name, quantity, price) in enumerate(ITEMS):
        cells = (name, str(quantity), money(price), money(quantity * price))
        draw_row(draw, 514 + 42 * row, cells, bold=False)
    draw.line((MARGIN_PX, 648, RIGHT_PX, 648), RULE, 2)
    return sum(quantity * price for _, quantity, price in ITEMS)


def draw_totals(draw: ImageDraw.ImageDraw, net: int) -> None:
    """Subtotal, tax and the total due, in cents, and how to pay."""
    tax = net * TAX_PERCENT // 100
    rows = [
        ("Subtotal:", net, 20),
        (f"VAT {TAX_PERCENT}%:", tax, 20),
        ("Total due:", net + tax, 24),
    ]
    for row, (label, cents, size_px) in enumerate(rows):
        y_px = 672 + 40 * row
        last = row == len(rows) - 1
        draw.text((420, y_px), label, INK, font(size_px, bold=last))
        draw.text((RIGHT_PX, y_px), money(cents), INK, font(size_px, bold=last), anchor="ra")
    draw.text((MARGIN_PX, 846), "Please pay within 30 days.", INK, font(18))
    draw.text((MARGIN_PX, 876), "Account: 20481537   Sort code: 40-11-62", INK, font(18))
    draw.text((MARGIN_PX, 920), "Thank you for your order.", GREY, font(18))


def draw_invoice() -> Image.Image:
    """The whole page, RGB."""
    page = Image.new("RGB", (WIDTH_PX, HEIGHT_PX), "white")
    draw = ImageDraw.Draw(page)
    draw_header(draw)
    draw_totals(draw, draw_items(draw))
    return page


if __name__ == "__main__":
    # Few greys remain after anti-aliasing, so a palette halves the file at no visible cost.
    draw_invoice().quantize(32).save(Path(__file__).with_name("invoice.png"), optimize=True)
