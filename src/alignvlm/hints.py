"""What may have been meant by a name that is none."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean"]


def did_you_mean(wrong: object, names: Iterable[str], prefix: str = "") -> str:
    """The name that may have been meant, to put behind the wrong one; "" if none is like it.

    `prefix` is what stands before all names.
    """
    close = difflib.get_close_matches(str(wrong), list(names), n=1)
    return f" (did you mean {prefix + close[0]!r}?)" if close else ""
