"""Fonts for the tests that draw pages; without any on the machine these are skipped."""

from __future__ import annotations

import pytest

from alignvlm.errors import MissingDependencyError
from alignvlm.synth import Font, find_fonts


@pytest.fixture(scope="session")
def fonts() -> list[Font]:
    """Faces of the training split."""
    try:
        return find_fonts("train")
    except MissingDependencyError:
        pytest.skip("no fonts on this machine: bash scripts/get_fonts.sh")
