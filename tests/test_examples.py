from __future__ import annotations

import runpy
from pathlib import Path

from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_invoice_is_a_small_page() -> None:
    path = EXAMPLES / "invoice.png"
    assert path.stat().st_size < 100_000
    with Image.open(path) as image:
        assert (image.format, image.size) == ("PNG", (800, 1000))


def test_the_script_draws_the_committed_page() -> None:
    """Compared at a tenth of the size, where it matters little which face drew the letters."""
    script = runpy.run_path(str(EXAMPLES / "make_invoice.py"))
    with Image.open(EXAMPLES / "invoice.png") as image:
        committed = image.convert("L").reduce(10).tobytes()
    drawn = script["draw_invoice"]().convert("L").reduce(10).tobytes()
    differences = [abs(a - b) for a, b in zip(committed, drawn, strict=True)]
    assert sum(differences) / len(differences) < 5  # another face: 3.8, a blank page: 8.1


def test_money_is_dollars_and_cents() -> None:
    money = runpy.run_path(str(EXAMPLES / "make_invoice.py"))["money"]
    assert [money(5), money(4_225), money(123_456_700)] == ["$0.05", "$42.25", "$1,234,567.00"]
