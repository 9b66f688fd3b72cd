"""From what a user names to a model that answers prompts."""

from __future__ import annotations

import json
from os import PathLike, fspath
from typing import Final

from alignvlm.errors import UsageError
from alignvlm.evaluation.models.base import EvaluatedModel
from alignvlm.evaluation.models.endpoint import Endpoint, is_address

__all__ = ["DEFAULT", "open_model"]

DEFAULT: Final = "default"
"""Names the model that the package ships."""

_DTYPES: Final = ("float32", "bfloat16", "float16")


def open_model(
    name: str | PathLike[str],
    *,
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int | None = None,
) -> EvaluatedModel:
    """A model to evaluate; everything but its weights is checked here.

    Args:
        name: a folder or Hub id of an AlignVLM model or of any image-text-to-text model of
            transformers, "default", or an OpenAI-compatible endpoint as `http://host:port/v1#model`.
        device: as in `alignvlm.inference.hardware.choose_device`; None: the fastest there is.
        dtype: "float32", "bfloat16" or "float16"; None: the one that `alignvlm ask` takes.
        batch_size: how many prompts are answered at once; None: 1 on the CPU, 8 on a GPU and for
            an endpoint.

    Raises:
        UsageError: an argument makes no sense, or this machine has no such device.
        WeightsError: there is no such model, or a file of it is missing or damaged.
        ConfigurationError: the model reads no images, or it is not clear how it is asked.
        MissingDependencyError: a package that the model needs is not installed.
    """
    called = fspath(name)
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"A batch of {batch_size} prompts is none: give 1 or more")
    if dtype is not None and dtype not in _DTYPES:
        raise UsageError(f"There is no number format {dtype!r}: choose one of {', '.join(_DTYPES)}")
    if is_address(called):
        if device is not None or dtype is not None:
            raise UsageError(
                f"{called} has its own device and number format: leave --device and --dtype out"
            )
        return Endpoint(called, batch_size=batch_size)
    from alignvlm.inference.loading import find_model

    folder = find_model(None if called == DEFAULT else called)
    if _model_type(folder / "config.json") == "alignvlm":
        from alignvlm.evaluation.models.own import OwnModel

        return OwnModel(called, folder, device=device, dtype=dtype, batch_size=batch_size)
    from alignvlm.evaluation.models.foreign import ForeignModel

    return ForeignModel(called, folder, device=device, dtype=dtype, batch_size=batch_size)


def _model_type(path: PathLike[str]) -> str | None:
    """What a configuration says it is of; None if it does not, which its reader complains of."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return None
    return found.get("model_type") if isinstance(found, dict) else None
