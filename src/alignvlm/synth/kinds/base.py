"""What every document kind shares: its drawing context, text helpers and phrased questions."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from alignvlm.synth import content
from alignvlm.synth.fonts import Font, Split, find_fonts, pick_font
from alignvlm.synth.page import Canvas, Color, Page, Question

__all__ = [
    "ASKS", "Context", "Style", "count_question", "extraction", "finish", "lookup", "new_context",
    "pick_template", "yes_no",
]  # fmt: skip

Template = Callable[["Context"], Page]


@dataclass(frozen=True, kw_only=True)
class Style:
    """How one page writes: its faces, sizes, colours, currency and dates.

    Attributes:
        body: face of the text.
        bold: face of headings and labels, of the same family where it has one.
        font_px: pixels per em of the text.
        ink: colour of the text.
        accent: colour of headings, rules and bars.
        currency: one of `content.CURRENCIES`.
        decimals: how sums are written, see `content.amount`.
        dates: one of `content.DATE_STYLES`.
    """

    body: Font
    bold: Font
    font_px: int
    ink: Color
    accent: Color
    currency: str
    decimals: str
    dates: str

    def money(self, value: float) -> str:
        """A sum in the page's currency."""
        text = content.amount(value, self.decimals)
        return f"{text} {self.currency}" if self.decimals == "." else f"{self.currency}{text}"


@dataclass(frozen=True)
class Context:
    """What a template draws with; everything random comes from `rng`."""

    rng: Random
    kind: str
    seed: int
    split: Split
    fonts: Sequence[Font]
    style: Style

    def day(self) -> datetime.date:
        """A random day between 2005 and 2030."""
        return datetime.date(2005, 1, 1) + datetime.timedelta(days=self.rng.randrange(9400))

    def date(self) -> str:
        """A random day, written as the page writes dates."""
        return self.written(self.day())

    def written(self, day: datetime.date) -> str:
        """A day as the page writes dates."""
        return content.write_date(day, self.style.dates)

    def canvas(self, width_px: int, height_px: int) -> Canvas:
        """A white sheet, drawn in double size half of the time."""
        return Canvas(width_px, height_px, scale=self.rng.choice((1, 2)))


_DARK = ((0, 0, 0), (0, 0, 0), (20, 20, 20), (40, 40, 60), (30, 30, 30))
_ACCENTS = ((0, 0, 0), (30, 60, 120), (130, 30, 40), (20, 90, 60), (90, 90, 90), (80, 40, 110))


def new_context(kind: str, seed: int, split: Split, font_px: tuple[int, int]) -> Context:
    """The context of one page: a pure function of its arguments and the fonts found."""
    rng = Random(f"{kind}/{split}/{seed}")
    fonts = find_fonts(split)
    body = pick_font(rng, fonts, upright_share=0.85, handwritten_share=0.01)
    decimals, currency = rng.choice(((",", "$"), (",", "£"), (",", "€"), (".", "€"), ("", "$")))
    style = Style(
        body=body,
        bold=_bold_of(body, fonts),
        font_px=rng.randint(*font_px),
        ink=rng.choice(_DARK),
        accent=rng.choice(_ACCENTS),
        currency=currency,
        decimals=decimals,
        dates=rng.choice(content.DATE_STYLES[:8]),
    )
    return Context(rng, kind, seed, split, fonts, style)


def _bold_of(body: Font, fonts: Sequence[Font]) -> Font:
    for font in fonts:
        if font.family == body.family and font.style in ("Bold", "Semibold", "Demi"):
            return font
    return body


def pick_template(context: Context, templates: Sequence[Template]) -> Template:
    """One of a kind's layouts; the last is held out: drawn for `split="heldout"` and only there."""
    held_out = context.split == "heldout"
    return templates[-1] if held_out else context.rng.choice(templates[:-1])


ASKS = (
    "What is the {}?",
    "What is the {}?",
    "What {} is given?",
    "Which {} is stated on the page?",
    "Give the {}.",
    "Find the {}.",
    "What does the document give as the {}?",
    "Please tell me the {}.",
)
"""Ways to ask for a value by its name."""


def extraction(context: Context, name: str, value: str) -> Question:
    """Asks for a value that stands on the page, by its name."""
    asked = context.rng.choice(ASKS).format(name)
    return Question(asked, (context.style.body.spell(value).strip(),), "extraction")


def lookup(context: Context, asks: Sequence[str], value: str, **names: str) -> Question:
    """Asks for a value found through another: `asks` are phrasings with fields for `names`."""
    asked = context.rng.choice(asks).format(**names)
    return Question(asked, (context.style.body.spell(value).strip(),), "lookup")


def count_question(context: Context, asks: Sequence[str], number: int) -> Question:
    """Asks how many; the answer is the number in digits, or spelled out if it is below ten."""
    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    answers = (str(number), words[number]) if number < len(words) else (str(number),)
    return Question(context.rng.choice(asks), answers, "count")


def yes_no(asked: str, truth: bool) -> Question:
    """Asks whether; the answer is Yes or No."""
    return Question(asked, ("Yes" if truth else "No",), "yes/no")


def finish(context: Context, canvas: Canvas, questions: Sequence[Question]) -> Page:
    """The page, with four to eight questions whose answers are really on it.

    A lookup or extraction whose answer was cut off, or is too long for its place, is dropped.
    """
    page = canvas.finish(context.kind, context.seed, context.style.body)
    text = " ".join(page.text.split())
    literal = ("extraction", "lookup")
    kept = [q for q in questions if q.kind not in literal or q.answers[0] in text]
    context.rng.shuffle(kept)
    unique = {q.question: q for q in kept}
    questions = tuple(list(unique.values())[: context.rng.randint(4, 8)])
    return Page(page.image, page.lines, questions, page.kind, page.seed, page.font)
