"""From the path a user gives to the rows of the files it stands for."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from alignvlm.data.rows.base import Rows, SeveralRows
from alignvlm.data.rows.json_rows import json_array, json_lines
from alignvlm.data.rows.tables import ArrowRows, ParquetRows
from alignvlm.data.rows.tars import TarRows
from alignvlm.errors import InputError
from alignvlm.imaging.sources import quoted

__all__ = ["data_files", "open_rows"]

# In the order in which a folder is searched: what lies beside the first kind describes it.
_SUFFIXES = (".parquet", ".arrow", ".tar", ".jsonl", ".json")
_LINES = (".jsonl", ".ndjson")
_SPLITS = {"train": "train", "training": "train", "validation": "validation", "valid": "validation",
           "val": "validation", "dev": "validation", "test": "test"}  # fmt: skip
# Files that describe a data set and are none.
_DESCRIBES = re.compile(r"(dataset_infos?|dataset_dict|state|.*_meta)\.json")
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ", b"PK\x03\x04")


def open_rows(path: str | Path, split: str = "train", columns: Sequence[str] | None = None) -> Rows:
    """The rows of a file, of a folder of files, or of files that a pattern names.

    Args:
        path: a .jsonl, .json, .parquet, .arrow or .tar file, a folder with files of one of these
            kinds (the first in the order .parquet, .arrow, .tar, .jsonl, .json that it holds) or
            what `datasets` saved to disk, or a pattern with `*`.
        split: where names of files or folders tell splits apart, the one to read.
        columns: of tables, the only ones to read.

    Raises:
        InputError: there is no such file, or a file is damaged.
        MissingDependencyError: pyarrow is needed and not installed.
    """
    files = data_files(path, split)
    suffix = files[0].suffix.lower()
    openers: dict[str, Callable[[], Rows]] = {
        ".parquet": lambda: ParquetRows(files, columns),
        ".arrow": lambda: ArrowRows(files, columns),
        ".tar": lambda: TarRows(files),
    }
    if suffix in openers:
        return openers[suffix]()
    parts = [_open_json(file) for file in files]
    return parts[0] if len(parts) == 1 else SeveralRows(parts)


def data_files(path: str | Path, split: str = "train") -> list[Path]:
    """The files that `open_rows` reads, sorted by path.

    Raises:
        InputError: there are none, or it is not clear which are meant.
    """
    given = Path(path).expanduser()
    name = quoted(str(path))
    if given.is_file():
        return [given]
    if given.is_dir():
        files = _in_folder(given, split)
    else:
        files = [Path(file) for file in sorted(glob.glob(str(given))) if Path(file).is_file()]
    if not files:
        lacks = f"There is no file {name}"
        if given.is_dir():
            lacks = f"{name} holds no data file ({', '.join(_SUFFIXES)})"
        raise InputError(f"{lacks}: check the path, and that all is downloaded")
    kinds = {file.suffix.lower() for file in files}
    if len(kinds) > 1:
        raise InputError(
            f"{name} stands for files of several kinds ({', '.join(sorted(kinds))}): name those of "
            "one kind"
        )
    return files


def _in_folder(folder: Path, split: str) -> list[Path]:
    if (folder / "dataset_dict.json").is_file() and (folder / split).is_dir():
        folder = folder / split
    if saved := _saved_files(folder):
        return saved
    for suffix in _SUFFIXES:
        if files := _with_suffix(folder, suffix):
            chosen = _of_split(files, folder, split)
            if suffix.startswith(".json") and len(chosen) > 1:
                raise InputError(
                    f"{quoted(str(folder))} holds several {suffix} files, such as "
                    f"{chosen[0].name} and {chosen[1].name}: name the one to read"
                )
            return chosen
    return []


def _with_suffix(folder: Path, suffix: str) -> list[Path]:
    """Files in a folder, or if it has none in the folders in it, and so on."""
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith((".", "_")))
    files = [
        entry
        for entry in entries
        if entry.suffix.lower() == suffix and entry.is_file() and not _DESCRIBES.match(entry.name)
    ]
    folders = (entry for entry in entries if entry.is_dir())
    return files or [file for inner in folders for file in _with_suffix(inner, suffix)]


def _saved_files(folder: Path) -> list[Path]:
    """The files that `Dataset.save_to_disk` wrote, in its order."""
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        names = [entry["filename"] for entry in state["_data_files"]]
        files = [folder / Path(name).name for name in names]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return files if all(file.is_file() for file in files) else []


def _of_split(files: list[Path], folder: Path, split: str) -> list[Path]:
    """Those of a split, if names tell splits apart: test data must not slip into training."""
    splits = {file: _split_of(file.relative_to(folder)) for file in files}
    if not any(splits.values()):
        return files
    wanted = _SPLITS.get(split, split)
    return [file for file in files if splits[file] == wanted]


def _split_of(path: Path) -> str | None:
    for part in (path.stem, *reversed(path.parts[:-1])):
        for word in re.split(r"[-_.]", part.lower()):
            if word in _SPLITS:
                return _SPLITS[word]
    return None


def _open_json(path: Path) -> Rows:
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError as error:
        raise InputError(
            f"{quoted(str(path))} cannot be read ({error.strerror}): check its permissions"
        ) from error
    if head.startswith(_COMPRESSED):
        raise InputError(f"{quoted(str(path))} is compressed: unpack it, rows are read by place")
    is_list = head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    if is_list and path.suffix.lower() not in _LINES:
        return json_array(path)
    return json_lines(path)
