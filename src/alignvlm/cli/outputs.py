"""What a command may write to, checked before it does any work."""

from __future__ import annotations

import os
from pathlib import Path

from alignvlm.errors import UsageError
from alignvlm.files import check_target

__all__ = ["check_output"]


def check_output(output: Path, file: str | Path, suffix: str) -> None:
    """Refuse an output that ends wrongly, cannot be written, or would replace the input.

    Args:
        output: the file to write.
        file: what the command reads; it need not be there.
        suffix: how the output's name has to end, e.g. ".html".

    Raises:
        UsageError: it is refused.
    """
    if output.suffix.lower() != suffix:
        raise UsageError(f"{str(output)!r} does not end in {suffix}: choose a name that does")
    check_target(output)
    # Links, and names that differ in case where the system takes them for one, count too.
    if os.path.exists(output) and os.path.exists(file) and os.path.samefile(output, file):
        raise UsageError(
            f"What is read, {str(file)!r}, would be replaced by {str(output)!r}: name another "
            "output by -o"
        )
