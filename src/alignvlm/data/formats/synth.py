"""Drawn pages as a source: a sample is a function of seed and number, nothing is on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from random import Random
from typing import Final, cast, final

from alignvlm.data.formats.base import Format
from alignvlm.data.formats.conversation import Conversation, Turn
from alignvlm.data.images import DrawnImage
from alignvlm.data.sample import DataSource, Sample
from alignvlm.errors import ConfigurationError
from alignvlm.synth import ALL_KINDS, KINDS, Page, Question, Split, find_fonts, generate

__all__ = ["ENDLESS", "DrawnPages", "Synth"]

ENDLESS: Final = 1 << 40
"""Number of samples of a source without end: more than any run can see."""


@dataclass(frozen=True, kw_only=True)
class Synth(Format):
    """The page generator.

    Attributes:
        kinds: document kinds, taken in turn; () for `alignvlm.synth.KINDS`.
        num_pages: how many samples; None for no end.
        seed: of the first page; page i has seed + i.
        split: "train", or "heldout" for fonts and layouts that training must not see.
        strength: of blur, noise and the like, from 0 to 1.
        one_question: a sample asks one of its page's questions, chosen by the seed; else all of
            them, as turns of one conversation.
    """

    kinds: tuple[str, ...] = ()
    num_pages: int | None = None
    seed: int = 0
    split: str = "train"
    strength: float = 0.5
    one_question: bool = False

    def __post_init__(self) -> None:
        if unknown := [kind for kind in self.kinds if kind not in ALL_KINDS]:
            raise ConfigurationError(
                f"There is no document kind {unknown[0]!r}: use {', '.join(ALL_KINDS)}"
            )
        if self.split not in ("train", "heldout"):
            raise ConfigurationError(
                f"There is no split {self.split!r} of drawn pages: use train or heldout"
            )
        if not 0 <= self.strength <= 1:
            raise ConfigurationError(f"strength is {self.strength}: give a number from 0 to 1")
        if self.num_pages is not None and self.num_pages < 1:
            raise ConfigurationError(f"num_pages is {self.num_pages}: ask for at least one page")

    def open(self, name: str, path: str | None) -> DataSource:
        """See `Format.open`."""
        if path:
            raise ConfigurationError(f"The source {name!r} draws its pages: leave its path out")
        return DrawnPages(name, self)


@final
class DrawnPages(DataSource):
    """Pages of the generator.

    Args:
        name: of the format.
        options: which pages.
    """

    def __init__(self, name: str, options: Synth) -> None:
        self.name = name
        self._options = options

    def __len__(self) -> int:
        return self._options.num_pages or ENDLESS

    def fingerprint(self) -> str:
        """See `DataSource.fingerprint`; pages are drawn in the fonts that are installed."""
        faces = find_fonts(cast(Split, self._options.split))
        names = "\n".join(f"{face.family}, {face.style}" for face in faces)
        return f"{len(faces)} fonts {sha256(names.encode()).hexdigest()[:12]}"

    def page(self, index: int) -> Page:
        """The page that sample `index` asks about, with its text and boxes."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        options = self._options
        kinds = options.kinds or KINDS
        split = cast(Split, options.split)
        return generate(kinds[index % len(kinds)], options.seed + index, split, options.strength)

    def read(self, index: int) -> Sample:
        """See `DataSource.read`; raises MissingDependencyError without faker or fonts."""
        page = self.page(index)
        key = f"{self._options.split}/{page.kind}/{page.seed}"
        questions: Sequence[Question] = page.questions
        if self._options.one_question:
            questions = [Random(f"question/{key}").choice(questions)]
        turns: list[Turn] = []
        for question in questions:
            turns.append(Turn("user", [question.question] if turns else [None, question.question]))
            turns.append(Turn("assistant", [question.answers[0]]))
        image = DrawnImage(page.image, key)
        return Sample(key=key, messages=Conversation(turns, [image]).messages(), images=[image])
