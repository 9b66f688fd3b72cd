"""Pages by the seed: one page, an endless stream of pages, or a data set in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random

from alignvlm.errors import ConfigurationError
from alignvlm.synth.degrade import degrade
from alignvlm.synth.fonts import Split
from alignvlm.synth.kinds import (
    chart,
    easy,
    form,
    invoice,
    letter,
    note,
    receipt,
    statement,
    table,
    text,
)
from alignvlm.synth.page import Page

__all__ = ["ALL_KINDS", "KINDS", "generate", "stream"]

_DRAW: dict[str, Callable[[int, Split], Page]] = {
    "easy": easy.draw,
    "invoice": invoice.draw,
    "receipt": receipt.draw,
    "form": form.draw,
    "letter": letter.draw,
    "statement": statement.draw,
    "table": table.draw,
    "chart": chart.draw,
    "text": text.draw,
    "note": note.draw,
}
ALL_KINDS: tuple[str, ...] = tuple(_DRAW)
"""Every kind that can be asked for by its name."""
KINDS: tuple[str, ...] = tuple(kind for kind in _DRAW if kind != "note")
"""The document kinds: what is drawn, trained on and measured where no kind is named."""


def generate(kind: str, seed: int, split: Split = "train", strength: float = 0.5) -> Page:
    """One page with questions: the same for the same arguments, fonts and version of faker.

    Args:
        kind: one of `ALL_KINDS`.
        seed: any integer; the two splits make different pages of it.
        split: `"train"`, or `"heldout"` for fonts and layouts that training never sees.
        strength: of the degradations: 0 for a clean page, 1 for a mediocre scan at worst.

    Raises:
        ConfigurationError: there is no such kind.
        MissingDependencyError: faker or every font is missing.
    """
    if kind not in _DRAW:
        raise ConfigurationError(f"There is no document kind {kind!r}: use {', '.join(ALL_KINDS)}")
    page = _DRAW[kind](seed, split)
    return degrade(page, Random(f"degrade/{kind}/{split}/{seed}"), strength)


def stream(
    kinds: Sequence[str], seed: int, split: Split = "train", strength: float = 0.5
) -> Iterator[Page]:
    """Endless pages of `kinds` in turn; page i is `generate` with seed `seed + i`."""
    index = 0
    while True:
        yield generate(kinds[index % len(kinds)], seed + index, split, strength)
        index += 1
