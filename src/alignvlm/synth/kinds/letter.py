"""Letters: someone writes to someone about something, with facts in running text."""

from __future__ import annotations

from dataclasses import dataclass

from alignvlm.synth import content
from alignvlm.synth.fonts import Split
from alignvlm.synth.kinds.base import (
    Context,
    extraction,
    lookup,
    new_context,
    pick_template,
    yes_no,
)
from alignvlm.synth.kinds.sheet import Sheet
from alignvlm.synth.page import Page, Question

__all__ = ["draw"]

_CLOSINGS = ("Yours sincerely,", "Kind regards,", "Best wishes,", "Yours faithfully,", "Regards,")
_PLEAS = (
    "Please let us know if you have any questions.", "We thank you for your patience.",
    "Please keep this letter for your records.", "We are sorry for any inconvenience.",
    "Do not hesitate to call us at any time.", "A copy has been sent to your office.",
    "We look forward to hearing from you.", "Enclosed you will find the signed papers.",
    "This letter was written without a deadline for an answer.", "Thank you for your trust in us.",
)  # fmt: skip
_MATTERS: tuple[tuple[str, str, str], ...] = (
    ("Your order", "Your order {code} was sent on {date}. It was paid by {payer} with {money}.",
     "order"),
    ("Meeting", "The meeting about {code} takes place on {date}. The room is booked by {payer} "
     "and costs {money}.", "file"),
    ("Refund", "We refund {money} for the purchase {code}. The sum reaches the account of {payer} "
     "by {date}.", "purchase"),
    ("Your contract", "Your contract {code} ends on {date}. Until then {payer} pays {money} a "
     "month.", "contract"),
    ("Reminder", "The payment of {money} for {code} was due on {date}. Please ask {payer} to see "
     "to it.", "invoice"),
    ("Repair", "The repair with the number {code} was finished on {date}. The bill of {money} "
     "goes to {payer}.", "repair"),
    ("Invitation", "We invite you to the opening on {date}. Your ticket {code} is worth {money} "
     "and was issued to {payer}.", "ticket"),
    ("Your claim", "Your claim {code} was accepted on {date}. We transfer {money} to {payer}.",
     "claim"),
)  # fmt: skip


@dataclass(frozen=True)
class _Letter:
    sender: str
    place: str
    receiver: str
    street: str
    town: str
    date: str
    subject: str
    matter: str
    code: str
    fact_date: str
    money: str
    payer: str
    body: tuple[str, ...]
    closing: str
    signer: str
    role: str


def draw(seed: int, split: Split) -> Page:
    """A letter, with text of 12-28 px."""
    context = new_context("letter", seed, split, (12, 28))
    return pick_template(context, (_block, _modern, _centred))(context)


def _make(context: Context) -> _Letter:
    rng, known = context.rng, content.pools()
    topic, sentence, matter = rng.choice(_MATTERS)
    facts = {
        "code": content.code(rng),
        "date": context.date(),
        "money": context.style.money(round(5 + 5000 ** rng.random(), 2)),
        "payer": rng.choice(known.names),
    }
    pleas = rng.sample(_PLEAS, 2)
    told = [content.sentence(rng, context.split) for _ in range(rng.randint(1, 3))]
    return _Letter(
        sender=rng.choice(known.companies), place=rng.choice(known.cities),
        receiver=rng.choice(known.names), street=rng.choice(known.streets),
        town=rng.choice(known.cities), date=context.date(),
        subject=f"{topic} {facts['code']}" if rng.random() < 0.4 else topic, matter=matter,
        code=facts["code"], fact_date=facts["date"], money=facts["money"], payer=facts["payer"],
        body=(sentence.format(**facts), " ".join(told), " ".join(pleas)),
        closing=rng.choice(_CLOSINGS), signer=rng.choice(known.names), role=rng.choice(known.jobs),
    )  # fmt: skip


def _block(context: Context) -> Page:
    """Everything flush left, the date on the right."""
    letter, sheet = _make(context), Sheet(context)
    sheet.row(letter.sender, bold=True)
    sheet.row(letter.place)
    sheet.down(0.5)
    sheet.row(letter.date, align="right")
    _receiver(sheet, letter)
    sheet.row(f"{context.rng.choice(('Subject', 'Re', 'Concerning'))}: {letter.subject}", bold=True)
    return _text(sheet, letter)


def _modern(context: Context) -> Page:
    """The sender's name large over a rule, the date under the address."""
    letter, sheet = _make(context), Sheet(context)
    sheet.title(letter.sender)
    sheet.rule(width_px=2)
    sheet.row(letter.place, align="right")
    _receiver(sheet, letter)
    sheet.row(f"Date: {letter.date}")
    sheet.down(0.5)
    sheet.row(letter.subject, bold=True)
    return _text(sheet, letter)


def _centred(context: Context) -> Page:
    """Head in the middle, the receiver's address on the right."""
    letter, sheet = _make(context), Sheet(context)
    sheet.title(letter.sender, align="center", scale=1.3)
    sheet.row(f"{letter.place} - {letter.date}", align="center")
    sheet.rule()
    for line in (letter.receiver, letter.street, letter.town):
        sheet.row(line, align="right")
    sheet.down(0.5)
    sheet.row(letter.subject, bold=True, align="center")
    return _text(sheet, letter)


def _receiver(sheet: Sheet, letter: _Letter) -> None:
    sheet.down(0.5)
    for line in (letter.receiver, letter.street, letter.town):
        sheet.row(line)
    sheet.down(0.7)


def _text(sheet: Sheet, letter: _Letter) -> Page:
    sheet.down(0.6)
    sheet.row(f"Dear {letter.receiver},")
    for paragraph in letter.body:
        sheet.down(0.4)
        sheet.paragraph(paragraph)
    sheet.down(0.6)
    sheet.row(letter.closing)
    sheet.down(0.6)
    sheet.row(letter.signer)
    sheet.row(letter.role)
    return sheet.finish(_ask(sheet.context, letter))


def _ask(context: Context, letter: _Letter) -> list[Question]:
    rng = context.rng
    truth = rng.random() < 0.5
    asked = letter.sender if truth else rng.choice(content.pools().companies)
    return [
        lookup(context, ("What is the date of the letter?", "When was the letter written?"),
               letter.date),
        extraction(context, rng.choice(("subject", "subject of the letter")), letter.subject),
        extraction(context, f"number of the {letter.matter}", letter.code),
        extraction(context, rng.choice(("amount of money", "sum in the letter")), letter.money),
        lookup(context, ("Who signed the letter?", "Who wrote the letter?",
                         "What is the name of the writer?"), letter.signer),
        lookup(context, ("To whom is the letter addressed?", "Who receives the letter?",
                         "What is the name of the addressee?"), letter.receiver),
        lookup(context, ("Which company sent the letter?", "Who is the sender?",
                         "From which company is the letter?"), letter.sender),
        lookup(context, ("What is the job of {signer}?", "What does {signer} do?"), letter.role,
               signer=context.style.body.spell(letter.signer)),
        lookup(context, ("In which street does {receiver} live?",
                         "What is the street address of {receiver}?"), letter.street,
               receiver=context.style.body.spell(letter.receiver)),
        yes_no(f"Is the letter from {context.style.body.spell(asked)}?", asked == letter.sender),
        yes_no("Does the letter ask to be kept?", "for your records" in letter.body[-1]),
    ]  # fmt: skip
