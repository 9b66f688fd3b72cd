"""What is run: the paper's models at full size, and a model that a CPU runs in seconds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from transformers import LlamaConfig, SiglipVisionConfig

from alignvlm.errors import ConfigurationError
from alignvlm.model.configuration import AlignVLMConfig
from alignvlm.model.presets import PRESETS
from alignvlm.training.cost.architecture import SMOLLM2_135M

__all__ = ["Workload", "find_workload", "workload_names"]

_PREFIX = "alignvlm-"
_SMOL = "smol"

# SigLIP-base-patch16-384: 24 x 24 patches of 16 px.
_SIGLIP_BASE = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 384,
    "patch_size": 16,
    "vision_use_head": False,
}


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One model and what it is asked to do.

    Attributes:
        name: what it is called on the command line.
        config: encoder and language model; its connector is replaced by each one measured.
        num_tiles: T, tiles of a page.
        num_prompt_tokens: tokens of text beside the visual ones.
        num_new_tokens: tokens generated for a page.
        num_samples: pages that are timed, after a warm-up.
    """

    name: str
    config: AlignVLMConfig
    num_tiles: int
    num_new_tokens: int
    num_samples: int
    num_prompt_tokens: int = 32

    @property
    def vision_dim(self) -> int:
        """Width d of the vision features."""
        vision: Any = self.config.vision_config
        return int(vision.hidden_size)

    @property
    def text_dim(self) -> int:
        """Width D of the language model."""
        text: Any = self.config.text_config
        return int(text.hidden_size)

    @property
    def vocab_size(self) -> int:
        """V of the language model."""
        text: Any = self.config.text_config
        return int(text.vocab_size)


def workload_names() -> tuple[str, ...]:
    """Names that `find_workload` knows."""
    return (_SMOL, *(name.removeprefix(_PREFIX) for name in PRESETS))


def find_workload(
    name: str, *, num_samples: int | None = None, num_tiles: int | None = None
) -> Workload:
    """The workload of a name, with other numbers of samples and tiles if they are given.

    A paper's model reads pages of 9 tiles, the paper's most, and writes 19 tokens: in every row of
    Table 7 that is the average time times the tokens a second. "smol" reads one tile and writes 8
    tokens.

    Raises:
        ConfigurationError: there is no workload of this name.
    """
    if name not in workload_names():
        raise ConfigurationError(
            f"There is no preset {name!r} to measure: choose one of {', '.join(workload_names())}"
        )
    if name == _SMOL:
        config = AlignVLMConfig(
            vision_config=SiglipVisionConfig(**_SIGLIP_BASE),
            text_config=LlamaConfig(**SMOLLM2_135M),
        )
        chosen = Workload(name=name, config=config, num_tiles=1, num_new_tokens=8, num_samples=3)
    else:
        config = PRESETS[_PREFIX + name].config()
        chosen = Workload(name=name, config=config, num_tiles=9, num_new_tokens=19, num_samples=20)
    return replace(
        chosen,
        num_samples=num_samples or chosen.num_samples,
        num_tiles=num_tiles or chosen.num_tiles,
    )
