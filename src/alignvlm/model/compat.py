"""The one place that imports what transformers does not promise to keep.

Everything else in the package uses the documented names of transformers 5.x. When a release moves
one of these, only this module changes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import SubConfigSpec
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import make_flat_list_of_images
from transformers.initialization import no_init_weights
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    MODEL_MAPPING,
)
from transformers.processing_utils import MultiModalData
from transformers.utils import cached_file
from transformers.utils.chat_template_utils import _CONTROL_TOKEN_END, _CONTROL_TOKEN_START
from transformers.utils.generic import can_return_tuple

__all__ = [
    "BREAK_MARK",
    "MARKS",
    "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "BaseImageProcessor",
    "GradientCheckpointingLayer",
    "MultiModalData",
    "SubConfigSpec",
    "can_return_tuple",
    "local_folder",
    "make_flat_list_of_images",
    "model_class",
    "no_init_weights",
    "quiet",
    "sdpa_attention_forward",
    "sdpa_mask",
    "strict",
    "where_options",
]

MARKS = (_CONTROL_TOKEN_START, _CONTROL_TOKEN_END)
"""Private-use characters that tokenizers drop, and cut the text at, when they are called with
`sanitize_control_tokens=True`."""

BREAK_MARK = _CONTROL_TOKEN_START


def model_class(config: Any) -> type:
    """The headless model class for a configuration, as `AutoModel` would choose it."""
    return MODEL_MAPPING[type(config)]


def where_options(options: dict[str, Any]) -> dict[str, Any]:
    """Those options of `from_pretrained` that say where a model's files are."""
    names = ("revision", "token", "cache_dir", "local_files_only", "subfolder")
    return {name: options[name] for name in names if name in options}


def local_folder(source: str | PathLike[str], file_name: str, **where: Any) -> Path:
    """Where a file of a model lies on this machine; one from the Hub is fetched into the cache.

    `where` is what `where_options` gives. A file that is not to be had is looked for by the caller
    in the folder returned, and missed there.
    """
    try:
        path = cached_file(source, file_name, **where)
    except OSError:
        return Path(source, where.get("subfolder") or "")
    return Path(path).parent


@contextmanager
def quiet() -> Iterator[None]:
    """Hide transformers' bars and reports and the Hub client's: what goes wrong is raised."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging as transformers_logging

    bar = transformers_logging.is_progress_bar_enabled()
    verbosity = transformers_logging.get_verbosity()
    hub_verbosity = hub_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity(logging.CRITICAL)
    hub_logging.set_verbosity(logging.CRITICAL)  # e.g. each try to reach it without a network
    try:
        yield
    finally:
        hub_logging.set_verbosity(hub_verbosity)
        transformers_logging.set_verbosity(verbosity)
        if bar:
            transformers_logging.enable_progress_bar()
