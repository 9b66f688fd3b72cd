"""`--set a.b=c`: one field of a run's configuration from text, and whole configurations as JSON.

What a value may be is read off the annotations of the dataclasses; nothing is evaluated.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from alignvlm.errors import ConfigurationError
from alignvlm.hints import did_you_mean
from alignvlm.training.configuration import RunConfig
from alignvlm.training.schedule import TrainConfig

__all__ = ["apply", "describe", "from_json", "to_json"]

C = TypeVar("C", RunConfig, TrainConfig)

_NONE = ("none", "null")
_EXAMPLE = "write it as batches.num_samples=64"


def apply(config: C, settings: Iterable[str]) -> C:
    """The configuration with some fields changed, all at once.

    Args:
        config: what is changed.
        settings: "key=value" each, applied in their order. Keys are the names of fields joined by
            dots, parts of the data by number: "data.0.path"; the number after the last part adds
            one. Values are written plainly, without quotes: "none" for nothing, lists with commas.
            A name of another connector or source drops the options of the one before.

    Raises:
        ConfigurationError: a key is unknown, a value is of another type, or the result is no run.
    """
    content = _plain(config)
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ConfigurationError(f"{setting!r} sets nothing: {_EXAMPLE}")
        _set(content, type(config), key.split("."), [], text.strip())
    return _build(type(config), content, ())


def describe(config: RunConfig | TrainConfig) -> list[tuple[str, str]]:
    """Every setting as the key and the value that `apply` would take, in the order of fields."""
    return list(_lines(_plain(config), ()))


def to_json(config: RunConfig) -> str:
    """The whole configuration as JSON text."""
    return json.dumps(_plain(config), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str) -> RunConfig:
    """The configuration that `to_json` wrote.

    Raises:
        ConfigurationError: it is no JSON, a key is unknown or missing, or a value does not fit.
    """
    try:
        content = json.loads(text, parse_constant=str)
    except ValueError as error:
        raise ConfigurationError(
            f"The configuration is no JSON ({error}): write it again with the recipe's name"
        ) from error
    if not isinstance(content, dict):
        raise ConfigurationError(
            "The configuration is no JSON object: write it again with the recipe's name"
        )
    return _build(RunConfig, content, ())


def _plain(value: Any) -> Any:
    """Dataclasses and mappings as dicts, tuples as lists."""
    if dataclasses.is_dataclass(value):
        names = (field.name for field in dataclasses.fields(value))
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _lines(value: Any, path: tuple[str, ...]) -> Iterable[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _lines(item, (*path, name))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for number, item in enumerate(value):
            yield from _lines(item, (*path, str(number)))
    else:
        yield ".".join(path), _written(value)


def _written(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def _set(content: Any, hint: Any, keys: list[str], done: list[str], text: str) -> None:
    """Put `text` at `keys` of plain `content`, which is of type `hint` and lies at `done`."""
    name, rest, path = keys[0], keys[1:], [*done, keys[0]]
    inner = _inner_type(hint, name, content, path)
    if isinstance(content, list):
        place: Any = int(name)
        if place == len(content):
            content.append({})
    else:
        place = name
    if not rest:
        if path == ["model", "connector", "name"] and content.get("name") != text:
            content.clear()
        if path[0] == "data" and path[2:] == ["source"] and content.get("source") != text:
            content.pop("options", None)
        content[place] = _read(text, inner)
        return
    kind = _without_none(inner)
    if not (dataclasses.is_dataclass(kind) or _is_list(kind) or _is_mapping(kind) or kind is Any):
        raise ConfigurationError(
            f"{'.'.join(path)} is {_expected(inner)} and has nothing called {'.'.join(rest)!r}: "
            f"set {'.'.join(path)} itself"
        )
    if isinstance(content, dict) and content.get(place) is None:
        content[place] = {}
    if not isinstance(content[place], dict | list):
        raise ConfigurationError(
            f"{'.'.join(path)} is {_written(content[place])} and has nothing called "
            f"{'.'.join(rest)!r}: set {'.'.join(path)} itself"
        )
    _set(content[place], kind, rest, path, text)


def _inner_type(hint: Any, name: str, content: Any, path: list[str]) -> Any:
    """The type of what is called `name` in a `hint`."""
    if dataclasses.is_dataclass(hint):
        hints = get_type_hints(hint)
        if name not in hints:
            raise _unknown(path[:-1], name, hints)
        return hints[name]
    if isinstance(content, list):
        if not (name.isdecimal() and int(name) <= len(content)):
            where = ".".join(path[:-1])
            raise ConfigurationError(
                f"{where} has {len(content)} parts, counted from 0, and no {name!r}: set "
                f"{where}.0, or {where}.{len(content)} to add one"
            )
        return get_args(hint)[0] if get_args(hint) else Any
    return get_args(hint)[1] if _is_mapping(hint) and get_args(hint) else Any


def _unknown(path: Iterable[str], name: str, known: Iterable[str]) -> ConfigurationError:
    known, where = list(known), "".join(f"{part}." for part in path)
    meant = did_you_mean(name, known, prefix=where)
    there = f"{where.rstrip('.')} has" if where else "a run has"
    return ConfigurationError(
        f"There is no setting {where}{name}{meant}: {there} {', '.join(known)}"
    )


def _read(text: str, hint: Any) -> Any:
    """Text of the command line as plain content; whether it fits is checked when it is built."""
    if NoneType in _alternatives(hint) and text.lower() in _NONE:
        return None
    kind = _without_none(hint)
    if kind is str or get_origin(kind) is Literal:
        return text
    if _is_list(kind) and not text.startswith("["):
        item = get_args(kind)[0]
        return [_read(part.strip(), item) for part in text.split(",") if part.strip()]
    return _number_or_text(text) if kind is float else _json_or_text(text)


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=str)
    except ValueError:
        return {"none": None, "true": True, "false": False}.get(text.lower(), text)


def _number_or_text(text: str) -> float | str:
    """.5 or 1_000.0 as Python reads them, which JSON does not allow; else the text."""
    try:
        return float(text)
    except ValueError:
        return text


def _build(hint: Any, content: Any, path: tuple[str, ...]) -> Any:
    """Plain content as what `hint` says."""
    if content is None and NoneType in _alternatives(hint):
        return None
    kind = _without_none(hint)
    if dataclasses.is_dataclass(kind):
        return _build_fields(kind, content, path)
    if _is_mapping(kind) and isinstance(content, dict):
        return dict(content)
    if _is_list(kind) and isinstance(content, list):
        arguments = get_args(kind)
        if arguments[-1] is Ellipsis or len(arguments) == len(content):
            hints = [arguments[0]] * len(content) if arguments[-1] is Ellipsis else arguments
            pairs = enumerate(zip(hints, content, strict=True))
            return tuple(_build(of, item, (*path, str(i))) for i, (of, item) in pairs)
    if _fits(kind, content):
        return float(content) if kind is float else content
    raise ConfigurationError(
        f"{'.'.join(path)} is {_expected(hint)}, not {_written(content)!r}{_close(kind, content)}"
    )


def _build_fields(kind: Any, content: Any, path: tuple[str, ...]) -> Any:
    where = ".".join(path) or "The configuration"
    if not isinstance(content, dict):
        raise ConfigurationError(
            f"{where} is a group of settings, not {_written(content)!r}: set one of them, e.g. "
            f"{'.'.join((*path, dataclasses.fields(kind)[0].name))}"
        )
    hints = get_type_hints(kind)
    given = {}
    for name, item in content.items():
        if name not in hints:
            raise _unknown(path, name, hints)
        given[name] = _build(hints[name], item, (*path, name))
    for field in dataclasses.fields(kind):
        has_default = field.default is not field.default_factory  # one of them is not MISSING
        if field.name not in given and not has_default:
            raise ConfigurationError(f"{where} lacks {field.name}: set it too")
    return kind(**given)


def _fits(kind: Any, value: Any) -> bool:
    if kind is Any:
        return True
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and not math.isnan(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(kind, type) and isinstance(value, kind)


def _close(kind: Any, value: Any) -> str:
    if get_origin(kind) is not Literal:
        return ""
    return did_you_mean(value, map(str, get_args(kind)))


def _expected(hint: Any) -> str:
    """What a value has to be, in words."""
    kind = _without_none(hint)
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    if get_origin(kind) is Literal:
        text = f"one of {', '.join(str(choice) for choice in get_args(kind))}"
    elif dataclasses.is_dataclass(kind):
        text = "a group of settings"
    elif _is_list(kind):
        arguments = get_args(kind)
        item = {int: "whole numbers", float: "numbers", str: "names"}.get(arguments[0], "parts")
        number = "" if arguments[-1] is Ellipsis else f"{len(arguments)} "
        text = f"a list of {number}{item} with commas between them"
    elif _is_mapping(kind):
        text = "a group of settings with any names"
    else:
        text = words.get(kind, "any value")
    return f"{text} or none" if NoneType in _alternatives(hint) else text


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _without_none(hint: Any) -> Any:
    """The one type beside None; no setting has several."""
    return next(kind for kind in _alternatives(hint) if kind is not NoneType)


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is tuple


def _is_mapping(kind: Any) -> bool:
    return get_origin(kind) is Mapping
