"""synthdoc: questions about pages that are drawn from a seed, with nothing to download."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import ClassVar, Final, final

from PIL import Image

from alignvlm.data.sample import ImageSource
from alignvlm.evaluation.benchmarks.record import Benchmark, Home, QuestionSet
from alignvlm.evaluation.question import Question
from alignvlm.synth import ALL_KINDS, Page, generate

__all__ = ["DrawnHome", "DrawnPage"]

_SPLIT: Final = "heldout"
_NUM_KEPT = 8  # pages in memory, about 6 MB each at most


@lru_cache(maxsize=_NUM_KEPT)
def _page(kind: str, seed: int, strength: float) -> Page:
    return generate(kind, seed, _SPLIT, strength)


@final
@dataclass(frozen=True)
class DrawnPage(ImageSource):
    """The picture of a page of the generator's held-out half; it is drawn when it is needed."""

    kind: str
    seed: int
    strength: float

    @property
    def name(self) -> str:
        """What it is drawn from."""
        return f"{_SPLIT}/{self.kind}/{self.seed}"

    @property
    def page(self) -> Page:
        """The page, with its questions."""
        return _page(self.kind, self.seed, self.strength)

    def size(self) -> tuple[int, int]:
        """See `ImageSource.size`."""
        return self.page.image.size

    def load(self) -> Image.Image:
        """See `ImageSource.load`."""
        return self.page.image


@dataclass(frozen=True, kw_only=True)
class DrawnHome(Home):
    """The page generator.

    Attributes:
        num_pages: how many pages, each with one question.
        seed: of the first page of each kind; the next ones follow, as in `alignvlm measure`.
        strength: of blur, noise and the like, from 0 to 1.
    """

    kind: ClassVar[str] = "drawn"

    num_pages: int
    seed: int = 0
    strength: float = 0.5

    def find(self, place: Path) -> Path | None:
        """See `Home.find`; there are no files."""
        return None

    def open(self, benchmark: Benchmark, place: Path) -> QuestionSet:
        """See `Home.open`."""
        return _DrawnQuestions(benchmark, self)

    @property
    def remedy(self) -> str:
        """See `Home.remedy`."""
        return "leave the path out, pages are drawn"


@final
class _DrawnQuestions(QuestionSet):
    """One question about each page, the kinds in turn."""

    def __init__(self, benchmark: Benchmark, options: DrawnHome) -> None:
        self.benchmark, self.home, self.where = benchmark, options.kind, ""
        self._options = options

    @property
    def digest(self) -> str:
        """See `QuestionSet.digest`."""
        options = self._options
        kinds = ", ".join(ALL_KINDS)
        return f"{_SPLIT}, seed {options.seed}, strength {options.strength:g}, kinds {kinds}"

    def __len__(self) -> int:
        return self._options.num_pages

    def question(self, index: int) -> Question:
        """See `QuestionSet.question`; raises MissingDependencyError without faker or fonts."""
        turn, number = divmod(index, len(ALL_KINDS))
        seed = self._options.seed + turn
        image = DrawnPage(ALL_KINDS[number], seed, self._options.strength)
        asked = Random(f"question/{image.name}").choice(image.page.questions)
        return Question(
            id=image.name,
            text=asked.question,
            images=(image,),
            answers=list(asked.answers),
            measures=("anls",),
            group=image.kind,
        )
