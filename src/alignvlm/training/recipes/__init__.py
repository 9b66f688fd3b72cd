"""Recipes by name: functions that return a `RunConfig`, every value followed by where it is from.

A value's comment is the paper's words in quotes, with their place, or "not stated:" and why it was
chosen. Values that are not given are the defaults of `alignvlm.training.configuration`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from alignvlm.errors import ConfigurationError
from alignvlm.hints import did_you_mean
from alignvlm.training.configuration import RunConfig
from alignvlm.training.recipes import base_vlm, low_resource, one_card, paper, smol

__all__ = ["find", "names"]

Recipe = Callable[[], RunConfig]

_RECIPES: dict[str, Recipe] = {
    "llama-3.2-1b-stage1": paper.llama_3_2_1b_stage1,
    "llama-3.2-1b-stage2": paper.llama_3_2_1b_stage2,
    "llama-3.2-1b-stage3": paper.llama_3_2_1b_stage3,
    "llama-3.2-3b-stage1": paper.llama_3_2_3b_stage1,
    "llama-3.2-3b-stage2": paper.llama_3_2_3b_stage2,
    "llama-3.2-3b-stage3": paper.llama_3_2_3b_stage3,
    "llama-3.1-8b-stage1": paper.llama_3_1_8b_stage1,
    "llama-3.1-8b-stage2": paper.llama_3_1_8b_stage2,
    "llama-3.1-8b-stage3": paper.llama_3_1_8b_stage3,
    "llama-3.2-3b-vcr": paper.llama_3_2_3b_vcr,
    "low-resource-pretrain": low_resource.pretrain,
    "low-resource-finetune": low_resource.finetune,
    "base-vlm-stage2": base_vlm.stage2,
    "base-vlm-stage3": base_vlm.stage3,
    "llama-3.2-3b-lora": one_card.llama_3_2_3b_lora,
    "llama-3.2-3b-qlora": one_card.llama_3_2_3b_qlora,
    "smol": smol.smol,
}


def names() -> tuple[str, ...]:
    """Names that `find` knows."""
    return tuple(_RECIPES)


def find(name: str, others: Iterable[str] = ()) -> Recipe:
    """The recipe of this name: call it for its `RunConfig`.

    Args:
        name: one of `names()`.
        others: what the caller takes besides, to be named where there is no such recipe.

    Raises:
        ConfigurationError: there is none; the message names the nearest.
    """
    if name not in _RECIPES:
        known = [*others, *_RECIPES]
        raise ConfigurationError(
            f"There is no recipe {name!r}{did_you_mean(name, known)}: use one of {', '.join(known)}"
        )
    return _RECIPES[name]
