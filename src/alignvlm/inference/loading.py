"""From what a user names as the model to a loaded one: a folder, a Hub id, or the default.

A model that is on this machine is never asked for on the network.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alignvlm.errors import AlignVLMError, ConfigurationError, WeightsError
from alignvlm.imaging.sources import quoted
from alignvlm.weights.cache import MARKER, damaged_files

if TYPE_CHECKING:
    import torch

    from alignvlm.model import AlignVLMConfig, AlignVLMForConditionalGeneration, AlignVLMProcessor

__all__ = ["find_model", "load_config", "load_model", "load_processor"]

HUB_TIMEOUT_S: Final = 5.0
# No pickles are fetched, nor what other frameworks need.
_HUB_FILES: Final = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]


def find_model(model: str | Path | None) -> Path:
    """The folder that holds the model.

    Args:
        model: a folder, a Hub id (looked for in the local Hub cache first), or None for the
            default model, which is assembled if it has to be.

    Raises:
        WeightsError: there is no such folder or it lacks a file, or the Hub cannot be reached.
    """
    if model is None:
        from alignvlm.inference.default import ensure_default_model

        return ensure_default_model()
    path = Path(model).expanduser()
    if not path.exists() and _may_be_hub_id(str(model)):
        path = _from_hub(str(model))
    name = quoted(str(model))
    if not path.exists():
        raise WeightsError(f"There is no model folder {name}: check the path, or name a Hub id")
    if not path.is_dir():
        raise WeightsError(f"{name} is a file and no model folder: name the folder that holds it")
    if missing := _missing(path):
        raise WeightsError(
            f"The model folder {name} has no {missing}: name a folder written by save_pretrained "
            "of model and processor"
        )
    _read_config(path)
    return path


def load_config(folder: Path) -> AlignVLMConfig:
    """The configuration saved in a model folder.

    Raises:
        WeightsError: it is damaged, or asks for something that there is not.
        ConfigurationError: the folder holds another kind of model.
    """
    from alignvlm.model import AlignVLMConfig

    kind = _read_config(folder).get("model_type")
    if kind != AlignVLMConfig.model_type:
        raise ConfigurationError(
            f"The folder {quoted(str(folder))} holds a model of type {kind!r}, not an AlignVLM "
            "model: name one that does"
        )
    try:
        with _named(folder):
            return AlignVLMConfig.from_pretrained(folder, local_files_only=True)
    except AlignVLMError:
        raise
    except Exception as error:  # whatever a value of a wrong type leads to
        raise _damaged_config(folder) from error


def load_processor(folder: Path) -> AlignVLMProcessor:
    """The processor saved in a model folder.

    Raises:
        WeightsError: its files are damaged or do not belong together.
    """
    from alignvlm.model import AlignVLMProcessor

    try:
        from alignvlm.model.compat import quiet

        with quiet(), _named(folder):
            processor = AlignVLMProcessor.from_pretrained(folder, local_files_only=True)
    except AlignVLMError:
        raise
    except Exception as error:  # the tokenizers library raises bare Exceptions
        load_config(folder)  # which the tokenizer reads too: it may be the one to blame
        raise WeightsError(
            f"The processor in {folder} cannot be loaded: a file is missing or damaged, or wants "
            "code of its own, which is never run; save the processor into the folder again"
        ) from error
    _try_template(processor, folder)
    return processor


def load_model(
    folder: Path, device: torch.device, dtype: torch.dtype
) -> AlignVLMForConditionalGeneration:
    """The model in evaluation mode on `device`, its weights in `dtype`.

    The default model, whose folder this package wrote, is assembled once more if its files turn
    out damaged.

    Raises:
        WeightsError: weights are missing, damaged or of wrong shapes.
        ConfigurationError: the folder holds another kind of model.
    """
    try:
        return _load(folder, device, dtype)
    except WeightsError:
        if not _is_default(folder) or not damaged_files(folder, hashes=True):
            raise
    from alignvlm.inference.default import ensure_default_model

    (folder / MARKER).unlink(missing_ok=True)
    return _load(ensure_default_model(), device, dtype)


def _load(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    from alignvlm.model import AlignVLM
    from alignvlm.model.compat import quiet

    with quiet(), _named(folder):
        # mypy takes a class that refuses to be made for a function.
        make: Any = AlignVLM
        model = make.from_pretrained(folder, dtype=dtype, local_files_only=True)
    return model.to(device).eval()


def _try_template(processor: AlignVLMProcessor, folder: Path) -> None:
    """Fill the chat template in once: nothing else says whether it can be."""
    content = [{"type": "image"}, {"type": "text", "text": "Why?"}]
    try:
        processor.apply_chat_template([{"role": "user", "content": content}])
    except Exception as error:  # a template may go wrong in any way
        raise WeightsError(
            f"The chat template in {quoted(str(folder))} is missing or cannot be used: save the "
            "processor into the folder again"
        ) from error


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Say of what is wrong with a folder's settings which folder it is."""
    try:
        yield
    except ConfigurationError as error:
        if str(folder) in str(error):
            raise
        raise WeightsError(f"{error} (in the model folder {quoted(str(folder))})") from error


def _read_config(folder: Path) -> dict[str, Any]:
    """The object in `config.json`, read without torch."""
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged_config(folder) from error
    if not isinstance(content, dict):
        raise _damaged_config(folder)
    return content


def _damaged_config(folder: Path) -> WeightsError:
    return WeightsError(
        f"The config.json in {quoted(str(folder))} is damaged: save or download the model again"
    )


def _is_default(folder: Path) -> bool:
    """Whether it is the folder in the cache, not a user's copy of it, which is not ours to heal."""
    from alignvlm.inference.default import default_model_folder, missing_files

    return not missing_files() and folder.resolve() == default_model_folder().resolve()


def _missing(folder: Path) -> str | None:
    if not (folder / "config.json").is_file():
        return "config.json"
    if not any(folder.glob("*.safetensors")):
        return "weights (*.safetensors)"
    return None if (folder / "tokenizer.json").is_file() else "tokenizer.json"


def _may_be_hub_id(name: str) -> bool:
    """Whether it has the form `owner/name`; a path with one slash is told apart by existing."""
    owner, slash, rest = name.partition("/")
    return bool(slash and owner.strip(".~") and rest) and "/" not in rest and "\\" not in name


def _from_hub(repo_id: str) -> Path:
    """The snapshot of a Hub model, from the local Hub cache or, if it is not whole there, fetched.

    Raises:
        WeightsError: it is neither there nor can be fetched.
    """
    from huggingface_hub import get_session, snapshot_download
    from huggingface_hub.constants import ENDPOINT

    try:
        folder = Path(snapshot_download(repo_id, local_files_only=True))
        if _missing(folder) is None:
            return folder
    except (OSError, ValueError):
        pass  # not in the cache, or no valid Hub id: the request below says which
    try:
        # One quick question first: the downloader itself retries for half a minute.
        get_session().head(ENDPOINT, timeout=HUB_TIMEOUT_S)
        return Path(snapshot_download(repo_id, allow_patterns=_HUB_FILES))
    except Exception as error:  # network libraries raise many kinds
        raise WeightsError(
            f"{quoted(repo_id)} is no folder, is not in the local Hub cache and could not be "
            f"fetched from the Hub ({type(error).__name__}): check the name and the network, or "
            "name a model folder"
        ) from error
