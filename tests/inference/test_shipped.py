"""The default model as it is shipped: found and small enough; tests/test_readme.py asks it."""

from __future__ import annotations

from alignvlm.inference.default import SHIPPED_FOLDER, missing_files

MAX_SHIPPED_BYTES = 60_000_000


def test_everything_is_shipped_and_small() -> None:
    assert missing_files() == []
    assert (SHIPPED_FOLDER / "README.md").is_file()
    assert sum(file.stat().st_size for file in SHIPPED_FOLDER.iterdir()) <= MAX_SHIPPED_BYTES
