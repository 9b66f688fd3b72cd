"""The default model as it is shipped: found, small enough, and it answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignvlm.errors import WeightsError
from alignvlm.inference.ask import Answer, ask
from alignvlm.inference.default import SHIPPED_FOLDER, ensure_default_model, missing_files

INVOICE = Path(__file__).parents[2] / "examples" / "invoice.png"
MAX_SHIPPED_BYTES = 60_000_000


@pytest.fixture(scope="module")
def default_model() -> Path:
    try:
        return ensure_default_model(progress=False)
    except WeightsError as error:
        pytest.skip(str(error))


def test_everything_is_shipped_and_small() -> None:
    assert missing_files() == []
    assert (SHIPPED_FOLDER / "README.md").is_file()
    assert sum(file.stat().st_size for file in SHIPPED_FOLDER.iterdir()) <= MAX_SHIPPED_BYTES


def test_the_default_model_answers_about_the_example(default_model: Path) -> None:
    """The README's question; characters may be misread, so the answer need only contain it."""
    answer = ask(INVOICE, "Who is the seller?", model=default_model)
    assert isinstance(answer, Answer)
    assert "Halden" in answer.text
    # 9 tiles are 41,472 cells; spelled, the page is a few hundred visual tokens.
    assert 100 < answer.num_visual_tokens < 500
