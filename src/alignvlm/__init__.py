"""AlignVLM: ask questions about document pages, with visual tokens made of words.

The public names are loaded on first use (PEP 562), so `import alignvlm` loads neither torch nor
transformers; `alignvlm.connectors` needs torch alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alignvlm.inference.ask import ask
    from alignvlm.model.build import AlignVLM
    from alignvlm.model.configuration import AlignVLMConfig
    from alignvlm.model.processing import AlignVLMProcessor

__version__ = "0.1.0"

__all__ = ["AlignVLM", "AlignVLMConfig", "AlignVLMProcessor", "__version__", "ask"]

_HOMES = {
    "AlignVLM": "alignvlm.model.build",
    "AlignVLMConfig": "alignvlm.model.configuration",
    "AlignVLMProcessor": "alignvlm.model.processing",
    "ask": "alignvlm.inference.ask",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'alignvlm' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value  # the next access does not come through here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
