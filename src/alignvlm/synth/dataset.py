"""Data sets of drawn pages in a folder."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from alignvlm.errors import ConfigurationError
from alignvlm.files import each_line, write_atomically
from alignvlm.synth.fonts import Split
from alignvlm.synth.generate import stream
from alignvlm.synth.page import Page

__all__ = ["record", "write_dataset"]


def write_dataset(
    folder: str | Path,
    kinds: Sequence[str],
    num_pages: int,
    seed: int = 0,
    split: Split = "train",
    strength: float = 0.5,
) -> Path:
    """Write pages as PNG files and one `pages.jsonl` that describes them.

    `pages.jsonl` appears last and whole; a folder without it is unfinished, and running again
    finishes it with the same bytes.

    Args:
        folder: where to write; made if it is missing.
        kinds: document kinds, taken in turn.
        num_pages: how many pages.
        seed: of the first page; each page has the next one.
        split: `"train"` or `"heldout"`.
        strength: of the degradations.

    Returns:
        The path of `pages.jsonl`. Each of its lines is what `record` says of a page.

    Raises:
        ConfigurationError: no kind is given, one is unknown, `num_pages` is not positive, or the
            folder's `pages.jsonl` describes other pages than drawn ones.
        MissingDependencyError: faker or every font is missing.
    """
    if num_pages < 1 or not kinds:
        raise ConfigurationError(
            f"A data set of {num_pages} pages of {len(kinds)} kinds cannot be written: ask for at "
            "least one page of one kind"
        )
    folder = Path(folder)
    index = folder / "pages.jsonl"
    _check_ours(index)
    rows = []
    pages = islice(stream(kinds, seed, split, strength), num_pages)
    for page in pages:
        name = f"{split}-{page.kind}-{page.seed:08d}.png"
        buffer = io.BytesIO()
        page.image.save(buffer, "PNG")
        write_atomically(folder / name, buffer.getvalue())
        rows.append(json.dumps(record(page, name), ensure_ascii=False))
    write_atomically(index, "\n".join(rows) + "\n")
    return index


def _check_ours(index: Path) -> None:
    """Refuse to replace a file that `write_dataset` has not written."""
    for row in islice(each_line(index), 1):
        if row is None or not {"image", "kind", "seed", "font"} <= row.keys():
            raise ConfigurationError(
                f"{str(index)!r} does not describe drawn pages and would be replaced: choose "
                "another folder"
            )


def record(page: Page, image: str) -> dict[str, object]:
    """A page as JSON values.

    Args:
        page: the page.
        image: file name of its picture, relative to the folder of the index.

    Returns:
        Fields image, kind, seed, font (family), text, lines (each with text, baseline_px, font_px,
        x_height_px, slope and boxes: x0, y0, x1, y1 in px of every character), questions (each
        with question, answers, kind), and messages with images: the same questions, each with its
        first answer, as a row to train on.
    """
    lines = [
        {
            "text": line.text,
            "baseline_px": round(line.baseline_px, 2),
            "font_px": line.font_px,
            "x_height_px": line.x_height_px,
            "slope": round(line.slope, 6),
            "boxes": [[round(v, 1) for v in (g.x0, g.y0, g.x1, g.y1)] for g in line.glyphs],
        }
        for line in page.lines
    ]
    questions = [
        {"question": q.question, "answers": list(q.answers), "kind": q.kind} for q in page.questions
    ]
    messages = []
    for number, q in enumerate(page.questions):
        place = "" if number else "<image>"
        messages.append({"role": "user", "content": place + q.question})
        messages.append({"role": "assistant", "content": q.answers[0]})
    return {
        "image": image, "kind": page.kind, "seed": page.seed, "font": page.font,
        "text": page.text, "lines": lines, "questions": questions,
        "images": [image], "messages": messages,
    }  # fmt: skip
