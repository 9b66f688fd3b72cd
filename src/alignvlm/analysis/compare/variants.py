"""What is compared: connectors at sizes that fit a small language model, and starts of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from alignvlm.connectors import available
from alignvlm.errors import ConfigurationError
from alignvlm.hints import did_you_mean
from alignvlm.training.configuration import ModelConfig

__all__ = ["GROUNDED", "OPTIONS", "check", "connector_of", "is_grounded", "options_of"]

GROUNDED: Final = "align+grounded"
"""ALIGN that has learned the token under each cell before the comparison's own training."""

OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "align": {
            "gain": 4.0,  # not stated: see the recipe `smol`
        },
        "perceiver": {
            "depth": 2,  # not stated: 44 M parameters at d = 1536; the default of 6 has 132 M
        },
        "ovis": {
            # not stated: 35 M parameters at d = 1536, as many as ALIGN's; the default has 138 M
            "visual_vocab_size": 16_384,
        },
    }
)
"""Options of connectors that are not their defaults, which are those of the published designs."""


def check(variants: Sequence[str], model: ModelConfig) -> None:
    """Raises a ConfigurationError unless each variant is known and fits a recipe's model."""
    if not variants:
        raise ConfigurationError("No connector is named: give --connectors at least one")
    known = [*available(), GROUNDED]
    for variant in variants:
        if variant not in known:
            raise ConfigurationError(
                f"There is no connector {variant!r} to compare{did_you_mean(variant, known)}: use "
                f"{', '.join(known)}"
            )
    twice = [variant for variant in set(variants) if variants.count(variant) > 1]
    if twice:
        raise ConfigurationError(f"The connector {twice[0]!r} is named twice: name it once")
    if model.pretrained is not None:
        raise ConfigurationError(
            f"model.pretrained={model.pretrained} comes with a connector of its own, and may "
            "condense what others do not: name model.vision and model.llm instead"
        )


def connector_of(variant: str) -> str:
    """The connector's name in the registry."""
    return variant.partition("+")[0]


def is_grounded(variant: str) -> bool:
    """Whether the connector learns the tokens under its cells first."""
    return variant == GROUNDED


def options_of(variant: str, recipe: ModelConfig) -> dict[str, Any]:
    """The connector with its options; those of the recipe where it names the same connector."""
    name = connector_of(variant)
    given = dict(recipe.connector) if recipe.connector["name"] == name else {}
    return {"name": name, **OPTIONS.get(name, {}), **given}
