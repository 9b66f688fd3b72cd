"""The process that decodes a stranger's file: ``python -m alignvlm.imaging.worker``.

It is given the file's bytes on its standard input, so it needs no files and no names of folders,
limits itself before it looks at them, and answers one page at a time. `alignvlm.imaging.client`
is its only caller. The protocol, JSON lines and raw bytes (never pickle):

    ->  {"num_bytes": n, "source": name, "limits": {...}, "pdf_dpi": x, "pdf_max_side_px": y}
        n bytes of the file
    <-  {"num_pages": k}
    ->  {"page": i}                                     any number of times
    <-  {"width": w, "height": h}
        {"rows": r} and r * w * 3 bytes of RGB          until all h rows are sent

In place of any answer: {"error": class name, "message": sentence}. It ends with its input.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from contextlib import suppress
from typing import IO, Any

from PIL import Image

from alignvlm.errors import AlignVLMError, LimitError
from alignvlm.imaging.decode import Document, open_document, rgb_strips
from alignvlm.imaging.sources import quoted
from alignvlm.limits import Limits

try:
    import resource
except ImportError:  # Windows has no such limits; the caller's clock still holds there
    resource = None  # type: ignore[assignment]


def main() -> None:
    """Serve one file, then end."""
    requests, answers = sys.stdin.buffer, _private_stdout()
    opening = json.loads(requests.readline())
    limits = Limits(**opening["limits"])
    source = opening["source"]
    Image.MAX_IMAGE_PIXELS = limits.max_page_px  # this process is ours alone
    _limit_memory(limits)
    _limit_time(limits)
    try:
        data = requests.read(opening["num_bytes"])
        document = open_document(
            data,
            source,
            limits,
            pdf_dpi=opening["pdf_dpi"],
            pdf_max_side_px=opening["pdf_max_side_px"],
        )
        _send(answers, {"num_pages": document.num_pages})
        for line in requests:
            _limit_time(limits)
            _send_page(answers, document, json.loads(line)["page"], source)
    except (AlignVLMError, MemoryError) as error:
        if isinstance(error, MemoryError):
            error = LimitError(f"{quoted(source)} needs more memory to decode than is allowed")
        _send(answers, {"error": type(error).__name__, "message": str(error)})


def _send_page(answers: IO[bytes], document: Document, number: int, source: str) -> None:
    image = document.page(number)
    _send(answers, {"width": image.width, "height": image.height})
    for strip in rgb_strips(image, source):
        _send(answers, {"rows": strip.height}, strip.tobytes())


def _send(answers: IO[bytes], header: dict[str, Any], body: bytes = b"") -> None:
    answers.write(json.dumps(header).encode() + b"\n")
    answers.write(body)
    answers.flush()


def _private_stdout() -> IO[bytes]:
    """Keep the answers' channel to ourselves: C libraries may print to the standard output."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    return answers


def _limit_memory(limits: Limits) -> None:
    """Bound the address space from here on, and forbid writing files."""
    if resource is None:
        return
    # Where a system refuses a limit (macOS: address space), the others and the clock remain.
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with suppress(OSError, ValueError):
        most = _address_space_bytes() + limits.decode_memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _address_space_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _limit_time(limits: Limits) -> None:
    """Allow `decode_time_s` of processor time more than is used so far."""
    if resource is None:
        return
    with suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        soft = math.ceil(time.process_time() + limits.decode_time_s) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


if __name__ == "__main__":
    main()
