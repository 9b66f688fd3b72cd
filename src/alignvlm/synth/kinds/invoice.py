"""Invoices: a seller, a customer, positions and a total."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from alignvlm.synth import content
from alignvlm.synth.fonts import Split
from alignvlm.synth.kinds.base import (
    Context,
    count_question,
    extraction,
    lookup,
    new_context,
    pick_template,
    yes_no,
)
from alignvlm.synth.kinds.sheet import Sheet, TableLook, pale
from alignvlm.synth.page import Page, Question

__all__ = ["GOODS", "draw"]

GOODS = (
    "Desk lamp", "Office chair", "Printer paper", "USB cable", "Keyboard", "Wall clock", "Notebook",
    "Coffee beans", "Green tea", "Water bottle", "Backpack", "Garden hose", "Paint brush", "Ladder",
    "Light bulb", "Extension cord", "Hammer", "Screw set", "Wood glue", "Door handle", "Phone case",
    "Headphones", "Monitor stand", "Web hosting", "Domain name", "Consulting", "Translation",
    "Logo design", "Repair work", "Delivery", "Installation", "Cleaning", "Training day", "Towel",
    "Blanket", "Pillow", "Curtain", "Ceramic mug", "Soup bowl", "Steel pan", "Kitchen knife",
    "Cutting board", "Table cloth", "Bicycle tyre", "Engine oil", "Brake pads", "Car battery",
    "Wiper blade", "Seat cover", "Camera bag", "Tripod", "Memory card", "Battery pack", "Router",
    "Hard disk", "Envelope", "Ballpoint pen", "Stapler", "Ring binder", "Whiteboard", "Marker set",
)  # fmt: skip
_TOTALS = ("Total", "Total due", "Amount due", "Balance due", "Grand total", "Amount payable")
_SUBTOTALS = ("Subtotal", "Net amount", "Sub-total", "Net total")
_TAXES = ("VAT", "Tax", "Sales tax", "GST")
_NUMBERS = ("Invoice no.", "Invoice number", "Invoice #", "Number", "Our reference")
_DATES = ("Date", "Invoice date", "Date of issue", "Issued")
_DUES = ("Due date", "Payment due", "Due", "Pay by")
_BUYERS = ("Bill to", "Customer", "Billed to", "Client", "Sold to")
_TITLES = ("INVOICE", "Invoice", "Tax invoice", "Sales invoice")
_HEADS = (
    ("Description", "Qty", "Unit price", "Amount"), ("Item", "Quantity", "Price", "Total"),
    ("Article", "Units", "Rate", "Sum"), ("Product", "Qty", "Each", "Line total"),
)  # fmt: skip


@dataclass(frozen=True)
class _Position:
    goods: str
    quantity: int
    price: str
    amount: str


@dataclass(frozen=True)
class _Invoice:
    """What one invoice says; `meta` and `sums` are labels with values, in the order printed."""

    seller: str
    address: str
    buyer_label: str
    buyer: str
    meta: tuple[tuple[str, str], ...]
    head: tuple[str, str, str, str]
    positions: tuple[_Position, ...]
    sums: tuple[tuple[str, str], ...]

    @property
    def table(self) -> list[tuple[str, ...]]:
        return [self.head, *((p.goods, str(p.quantity), p.price, p.amount) for p in self.positions)]


def draw(seed: int, split: Split) -> Page:
    """An invoice, with text of 12-28 px."""
    context = new_context("invoice", seed, split, (12, 28))
    return pick_template(context, (_classic, _banded, _typed, _sidebar))(context)


def _make(context: Context) -> _Invoice:
    rng, style, known = context.rng, context.style, content.pools()
    positions = []
    total = 0.0
    for goods in rng.sample(GOODS, rng.randint(2, 8)):
        quantity, price = rng.randint(1, 20), round(1.5 + 300 ** rng.random(), 2)
        total += quantity * price
        positions.append(
            _Position(goods, quantity, style.money(price), style.money(quantity * price))
        )
    rate = rng.choice((5, 7, 8, 10, 19, 20, 21))
    tax = round(total * rate / 100, 2)
    issued = context.day()
    due = issued + datetime.timedelta(days=rng.choice((7, 10, 14, 21, 30, 45, 60)))
    meta = [
        (rng.choice(_NUMBERS), content.code(rng)),
        (rng.choice(_DATES), context.written(issued)),
        (rng.choice(_DUES), context.written(due)),
    ]
    if rng.random() < 0.5:
        meta.append(("Order no.", content.code(rng)))
    return _Invoice(
        seller=rng.choice(known.companies),
        address=rng.choice(known.cities),
        buyer_label=rng.choice(_BUYERS),
        buyer=rng.choice(known.names if rng.random() < 0.6 else known.companies),
        meta=tuple(meta),
        head=rng.choice(_HEADS),
        positions=tuple(positions),
        sums=(
            (rng.choice(_SUBTOTALS), style.money(total)),
            (f"{rng.choice(_TAXES)} {rate}%", style.money(tax)),
            (rng.choice(_TOTALS), style.money(total + tax)),
        ),
    )


def _classic(context: Context) -> Page:
    """Seller left, title right, ruled positions, sums under the last column."""
    invoice, sheet = _make(context), Sheet(context)
    middle = sheet.left + 0.52 * sheet.width
    sheet.put(invoice.seller, sheet.left, middle - 10, bold=True, scale=1.2)
    sheet.put(context.rng.choice(_TITLES), middle, sheet.right, bold=True, scale=1.5,
              align="right", fill=context.style.accent)  # fmt: skip
    sheet.down(1.5)
    sheet.row(invoice.address)
    sheet.down(0.7)
    sheet.pairs(invoice.meta, sheet.left, sheet.right)
    sheet.pair(f"{invoice.buyer_label}:", invoice.buyer, sheet.left, sheet.right)
    sheet.down(2)
    sheet.table(invoice.table, (5, 2, 3, 3), TableLook(rules=context.rng.random() < 0.6))
    _sums_right(sheet, invoice)
    return _close(sheet, invoice)


def _banded(context: Context) -> Page:
    """Title on a coloured band, facts with their labels above them, shaded positions."""
    invoice, sheet = _make(context), Sheet(context)
    band = sheet.pitch * 1.8
    sheet.canvas.box(0, 0, sheet.canvas.width_px, sheet.y + band, fill=context.style.accent)
    sheet.put(context.rng.choice(_TITLES), sheet.left, sheet.right, bold=True, scale=1.5,
              fill=(255, 255, 255))  # fmt: skip
    sheet.y += band + 0.6 * sheet.pitch
    sheet.row(invoice.seller, bold=True)
    sheet.row(invoice.address)
    sheet.down(0.6)
    facts = [(invoice.buyer_label, invoice.buyer), *invoice.meta]
    for start in range(0, len(facts), 2):
        _columns(sheet, [label for label, _ in facts[start : start + 2]], bold=True)
        _columns(sheet, [value for _, value in facts[start : start + 2]], bold=False)
        sheet.down(0.3)
    sheet.down(0.6)
    sheet.table(invoice.table, (5, 2, 3, 3), TableLook(stripes=True, head_band=True))
    _sums_right(sheet, invoice)
    return _close(sheet, invoice)


def _typed(context: Context) -> Page:
    """A plain list: every fact on a line of its own, all flush left."""
    invoice, sheet = _make(context), Sheet(context)
    sheet.title(context.rng.choice(_TITLES), align="center")
    sheet.row(f"From: {invoice.seller}")
    sheet.row(f"{invoice.buyer_label}: {invoice.buyer}")
    for label, value in invoice.meta:
        sheet.row(f"{label}: {value}")
    sheet.down()
    sheet.table(invoice.table, (5, 2, 3, 3), TableLook(grid=context.rng.random() < 0.5))
    sheet.down(0.5)
    for label, value in invoice.sums:
        sheet.row(f"{label}: {value}")
    return _close(sheet, invoice)


def _sidebar(context: Context) -> Page:
    """Facts in a shaded column on the left, each under its label; positions on the right."""
    invoice, sheet = _make(context), Sheet(context, (760, 940))
    right, edge = sheet.right, sheet.left + 0.29 * sheet.width
    sheet.canvas.box(0, 0, edge, sheet.canvas.height_px, fill=pale(context.style.accent))
    top = sheet.y
    sheet.right = edge - 6
    for label, value in [(invoice.buyer_label, invoice.buyer), *invoice.meta]:
        sheet.row(label, bold=True)
        sheet.row(value)
        sheet.down(0.4)
    bottom, sheet.y = sheet.y, top
    sheet.left, sheet.right = edge + 12, right
    sheet.title(context.rng.choice(_TITLES))
    sheet.row(invoice.seller, bold=True)
    sheet.down(0.5)
    sheet.table(invoice.table, (5, 2, 4, 4), TableLook())
    _sums_right(sheet, invoice)
    sheet.y = max(bottom, sheet.y)
    return _close(sheet, invoice)


def _columns(sheet: Sheet, cells: list[str], bold: bool) -> None:
    step = sheet.width / 2
    for index, cell in enumerate(cells):
        x = sheet.left + index * step
        sheet.put(cell, x, x + step - sheet.px, bold=bold)
    sheet.down()


def _sums_right(sheet: Sheet, invoice: _Invoice) -> None:
    start = sheet.left + 0.35 * sheet.width
    for index, (label, value) in enumerate(invoice.sums):
        last = index == len(invoice.sums) - 1
        end = sheet.put(label, start, sheet.right, bold=last)
        sheet.put(value, end, sheet.right - 0.3 * sheet.px, bold=last, align="right")
        sheet.down()


def _close(sheet: Sheet, invoice: _Invoice) -> Page:
    sheet.down()
    notes = ("Thank you for your business.", "Please pay within 30 days.",
             "Goods remain ours until paid in full.", "Questions? Write to us.")  # fmt: skip
    sheet.row(sheet.context.rng.choice(notes))
    return sheet.finish(_ask(sheet.context, invoice))


def _ask(context: Context, invoice: _Invoice) -> list[Question]:
    rng = context.rng
    position = rng.choice(invoice.positions)
    number, issued, due = (value for _, value in invoice.meta[:3])
    (_, net), (_, tax), (_, total) = invoice.sums
    other = rng.choice([g for g in GOODS if g not in {p.goods for p in invoice.positions}])
    truth = rng.random() < 0.5
    asked_goods = position.goods if truth else other
    return [
        extraction(context, rng.choice(("total", "amount to pay", "invoice total")), total),
        extraction(context, rng.choice(("invoice number", "number of the invoice")), number),
        extraction(context, rng.choice(("invoice date", "date of the invoice")), issued),
        lookup(context, ("What is the due date?", "When is the payment due?",
                         "By when must the invoice be paid?"), due),
        extraction(context, rng.choice(("tax amount", "amount of tax")), tax),
        extraction(context, rng.choice(("net amount", "subtotal", "sum before tax")), net),
        lookup(context, ("Who is the customer?", "Who has to pay the invoice?",
                         "To whom is the invoice addressed?"), invoice.buyer),
        lookup(context, ("Who issued the invoice?", "Which company sent the invoice?",
                         "Who is the seller?"), invoice.seller),
        lookup(context, ("What is the price of one {goods}?", "What is the unit price of {goods}?",
                         "How much does a single {goods} cost?"),
               position.price, goods=position.goods),
        lookup(context, ("How many {goods} were ordered?", "What is the quantity of {goods}?"),
               str(position.quantity), goods=position.goods),
        lookup(context, ("What is the amount for {goods}?", "How much is charged for {goods}?"),
               position.amount, goods=position.goods),
        count_question(context, ("How many items are listed?", "How many positions are there?",
                                 "How many different products are on the invoice?"),
                       len(invoice.positions)),
        yes_no(rng.choice(("Is {} on the invoice?", "Does the invoice list {}?"))
               .format(asked_goods), truth),
    ]  # fmt: skip
