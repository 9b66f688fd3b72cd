"""Connectors by name: the package's own, and those that other packages bring.

Another package adds a connector through the entry-point group `alignvlm.connectors`, whose values
are `Connector` classes; nothing of it is imported before its name is asked for. A script adds one
with `register`. Names are exact, and the package's own names cannot be taken.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points

from alignvlm.connectors.align import Align
from alignvlm.connectors.base import Connector
from alignvlm.connectors.c_abstractor import CAbstractor
from alignvlm.connectors.h_reducer import HReducer
from alignvlm.connectors.linear import Linear
from alignvlm.connectors.mlp import MLP
from alignvlm.connectors.mlp_norm import MLPNorm
from alignvlm.connectors.ovis import Ovis
from alignvlm.connectors.perceiver import Perceiver
from alignvlm.connectors.pixel_shuffle import PixelShuffle
from alignvlm.errors import ConfigurationError
from alignvlm.hints import did_you_mean

__all__ = ["ENTRY_POINT_GROUP", "available", "build", "register"]

ENTRY_POINT_GROUP = "alignvlm.connectors"

_classes: dict[str, type[Connector]] = {
    "align": Align,
    "c_abstractor": CAbstractor,
    "h_reducer": HReducer,
    "linear": Linear,
    "mlp": MLP,
    "mlp_norm": MLPNorm,
    "ovis": Ovis,
    "perceiver": Perceiver,
    "pixel_shuffle": PixelShuffle,
}


def available() -> tuple[str, ...]:
    """Names that `build` knows, sorted; entry points are listed without being imported."""
    return tuple(sorted({*_classes, *_entry_points()}))


def register(name: str, cls: type[Connector]) -> None:
    """Makes `build(name, ...)` return a `cls`; saying the same twice is allowed.

    Raises:
        ConfigurationError: the name belongs to another connector or is no lower-case identifier,
            or the class is no concrete `Connector`.
    """
    if not (name.isidentifier() and name == name.lower()):
        raise ConfigurationError(
            f"A connector cannot be registered as {name!r}: use a lower-case identifier like "
            "'my_connector'"
        )
    _check_class(name, cls)
    if _classes.get(name, cls) is not cls or name in _entry_points():
        raise ConfigurationError(
            f"The connector name {name!r} is taken: register {cls.__name__} under another one"
        )
    _classes[name] = cls


def build(
    name: str,
    *,
    vision_dim: int,
    text_dim: int,
    vocab_size: int | None = None,
    **options: object,
) -> Connector:
    """Builds a connector with fresh parameters.

    Args:
        name: one of `available()`.
        vision_dim: width d of the vision features.
        text_dim: width D of the LLM's embeddings.
        vocab_size: V, rows of the LLM's head; ignored by connectors that have no use for it, so
            that one call fits all.
        options: what else the class takes, under the names of its constructor.

    Raises:
        ConfigurationError: the name or an option is unknown, a needed option is missing, or a
            value is out of range.
    """
    cls = _find(name)
    parameters = inspect.signature(cls).parameters
    _check_options(name, parameters, options)
    given: dict[str, object] = {"vision_dim": vision_dim, "text_dim": text_dim, **options}
    if "vocab_size" in parameters and vocab_size is not None:
        given["vocab_size"] = vocab_size
    _check_complete(name, parameters, given)
    return cls(**given)  # type: ignore[arg-type]  # checked against the signature above


def _check_options(
    name: str, parameters: Mapping[str, inspect.Parameter], options: Mapping[str, object]
) -> None:
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    known = sorted(set(parameters) - {"vision_dim", "text_dim", "vocab_size"})
    for option in options:
        if option not in known:
            raise ConfigurationError(
                f"The connector {name!r} has no option {option!r}{did_you_mean(option, known)}: it "
                f"takes {', '.join(known) if known else 'no options'}"
            )


def _check_complete(
    name: str, parameters: Mapping[str, inspect.Parameter], given: Mapping[str, object]
) -> None:
    for needed, parameter in parameters.items():
        variadic = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if parameter.default is parameter.empty and not variadic and needed not in given:
            raise ConfigurationError(
                f"The connector {name!r} needs {needed}: pass {needed}=... to build it"
            )


def _find(name: str) -> type[Connector]:
    if name in _classes:
        return _classes[name]
    found = _entry_points().get(name)
    if found is None:
        names = available()
        raise ConfigurationError(
            f"There is no connector {name!r}{did_you_mean(name, names)}: use one of "
            f"{', '.join(names)}"
        )
    try:
        cls: type[Connector] = found.load()
    except Exception as error:  # a stranger's module may fail in any way while it is imported
        raise ConfigurationError(
            f"The connector {name!r} of {found.value} cannot be loaded ({error}): repair or "
            "remove the package that brings it"
        ) from error
    _check_class(name, cls)
    return cls


def _entry_points() -> dict[str, EntryPoint]:
    return {p.name: p for p in entry_points(group=ENTRY_POINT_GROUP) if p.name not in _classes}


def _check_class(name: str, cls: object) -> None:
    concrete = inspect.isclass(cls) and issubclass(cls, Connector) and not inspect.isabstract(cls)
    if not concrete:
        raise ConfigurationError(
            f"The connector {name!r} is {cls!r}, which is no complete connector: derive a class "
            "from alignvlm.connectors.Connector and implement forward and flops"
        )
