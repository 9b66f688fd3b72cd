"""A step's gradient is that of its supervised tokens, however they are spread over rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_vlm as tiny

from alignvlm.training.loop import train
from alignvlm.training.tracking import read_log

STEPS = 3


def logged(run: Path, **options: Any) -> list[tuple[float, float]]:
    """Loss and norm of the gradient of every step, as the loop itself logs them."""
    task = tiny.make_task(num_samples=8, **options)
    train(task, tiny.config(num_steps=STEPS, batch_size=8, clip_norm=1e9), run)
    return [(record["loss"], record["gradient_norm"]) for record in read_log(run)]


@pytest.fixture(scope="module")
def eight_rows(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[float, float]]:
    return logged(tmp_path_factory.mktemp("eight"), pack=False)


@pytest.mark.parametrize(
    "room", [{"max_tokens": 256}, {"max_tokens": 4096, "max_tiles": 99}], ids=["some", "one"]
)
def test_eight_rows_of_one_are_one_row_of_eight(
    room: dict[str, int], eight_rows: list[tuple[float, float]], tmp_path: Path
) -> None:
    """AdamW hides the scale of a gradient, so its norm is what is compared."""
    packed = logged(tmp_path, **room)
    assert len(packed) == STEPS
    for (loss, norm), (their_loss, their_norm) in zip(packed, eight_rows, strict=True):
        assert loss == pytest.approx(their_loss, rel=1e-5)
        assert norm == pytest.approx(their_norm, rel=1e-4)
