"""What the tests train, importable by name, and fonts for those that draw pages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from alignvlm.errors import MissingDependencyError
from alignvlm.synth import Font, find_fonts

# By their paths other processes find them too.
sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="session")
def fonts() -> list[Font]:
    """Faces of the training split."""
    try:
        return find_fonts("train")
    except MissingDependencyError:
        pytest.skip("no fonts on this machine: bash scripts/get_fonts.sh")
