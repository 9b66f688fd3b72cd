"""Till receipts: a shop, what was bought, how it was paid."""

from __future__ import annotations

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
from alignvlm.synth.kinds.sheet import Sheet
from alignvlm.synth.page import Page, Question

__all__ = ["draw"]

_WARES = (
    "Milk", "Bread", "Butter", "Eggs", "Apples", "Bananas", "Tomatoes", "Rice", "Pasta", "Cheese",
    "Yogurt", "Orange juice", "Coffee", "Tea bags", "Sugar", "Salt", "Olive oil", "Chicken",
    "Minced beef", "Salmon", "Potatoes", "Onions", "Carrots", "Lettuce", "Cucumber", "Peppers",
    "Chocolate", "Biscuits", "Crisps", "Ice cream", "Frozen peas", "Honey", "Jam", "Cereal",
    "Mineral water", "Lemonade", "Beer", "Red wine", "Soap", "Shampoo", "Toothpaste", "Tissues",
    "Batteries", "Light bulbs", "Dish soap", "Sponges", "Cat food", "Dog food", "Magazine",
    "Stamps",
)  # fmt: skip
_SHOPS = ("Market", "Store", "Foods", "Corner Shop", "Supermarket", "Deli", "Bakery", "Grocery")
_TOTALS = ("TOTAL", "Total", "Amount due", "Balance", "To pay", "Sum")
_CARDS = ("Visa", "Mastercard", "Maestro", "Debit card", "Credit card", "Cash")


@dataclass(frozen=True)
class _Receipt:
    shop: str
    town: str
    facts: tuple[tuple[str, str], ...]
    wares: tuple[tuple[str, str], ...]
    total_label: str
    total: str
    payment: str
    change: tuple[tuple[str, str], ...]


def draw(seed: int, split: Split) -> Page:
    """A receipt on narrow paper, with text of 16-28 px."""
    context = new_context("receipt", seed, split, (16, 28))
    return pick_template(context, (_till, _ruled, _dotted))(context)


def _make(context: Context) -> _Receipt:
    rng, style = context.rng, context.style
    wares, cents = [], 0
    for ware in rng.sample(_WARES, rng.randint(3, 10)):
        price = rng.randint(49, 2400)
        cents += price
        wares.append((ware, style.money(price / 100)))
    payment = rng.choice(_CARDS)
    given = -(-cents // 1000) * 1000
    paid = (("Given", style.money(given / 100)), ("Change", style.money((given - cents) / 100)))
    facts = [("Date", context.date()), ("Time", f"{rng.randint(7, 22)}:{rng.randint(0, 59):02d}"),
             ("Receipt", str(rng.randrange(10**4, 10**7))), ("Cashier", rng.choice(
                 content.pools().names).split()[0]), ("Till", str(rng.randint(1, 20)))]  # fmt: skip
    return _Receipt(
        shop=f"{rng.choice(content.pools().names).split()[-1]} {rng.choice(_SHOPS)}",
        town=rng.choice(content.pools().cities),
        facts=tuple(facts[: rng.randint(3, 5)]),
        wares=tuple(wares),
        total_label=rng.choice(_TOTALS),
        total=style.money(cents / 100),
        payment=payment,
        change=paid if payment == "Cash" else (),
    )


def _till(context: Context) -> Page:
    """Head centred, dashes between the parts."""
    receipt, sheet = _make(context), _paper(context)
    _head(sheet, receipt)
    for label, value in receipt.facts:
        sheet.row(f"{label}: {value}")
    _dashes(sheet)
    _body(sheet, receipt, leader="")
    _dashes(sheet)
    _foot(sheet, receipt)
    return sheet.finish(_ask(context, receipt))


def _ruled(context: Context) -> Page:
    """Facts in two columns at the end, lines between the parts."""
    receipt, sheet = _make(context), _paper(context)
    _head(sheet, receipt)
    sheet.rule(width_px=2)
    _body(sheet, receipt, leader="")
    sheet.rule(width_px=2)
    _foot(sheet, receipt)
    sheet.rule()
    for label, value in receipt.facts:
        sheet.put(label, sheet.left, sheet.right)
        sheet.put(value, sheet.left, sheet.right, align="right")
        sheet.down()
    return sheet.finish(_ask(context, receipt))


def _dotted(context: Context) -> Page:
    """Facts first, dots that lead from goods to prices, head at the end."""
    receipt, sheet = _make(context), _paper(context)
    for label, value in receipt.facts:
        sheet.row(f"{label} {value}", align="center")
    sheet.rule()
    _body(sheet, receipt, leader=".")
    sheet.rule()
    _foot(sheet, receipt)
    sheet.down(0.5)
    _head(sheet, receipt)
    return sheet.finish(_ask(context, receipt))


def _paper(context: Context) -> Sheet:
    sheet = Sheet(context, (600, 700))
    spare = max(0.0, sheet.width - context.rng.randint(15, 24) * sheet.px)
    sheet.left += spare / 2
    sheet.right -= spare / 2
    return sheet


def _head(sheet: Sheet, receipt: _Receipt) -> None:
    sheet.title(receipt.shop, align="center", scale=1.3)
    sheet.row(receipt.town, align="center")
    sheet.down(0.5)


def _dashes(sheet: Sheet) -> None:
    style = sheet.style
    dash = sheet.context.rng.choice(("-", "=", "*", "- "))
    num = int(sheet.width / sheet.canvas.measure(dash * 20, style.body, sheet.px) * 20) - 1
    sheet.row((dash * num).strip()[:60])


def _body(sheet: Sheet, receipt: _Receipt, leader: str) -> None:
    for ware, price in receipt.wares:
        end = sheet.put(ware, sheet.left, sheet.right)
        room = sheet.canvas.measure(price, sheet.style.body, sheet.px) + sheet.px
        if leader:
            dots = leader * 90
            while sheet.canvas.measure(dots, sheet.style.body, sheet.px) > sheet.right - room - end:
                dots = dots[:-1]
            sheet.put(dots, end + 3, sheet.right)
        sheet.put(price, sheet.left, sheet.right, align="right")
        sheet.down()


def _foot(sheet: Sheet, receipt: _Receipt) -> None:
    rows = [(receipt.total_label, receipt.total), ("Paid by", receipt.payment), *receipt.change]
    for index, (label, value) in enumerate(rows):
        sheet.put(label, sheet.left, sheet.right, bold=index == 0)
        sheet.put(value, sheet.left, sheet.right, bold=index == 0, align="right")
        sheet.down()


def _ask(context: Context, receipt: _Receipt) -> list[Question]:
    rng = context.rng
    ware, price = rng.choice(receipt.wares)
    truth = rng.random() < 0.5
    bought = {name for name, _ in receipt.wares}
    asked = ware if truth else rng.choice([w for w in _WARES if w not in bought])
    facts = [extraction(context, _NAMES[label], value) for label, value in receipt.facts]
    change = [extraction(context, _NAMES[label], value) for label, value in receipt.change]
    return [
        *facts,
        *change,
        extraction(context, rng.choice(("total", "amount paid", "sum")), receipt.total),
        lookup(context, ("In which shop was this bought?", "What is the name of the shop?",
                         "Which store gave the receipt?"), receipt.shop),
        lookup(context, ("How much does {ware} cost?", "What is the price of {ware}?",
                         "How much was paid for {ware}?"), price, ware=ware),
        lookup(context, ("How was it paid?", "What was the method of payment?"), receipt.payment),
        count_question(context, ("How many items were bought?", "How many items are listed?"),
                       len(receipt.wares)),
        yes_no(rng.choice(("Was {} bought?", "Is {} on the receipt?")).format(asked), truth),
        yes_no("Was it paid in cash?", receipt.payment == "Cash"),
    ]  # fmt: skip


_NAMES = {
    "Date": "date of purchase", "Time": "time", "Receipt": "receipt number",
    "Cashier": "name of the cashier", "Till": "till number", "Given": "amount given",
    "Change": "change",
}  # fmt: skip
