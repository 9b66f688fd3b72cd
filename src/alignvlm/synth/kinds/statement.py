"""Account statements: movements of money with a running balance."""

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
from alignvlm.synth.kinds.sheet import Sheet, TableLook
from alignvlm.synth.page import Page, Question

__all__ = ["draw"]

_MOVES = (
    "Rent", "Salary", "Electricity", "Water bill", "Groceries", "Cash withdrawal", "Phone bill",
    "Internet", "Car insurance", "Fuel", "Restaurant", "Pharmacy", "Gym", "Train ticket", "Books",
    "Transfer", "Dividend", "Refund", "Bank charges", "Interest", "Mortgage", "School fees",
    "Donation", "Clothing", "Hotel", "Parking", "Flight", "Garage", "Dentist", "Insurance",
)  # fmt: skip
_INCOME = ("Salary", "Dividend", "Refund", "Interest")
_BANKS = ("Savings Bank", "Credit Union", "National Bank", "Bank", "Trust", "Mutual")


@dataclass(frozen=True)
class _Statement:
    bank: str
    facts: tuple[tuple[str, str], ...]
    moves: tuple[tuple[str, str, str, str], ...]
    opening: str
    closing: str


def draw(seed: int, split: Split) -> Page:
    """A bank statement, with text of 12-26 px."""
    context = new_context("statement", seed, split, (12, 26))
    return pick_template(context, (_ruled, _boxed, _listed))(context)


def _make(context: Context) -> _Statement:
    rng, known = context.rng, content.pools()
    cents = opening = rng.randint(20_000, 900_000)
    start = day = context.day()
    moves = []
    for name in rng.sample(_MOVES, rng.randint(4, 12)):
        day += datetime.timedelta(days=rng.randint(0, 4))
        value = rng.randint(300, 90_000) * (1 if name in _INCOME else -1)
        cents += value
        moves.append((context.written(day), name, _signed(context, value), _signed(context, cents)))
    facts = (
        ("Account holder", rng.choice(known.names)),
        ("Account number", f"{rng.randrange(10**7, 10**10)}"),
        ("Period", f"{context.written(start)} to {context.written(day)}"),
        (rng.choice(("Branch", "Office")), rng.choice(known.towns)),
    )
    bank = f"{rng.choice(known.names).split()[-1]} {rng.choice(_BANKS)}"
    return _Statement(bank, facts, tuple(moves), _signed(context, opening), _signed(context, cents))


def _signed(context: Context, cents: int) -> str:
    return ("-" if cents < 0 else "") + context.style.money(abs(cents) / 100)


_HEAD = ("Date", "Description", "Amount", "Balance")


def _ruled(context: Context) -> Page:
    """Facts on the left, opening and closing balance as rows of their own."""
    statement, sheet = _make(context), Sheet(context)
    sheet.title(statement.bank)
    sheet.row("Account statement", bold=True)
    sheet.down(0.4)
    sheet.pairs(statement.facts, sheet.left, sheet.right, sheet.left + 0.32 * sheet.width)
    sheet.down(0.5)
    sheet.row(f"Opening balance: {statement.opening}")
    _moves(sheet, statement, TableLook(rules=context.rng.random() < 0.5))
    sheet.row(f"Closing balance: {statement.closing}", bold=True)
    return sheet.finish(_ask(context, statement))


def _boxed(context: Context) -> Page:
    """Balances in a frame on top, shaded movements."""
    statement, sheet = _make(context), Sheet(context)
    sheet.row(statement.bank, bold=True, align="right")
    sheet.title("Statement of account")
    top = sheet.y
    for label, value in (*statement.facts, ("Opening balance", statement.opening),
                         ("Closing balance", statement.closing)):  # fmt: skip
        sheet.put(label, sheet.left + 8, sheet.right - 8)
        sheet.put(value, sheet.left + 8, sheet.right - 8, align="right")
        sheet.down()
    sheet.canvas.box(sheet.left, top, sheet.right, sheet.y, outline=context.style.accent)
    sheet.down(0.5)
    _moves(sheet, statement, TableLook(stripes=True, head_band=context.rng.random() < 0.5))
    return sheet.finish(_ask(context, statement))


def _listed(context: Context) -> Page:
    """Movements first in a grid, then balances and facts."""
    statement, sheet = _make(context), Sheet(context)
    sheet.title(f"{statement.bank} - Movements", align="center", scale=1.2)
    _moves(sheet, statement, TableLook(grid=True))
    sheet.down(0.3)
    for label, value in (("Opening balance", statement.opening),
                         ("Closing balance", statement.closing), *statement.facts):  # fmt: skip
        sheet.row(f"{label}: {value}")
    return sheet.finish(_ask(context, statement))


def _moves(sheet: Sheet, statement: _Statement, look: TableLook) -> None:
    unit = (sheet.right - sheet.left) / 13
    rows = [_HEAD, *statement.moves]
    for index, (date, name, amount, balance) in enumerate(rows):
        box = (sheet.left, sheet.y, sheet.right, sheet.y + sheet.pitch)
        sheet.band(index, look)
        if look.grid:
            sheet.canvas.box(*box, outline=sheet.style.accent)
        x, bold = sheet.left + 4, index == 0
        white = (255, 255, 255) if bold and look.head_band else None
        sheet.put(date, x, x + 3.4 * unit, bold=bold, fill=white)
        sheet.put(name, x + 3.6 * unit, x + 7 * unit, bold=bold, fill=white)
        sheet.put(amount, x + 7 * unit, x + 9.8 * unit, bold=bold, align="right", fill=white)
        sheet.put(balance, x + 9.9 * unit, sheet.right - 4, bold=bold, align="right", fill=white)
        sheet.down()
        if look.rules or bold:
            sheet.rule()
    sheet.down(0.3)


def _ask(context: Context, statement: _Statement) -> list[Question]:
    rng = context.rng
    date, name, amount, balance = rng.choice(statement.moves)
    other = rng.choice(statement.moves)
    truth = rng.random() < 0.5
    present = {move[1] for move in statement.moves}
    asked = other[1] if truth else rng.choice([m for m in _MOVES if m not in present])
    (_, holder), (_, account), (_, period), (_, branch) = statement.facts
    return [
        extraction(context, rng.choice(("closing balance", "balance at the end")),
                   statement.closing),
        extraction(context, rng.choice(("opening balance", "balance at the start")),
                   statement.opening),
        extraction(context, "account number", account),
        extraction(context, rng.choice(("account holder", "name of the account holder")), holder),
        extraction(context, rng.choice(("period", "period of the statement")), period),
        extraction(context, rng.choice(("name of the bank", "bank")), statement.bank),
        lookup(context, ("Where is the account kept?", "In which town is the branch?"), branch),
        lookup(context, ("What is the amount of {name}?", "How much was booked for {name}?",
                         "Which amount belongs to {name}?"), amount, name=name),
        lookup(context, ("On which date was {name} booked?", "When was {name} booked?"), date,
               name=name),
        lookup(context, ("What was the balance after {name}?",
                         "Which balance is given next to {name}?"), balance, name=name),
        count_question(context, ("How many movements are listed?", "How many bookings are there?"),
                       len(statement.moves)),
        yes_no(rng.choice(("Is there a booking for {}?", "Does the statement list {}?"))
               .format(asked), truth),
    ]  # fmt: skip
