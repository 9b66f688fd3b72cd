"""Sources of one row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignvlm.data.sample import DataSource
from alignvlm.data.sources import open_source
from alignvlm.errors import InputError


@pytest.fixture
def one(tmp_path: Path, files: Any) -> Callable[..., DataSource]:
    """A source of one row, with images 0.png to 2.png beside its file."""

    def make(name: str, row: Any, **options: Any) -> DataSource:
        files.images(tmp_path)
        if name == "cc12m":
            path = files.tar(tmp_path / "row.tar", row)
        elif name in ("bigdocs", "vcr", "cauldron", "hf"):
            path = files.parquet(tmp_path / "row.parquet", [row])
        else:
            path = files.lines(tmp_path / "row.jsonl", [row])
        return open_source(name, str(path), options)

    return make


@pytest.fixture
def broken(one: Any) -> Callable[..., None]:
    def check(name: str, row: Any, reason: str, **options: Any) -> None:
        with pytest.raises(InputError, match=rf"^Row 1 of '.*/row\.\w+' .*{reason}") as caught:
            one(name, row, **options).read(0)
        assert ": " in str(caught.value)

    return check
