"""How much of a stranger's file is ever decoded.

Formats are allow-listed elsewhere (`alignvlm.imaging`); these are the sizes. They are on by
default, and a caller who needs more passes its own `Limits`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from alignvlm.errors import ConfigurationError

__all__ = ["DEFAULT_LIMITS", "Limits"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Upper bounds for one input file; each is inclusive: a file exactly at the limit passes.

    Attributes:
        max_file_bytes: size of the file on disk.
        max_page_px: width x height of one page once decoded. A3 at 600 dpi has 69.6 million.
        max_pages: pages of a PDF or frames of a TIFF that may be counted.
        max_aspect: longer side over shorter side of a page.
        decode_time_s: wall time for decoding one page, after which its worker is stopped.
        decode_memory_bytes: address space of the decoding worker beyond what it needs to start.

    Raises:
        ConfigurationError: a limit is not a positive finite number, or an aspect is below 1.
    """

    max_file_bytes: int = 50_000_000
    max_page_px: int = 90_000_000
    max_pages: int = 200
    max_aspect: float = 200.0
    decode_time_s: float = 20.0
    decode_memory_bytes: int = 1_500_000_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            # `not (value > 0)` rather than `value <= 0`: NaN compares false both ways.
            if not (value > 0 and math.isfinite(value)):
                raise ConfigurationError(
                    f"Limits.{field.name} is {value}, but a limit must be a positive finite "
                    "number: leave it out to keep the default"
                )
        if self.max_aspect < 1.0:
            raise ConfigurationError(
                f"Limits.max_aspect is {self.max_aspect}, but the longer side over the shorter "
                "one is never below 1: give 1 or more"
            )


DEFAULT_LIMITS = Limits()
