"""Fonts for the tests of the page generator; without any on the machine these tests are skipped."""

from __future__ import annotations

import pytest

from alignvlm.errors import MissingDependencyError
from alignvlm.synth.fonts import Font, find_fonts


@pytest.fixture(scope="session")
def fonts() -> list[Font]:
    """Faces of the training split."""
    return _fonts("train")


@pytest.fixture(scope="session")
def heldout_fonts() -> list[Font]:
    """Faces of the held-out split."""
    return _fonts("heldout")


def _fonts(split: str) -> list[Font]:
    try:
        return find_fonts("heldout" if split == "heldout" else "train")
    except MissingDependencyError:
        pytest.skip("no fonts on this machine: bash scripts/get_fonts.sh")
