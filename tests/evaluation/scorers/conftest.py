"""How recorded results are compared with ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def near(found: Any, wanted: Any, tolerance: float) -> bool:
    """Equality, of numbers to a tolerance, inside lists and mappings too."""
    if isinstance(wanted, dict):
        return list(found) == list(wanted) and all(
            near(found[key], wanted[key], tolerance) for key in wanted
        )
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(
            near(one, other, tolerance) for one, other in zip(found, wanted, strict=True)
        )
    if isinstance(wanted, int | float) and isinstance(found, int | float):
        return abs(found - wanted) < tolerance
    return bool(found == wanted)


@pytest.fixture(scope="session")
def scorers_near() -> Callable[[Any, Any, float], bool]:
    return near
