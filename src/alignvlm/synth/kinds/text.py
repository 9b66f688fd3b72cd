"""Running text: headings and paragraphs of real sentences among which facts are told."""

from __future__ import annotations

from collections.abc import Callable
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

# A sentence, and the questions that its blanks answer.
_FACTS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("The bridge of {town} was opened on {date} and cost {money}.",
     (("When was the bridge of {town} opened?", "date"),
      ("How much did the bridge of {town} cost?", "money"))),
    ("{name} was born in {town} and worked as {job}.",
     (("Where was {name} born?", "town"), ("What was the job of {name}?", "job"),
      ("Who was born in {town}?", "name"))),
    ("The firm {company} has {number} employees, most of them in {town}.",
     (("How many employees does {company} have?", "number"),
      ("Where do most employees of {company} work?", "town"))),
    ("In {year} the prize was given to {name} for work on the {word}.",
     (("Who was given the prize in {year}?", "name"), ("When did {name} get the prize?", "year"))),
    ("The tower in {town} is {number} metres high.",
     (("How high is the tower in {town}, in metres?", "number"),
      ("Where is the tower?", "town"))),
    ("On {date} the ship {word} left the port of {town} with {number} passengers.",
     (("When did the ship leave {town}?", "date"), ("Which ship left the port of {town}?", "word"),
      ("How many passengers were on the ship?", "number"))),
    ("{company} bought the building from {name} for {money}.",
     (("Who sold the building?", "name"), ("What did the building cost?", "money"),
      ("Who bought the building?", "company"))),
    ("The train to {town} leaves at {time} from platform {number}.",
     (("When does the train to {town} leave?", "time"),
      ("From which platform does the train to {town} leave?", "number"))),
    ("The report {code} was written by {name} in {year}.",
     (("Who wrote the report {code}?", "name"),
      ("In which year was the report {code} written?", "year"),
      ("What is the number of the report?", "code"))),
    ("The museum of {town} is closed on {day} and a ticket costs {money}.",
     (("On which day is the museum closed?", "day"), ("What does a ticket cost?", "money"))),
    ("The lake near {town} is {number} metres deep, as {name} measured in {year}.",
     (("How deep is the lake near {town}, in metres?", "number"),
      ("Who measured the lake?", "name"))),
    ("For questions write to {email} or call {phone}.",
     (("Which e-mail address is given?", "email"), ("Which phone number is given?", "phone"))),
    ("The film {word} was made by {name} in {year}.",
     (("Who made the film {word}?", "name"), ("When was the film {word} made?", "year"))),
    ("The team of {town} won the final on {date}.",
     (("Which team won the final?", "town"), ("When was the final?", "date"))),
)  # fmt: skip
_HEADINGS = ("Notes on", "A short history of", "The story of", "About", "Facts about", "Report on")


@dataclass(frozen=True)
class _Text:
    title: str
    author: str
    paragraphs: tuple[str, ...]
    questions: tuple[tuple[str, str], ...]


def draw(seed: int, split: Split) -> Page:
    """A page of running text, of 12-26 px."""
    context = new_context("text", seed, split, (12, 26))
    return pick_template(context, (_article, _report, _numbered))(context)


def _make(context: Context) -> _Text:
    rng = context.rng
    paragraphs, questions = [], []
    facts = rng.sample(_FACTS, rng.randint(3, 5))
    for sentence, asks in facts:
        values = _values(context)
        told = [sentence.format(**values)]
        told += [content.sentence(rng, context.split) for _ in range(rng.randint(0, 3))]
        rng.shuffle(told)
        paragraphs.append(" ".join(told))
        question, answer = rng.choice(asks)
        questions.append((question.format(**values), values[answer]))
        if len(asks) > 1 and rng.random() < 0.4:
            other, answer = rng.choice([ask for ask in asks if ask[0] != question])
            questions.append((other.format(**values), values[answer]))
    title = f"{rng.choice(_HEADINGS)} {content.word(rng)}"
    return _Text(title, rng.choice(content.pools().names), tuple(paragraphs), tuple(questions))


def _values(context: Context) -> dict[str, str]:
    rng, known = context.rng, content.pools()
    return {
        "town": rng.choice(known.towns), "date": context.date(), "name": rng.choice(known.names),
        "money": context.style.money(round(2 + 90000 ** rng.random(), 2)),
        "job": rng.choice(known.jobs).lower(), "company": rng.choice(known.companies),
        "number": str(rng.randint(2, 400)), "year": str(rng.randint(1801, 2025)),
        "word": content.word(rng).capitalize(), "code": content.code(rng),
        "time": f"{rng.randint(5, 23)}:{rng.randint(0, 59):02d}",
        "day": rng.choice(("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")),
        "email": content.email(rng), "phone": content.phone(rng),
    }  # fmt: skip


def _article(context: Context) -> Page:
    """Title and author, then paragraphs with a gap between them."""
    text, sheet = _make(context), Sheet(context)
    sheet.title(text.title)
    sheet.row(f"by {text.author}")
    sheet.down(0.5)
    return _body(sheet, text, lambda _: "", gap=0.5)


def _report(context: Context) -> Page:
    """A centred title over a rule, paragraphs without gaps."""
    text, sheet = _make(context), Sheet(context)
    sheet.title(text.title, align="center", scale=1.3)
    sheet.row(text.author, align="center")
    sheet.rule()
    sheet.down(0.4)
    return _body(sheet, text, lambda _: "", gap=0.0)


def _numbered(context: Context) -> Page:
    """Paragraphs with numbers, the author at the end."""
    text, sheet = _make(context), Sheet(context)
    sheet.title(text.title, scale=1.2)
    return _body(sheet, text, lambda index: f"{index + 1}. ", gap=0.7, end=text.author)


def _body(sheet: Sheet, text: _Text, mark: Callable[[int], str], gap: float, end: str = "") -> Page:
    num = 0
    for index, paragraph in enumerate(text.paragraphs):
        if len(sheet.wrap(paragraph, sheet.width)) * sheet.pitch > 1150 - sheet.y:
            break
        sheet.paragraph(mark(index) + paragraph)
        sheet.down(gap)
        num += 1
    if end:
        sheet.row(end, align="right")
    return sheet.finish(_ask(sheet.context, text, num))


def _ask(context: Context, text: _Text, num_paragraphs: int) -> list[Question]:
    rng, spell = context.rng, context.style.body.spell
    truth = rng.random() < 0.5
    asked = text.author if truth else rng.choice(content.pools().names)
    told = [lookup(context, (spell(question),), answer) for question, answer in text.questions]
    return [
        *told,
        extraction(context, rng.choice(("title", "title of the text")), text.title),
        extraction(context, rng.choice(("author", "name of the author")), text.author),
        yes_no(f"Was the text written by {spell(asked)}?", asked == text.author),
        count_question(context, ("How many paragraphs are there?",), num_paragraphs),
    ]
