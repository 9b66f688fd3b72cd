"""Filled-in forms: labelled fields and boxes to tick."""

from __future__ import annotations

from dataclasses import dataclass

from alignvlm.synth import content
from alignvlm.synth.fonts import Split
from alignvlm.synth.kinds.base import (
    Context,
    count_question,
    extraction,
    new_context,
    pick_template,
    yes_no,
)
from alignvlm.synth.kinds.sheet import Sheet, TableLook, pale
from alignvlm.synth.page import Page, Question

__all__ = ["draw"]

_TITLES = (
    "Registration form", "Application for membership", "Patient record", "Change of address",
    "Job application", "Insurance claim", "Library card request", "Order form", "Travel request",
    "Visitor form", "Customs declaration", "School enrolment", "Tenant information",
)  # fmt: skip
_TICKS = (
    "Married", "Smoker", "Newsletter", "Employed", "Student", "Own car", "Vegetarian", "Insured",
    "Pets", "Parking needed", "First visit", "Retired", "Terms accepted", "Urgent", "Home owner",
    "Allergies", "Driving licence", "Wheelchair access", "Returning customer", "Paid in advance",
)  # fmt: skip


@dataclass(frozen=True)
class _Form:
    title: str
    fields: tuple[tuple[str, str], ...]
    ticks: tuple[tuple[str, bool], ...]


def draw(seed: int, split: Split) -> Page:
    """A form that someone filled in, with text of 12-28 px."""
    context = new_context("form", seed, split, (12, 28))
    return pick_template(context, (_boxes, _underlined, _tabled, _captions))(context)


def _make(context: Context) -> _Form:
    rng, known = context.rng, content.pools()
    first, _, last = rng.choice(known.names).partition(" ")
    fields = [
        ("First name", first), ("Last name", last), ("Date of birth", context.date()),
        ("Street", rng.choice(known.streets)), ("City", rng.choice(known.towns)),
        ("Postcode", rng.choice(known.postcodes)), ("Phone", content.phone(rng)),
        ("E-mail", content.email(rng)),
        ("Occupation", rng.choice(known.jobs)), ("Employer", rng.choice(known.companies)),
        ("Membership no.", content.code(rng)), ("Start date", context.date()),
        ("Emergency contact", rng.choice(known.names)), ("Nationality", rng.choice(_NATIONS)),
        ("Height", f"{rng.randint(140, 205)} cm"), ("Number of children", str(rng.randint(0, 6))),
        ("Monthly income", context.style.money(rng.randint(900, 9000))),
        ("Passport no.", content.code(rng)),
    ]  # fmt: skip
    chosen = sorted(rng.sample(range(len(fields)), rng.randint(6, 11)))
    ticks = rng.sample(_TICKS, rng.randint(2, 6))
    return _Form(
        rng.choice(_TITLES),
        tuple(fields[index] for index in chosen),
        tuple((tick, rng.random() < 0.5) for tick in ticks),
    )


_NATIONS = (
    "British", "French", "German", "Spanish", "Italian", "Dutch", "Swedish", "Canadian",
    "American", "Irish", "Polish", "Greek", "Indian", "Kenyan", "Brazilian", "Japanese",
)  # fmt: skip


def _boxes(context: Context) -> Page:
    """Two columns of boxes, the label small above the entry."""
    form, sheet = _make(context), Sheet(context)
    sheet.title(form.title)
    step = sheet.width / 2
    for start in range(0, len(form.fields), 2):
        pair = form.fields[start : start + 2]
        for index, (label, value) in enumerate(pair):
            x, y = sheet.left + index * step, sheet.y
            sheet.canvas.box(x, y, x + step - 8, y + 2 * sheet.pitch, outline=sheet.style.accent)
            sheet.put(label, x + 6, x + step - 14, scale=0.85, fill=sheet.style.accent)
            sheet.down(0.95)
            sheet.put(value, x + 6, x + step - 14)
            sheet.y = y
        sheet.down(2.25)
    return _close(sheet, form)


def _underlined(context: Context) -> Page:
    """A field a row, the entry on a line."""
    form, sheet = _make(context), Sheet(context)
    sheet.title(form.title, align="center")
    stop = sheet.left + 0.4 * sheet.width
    for label, value in form.fields:
        sheet.put(f"{label}:", sheet.left, stop)
        sheet.put(value, stop, sheet.right)
        base = sheet.y + 0.5 * sheet.pitch + 0.6 * sheet.px
        sheet.canvas.rule(stop, base, sheet.right, base, sheet.style.accent)
        sheet.down(1.15)
    return _close(sheet, form)


def _tabled(context: Context) -> Page:
    """A table of two columns, labels in the first."""
    form, sheet = _make(context), Sheet(context)
    sheet.title(form.title)
    rows = [("Field", "Entry"), *form.fields]
    sheet.table(rows, (2, 3), TableLook(grid=True, stripes=context.rng.random() < 0.5))
    return _close(sheet, form)


def _captions(context: Context) -> Page:
    """The entry on a line and its label below it; boxes to tick on a shaded field."""
    form, sheet = _make(context), Sheet(context)
    sheet.title(form.title)
    step = sheet.width / 2
    for start in range(0, len(form.fields), 2):
        for row in (1, 0):
            for index, field in enumerate(form.fields[start : start + 2]):
                x = sheet.left + index * step
                sheet.put(field[row], x, x + step - 16, scale=1.0 if row else 0.85)
                if row:
                    base = sheet.y + sheet.pitch
                    sheet.canvas.rule(x, base, x + step - 16, base, sheet.style.accent)
            sheet.down()
        sheet.down(0.4)
    bottom = sheet.y + ((len(form.ticks) + 1) // 2 + 0.6) * 1.2 * sheet.pitch
    ground = pale(sheet.style.accent)
    sheet.canvas.box(sheet.left - 6, sheet.y, sheet.right + 6, bottom, fill=ground)
    return _close(sheet, form)


def _close(sheet: Sheet, form: _Form) -> Page:
    """The boxes to tick, two a row, then the questions."""
    sheet.down(0.3)
    step = sheet.width / 2
    for index, (label, ticked) in enumerate(form.ticks):
        x = sheet.left + (index % 2) * step
        _tick_box(sheet, x, ticked)
        sheet.put(label, x + 1.5 * sheet.px, x + step - 8)
        if index % 2 or index == len(form.ticks) - 1:
            sheet.down(1.2)
    return sheet.finish(_ask(sheet.context, form))


def _tick_box(sheet: Sheet, x: float, ticked: bool) -> None:
    """A small square on the current row, with a written X if it is ticked."""
    top = sheet.y + 0.5 * sheet.pitch - 0.45 * sheet.px
    side = 0.95 * sheet.px
    sheet.canvas.box(x, top, x + side, top + side, outline=sheet.style.ink)
    if ticked:
        sheet.put("X", x, x + side + 1, scale=0.85, align="center")


def _ask(context: Context, form: _Form) -> list[Question]:
    rng = context.rng
    questions = [
        extraction(context, _NAMES.get(label, label.lower()), value) for label, value in form.fields
    ]
    rng.shuffle(questions)
    label, ticked = rng.choice(form.ticks)
    asked = rng.choice(("Is the box {} ticked?", "Is {} ticked?", "Has {} been marked?"))
    num_ticked = sum(ticked for _, ticked in form.ticks)
    return [
        *questions[:6],
        yes_no(asked.format(label), ticked),
        count_question(context, ("How many boxes are ticked?", "How many boxes are marked?"),
                       num_ticked),
        extraction(context, "title of the form", form.title),
    ]  # fmt: skip


_NAMES = {
    "E-mail": "e-mail address", "Phone": "phone number", "Membership no.": "membership number",
    "Passport no.": "passport number", "Emergency contact": "name of the emergency contact",
}  # fmt: skip
