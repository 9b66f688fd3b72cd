"""Image-text-to-text models of other makers, as transformers loads them and their processors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any

from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, PreTrainedModel, ProcessorMixin

from alignvlm.errors import MissingDependencyError, WeightsError
from alignvlm.imaging.sources import quoted
from alignvlm.model.compat import BREAK_MARK, quiet

__all__ = ["begins_with_bos", "load_foreign_model", "load_foreign_part", "process", "reason"]

_LOADING_ERRORS = (
    OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError,
)  # fmt: skip


def load_foreign_part(
    loader: Any, source: str | PathLike[str], what: str, *, name: str | None = None, **options: Any
) -> Any:
    """A part of a model: configuration, processor or weights.

    Code that comes with the files is never run; a model that needs it is refused.

    Args:
        loader: of transformers, e.g. `AutoConfig`.
        source: folder or Hub id.
        what: the files that it reads, for the message.
        name: of the model, for messages; None: `source`.
        options: of `loader.from_pretrained`.

    Raises:
        WeightsError: it cannot be loaded.
        MissingDependencyError: a package is needed for it.
    """
    name = quoted(name or fspath(source))
    try:
        with quiet():
            return loader.from_pretrained(source, trust_remote_code=False, **options)
    except ImportError as error:
        needed = re.findall(r"requires the (\w+) library", str(error))
        package = needed[0].lower() if needed else error.name or "it needs"
        raise MissingDependencyError(package, f"load {name}") from error
    except _LOADING_ERRORS as error:
        raise WeightsError(
            f"No image-text-to-text model can be loaded from {name} "
            f"({type(error).__name__}{reason(error)}): its {what} must be whole and of a kind "
            "that this version of transformers knows"
        ) from error


def load_foreign_model(
    source: str | PathLike[str], *, name: str | None = None, **options: Any
) -> PreTrainedModel:
    """A whole model of `AutoModelForImageTextToText`, from safetensors alone.

    Args:
        source: folder or Hub id.
        name: of the model, for messages; None: `source`.
        options: of `from_pretrained`, e.g. `dtype`.

    Raises:
        WeightsError: weights are missing or damaged.
        MissingDependencyError: a package is needed for it.
    """
    model, found = load_foreign_part(
        AutoModelForImageTextToText, source, "weights (*.safetensors)", name=name,
        use_safetensors=True, output_loading_info=True, **options,
    )  # fmt: skip
    # A tensor that is not there would be drawn at random, without a word.
    if missing := sorted(found["missing_keys"]):
        raise WeightsError(
            f"The weights in {quoted(name or fspath(source))} lack {len(missing)} tensors of the "
            f"model (first: {missing[0]}): save or download it again"
        )
    whole: PreTrainedModel = model
    return whole


def process(
    processor: ProcessorMixin,
    texts: list[str],
    images: Sequence[Sequence[Any]],
    **options: Any,
) -> Any:
    """The model's inputs, as the processor's own `apply_chat_template` asks for them.

    Args:
        processor: of the model.
        texts: finished prompts; all begin with the start token or none does, and all hold marks
            of `alignvlm.model.chat.defuse` or none does.
        images: of each text, equally many.
        options: of the processor, e.g. `padding`.
    """
    tokenizer = processor.tokenizer
    options["return_tensors"] = "pt"
    if BREAK_MARK in texts[0]:
        options["sanitize_control_tokens"] = True
        # Marks can be dropped only where the text holds all special tokens itself.
        adds_bos = tokenizer.bos_token and tokenizer("")["input_ids"] == [tokenizer.bos_token_id]
        if adds_bos and not begins_with_bos(processor, texts[0]):
            texts = [tokenizer.bos_token + text for text in texts]
    if begins_with_bos(processor, texts[0]):
        options["add_special_tokens"] = False
    if images and images[0]:
        options["images"] = [list(some) for some in images]
    return processor(text=texts, **options)


def begins_with_bos(processor: ProcessorMixin, text: str) -> bool:
    """Whether a text writes the start token out, which the tokenizer must then not add."""
    bos = processor.tokenizer.bos_token
    return bool(bos) and text.startswith(bos)


def reason(error: Exception) -> str:
    """The first line of what a library says, short and without a full stop, behind a colon."""
    line = str(error).strip().partition("\n")[0][:120].rstrip(". ")
    return f": {line}" if line else ""
