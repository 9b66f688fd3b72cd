"""Every kind of source by name, and how one is opened."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Final, get_args, get_origin, get_type_hints

from alignvlm.data.formats.base import Format
from alignvlm.data.formats.bigdocs import BigDocs
from alignvlm.data.formats.captions import Cc12m
from alignvlm.data.formats.columns import Columns
from alignvlm.data.formats.documents import DocDownstream, Vcr
from alignvlm.data.formats.llava import Llava, LlavaNext, LlavaPretrain
from alignvlm.data.formats.messages import Messages
from alignvlm.data.formats.synth import Synth
from alignvlm.data.formats.turns import Cauldron, FineVision
from alignvlm.data.rows.base import BadRowError, Row, Rows
from alignvlm.data.rows.find import open_rows
from alignvlm.data.sample import DataSource
from alignvlm.errors import ConfigurationError, InputError
from alignvlm.hints import did_you_mean
from alignvlm.imaging.sources import quoted

__all__ = ["SOURCES", "guess_source", "open_source"]

SOURCES: Final[Mapping[str, type[Format]]] = MappingProxyType(
    {
        "messages": Messages,
        "llava": Llava,
        "llava_pretrain": LlavaPretrain,
        "llava_next": LlavaNext,
        "cc12m": Cc12m,
        "bigdocs": BigDocs,
        "docdownstream": DocDownstream,
        "vcr": Vcr,
        "cauldron": Cauldron,
        "finevision": FineVision,
        "hf": Columns,
        "synth": Synth,
    }
)
"""The formats; the fields of a class are the options of its source."""

_NUM_TRIED: Final = 20
# A format is guessed by the fields of a first row: all of these.
_SIGNS: Final = (
    ("finevision", {"texts", "relevance_ratings"}),
    ("cauldron", {"texts"}),
    ("vcr", {"stacked_image", "crossed_text"}),
    ("docdownstream", {"messages", "task_name", "dataset_name"}),
    ("messages", {"messages"}),
    ("messages", {"response"}),
    ("llava_next", {"conversations", "data_source"}),
    ("llava", {"conversations"}),
    ("bigdocs", {"sample_id"}),
    ("bigdocs", {"annotations"}),
    ("hf", {"image", "question", "answer"}),
    ("cc12m", {"__key__"}),
)


def open_source(
    name: str, path: str | None = None, options: Mapping[str, Any] | None = None
) -> DataSource:
    """A source of samples.

    Args:
        name: a key of `SOURCES`.
        path: a file, a folder or a pattern with `*`; the page generator has none.
        options: fields of `SOURCES[name]`.

    Raises:
        ConfigurationError: there is no such source or option, or an option's value is wrong.
        InputError: a file is missing or damaged.
        MissingDependencyError: a package is needed and not installed.
    """
    if name not in SOURCES:
        raise ConfigurationError(
            f"There is no data source {name!r}{did_you_mean(name, SOURCES)}: use one of "
            f"{', '.join(SOURCES)}"
        )
    form = SOURCES[name]
    return form(**_checked(name, form, options or {})).open(name, path)


def guess_source(path: str) -> str:
    """The name of the source that fits files, by their first row.

    Raises:
        InputError: none does, or the files cannot be read.
    """
    found = _first_row(open_rows(path))
    for name, signs in _SIGNS:
        if signs <= found.keys():
            return name
    listed = ", ".join(sorted(map(str, found))[:12]) or "no row that can be read"
    raise InputError(
        f"{quoted(path)} has no fields of a known source ({listed}): name one of "
        f"{', '.join(SOURCES)}"
    )


def _first_row(rows: Rows) -> Row:
    """The first of the first rows that can be read; nothing if none can."""
    for index in range(min(len(rows), _NUM_TRIED)):
        with suppress(BadRowError):
            return rows.row(index)
    return {}


def _checked(name: str, form: type[Format], options: Mapping[str, Any]) -> dict[str, Any]:
    known = get_type_hints(form)
    names = [option.name for option in fields(form)]
    checked = {}
    for option, given in options.items():
        if option not in names:
            raise ConfigurationError(
                f"The data source {name!r} has no option {option!r}{did_you_mean(option, names)}: "
                f"use {', '.join(names)}"
            )
        value = tuple(given) if isinstance(given, list) else given
        if not _is_a(value, known[option]):
            raise ConfigurationError(
                f"The option {option!r} of the data source {name!r} cannot be {value!r}: give "
                f"{_described(known[option])}"
            )
        checked[option] = value
    return checked


def _is_a(value: Any, kind: Any) -> bool:
    if isinstance(kind, UnionType):
        return any(_is_a(value, part) for part in get_args(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(isinstance(part, str) for part in value)
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _described(kind: Any) -> str:
    if isinstance(kind, UnionType):
        return " or ".join(_described(part) for part in get_args(kind))
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    return "nothing" if kind is NoneType else names.get(kind, "a list of texts")
