"""Fonts for the tests of the page generator.

On a machine without fonts the training split is the one face that Pillow carries, and tests that
need held-out fonts are skipped.
"""

from __future__ import annotations

import pytest
from PIL import ImageFont

from alignvlm.errors import MissingDependencyError
from alignvlm.synth import fonts as fonts_module
from alignvlm.synth.fonts import Font, find_fonts


@pytest.fixture(scope="session")
def fonts(tmp_path_factory: pytest.TempPathFactory) -> list[Font]:
    """Faces of the training split."""
    try:
        return find_fonts("train")
    except MissingDependencyError:
        folder = tmp_path_factory.mktemp("fonts")
        face = ImageFont.load_default(20)
        assert isinstance(face, ImageFont.FreeTypeFont)
        (folder / "face.ttf").write_bytes(face.font_bytes)
        fonts_module._SYSTEM_FOLDERS = (str(folder),)
        fonts_module._usable.cache_clear()
        return find_fonts("train")


@pytest.fixture(scope="session")
def heldout_fonts() -> list[Font]:
    """Faces of the held-out split."""
    try:
        return find_fonts("heldout")
    except MissingDependencyError:
        pytest.skip("no held-out fonts on this machine: bash scripts/get_fonts.sh")
