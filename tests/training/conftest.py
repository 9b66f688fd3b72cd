"""What the tests train, importable by name, and fonts for those that draw pages."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

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


def _load(name: str) -> None:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


for _name in ("tiny_task", "tiny_vlm", "foreign_vlm", "several"):
    _load(_name)
