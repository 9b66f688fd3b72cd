"""The caller's side of the decoding process; the protocol is described in `worker`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

from PIL import Image

from alignvlm import errors
from alignvlm.errors import InputError, LimitError, UnsupportedImageError
from alignvlm.imaging.sources import quoted
from alignvlm.limits import Limits

__all__ = ["DecodingWorker"]

_HEADER_BYTES: Final = 65_536
_REPORTABLE: Final = {
    name: getattr(errors, name)
    for name in ("InputError", "LimitError", "PdfError", "UnsupportedImageError")
}


class DecodingWorker:
    """A process that decodes one file under `limits`; a context manager that ends it.

    Nothing that it answers is trusted: sizes are checked again, errors are of known classes.
    """

    def __init__(
        self, data: bytes, source: str, limits: Limits, *, pdf_dpi: float, pdf_max_side_px: int
    ) -> None:
        self._source, self._limits = source, limits
        self._timed_out = False
        self._process = self._start()
        try:
            opening = {
                "num_bytes": len(data),
                "source": source,
                "limits": asdict(limits),
                "pdf_dpi": pdf_dpi,
                "pdf_max_side_px": pdf_max_side_px,
            }
            with self._watched(quoted(source)):
                self._send(opening, data)
                self.num_pages = self._receive_count("num_pages", limits.max_pages)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> DecodingWorker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def page(self, number: int) -> Image.Image:
        """Decode the 1-based page to RGB; raises what `alignvlm.imaging.load_pages` says."""
        limits = self._limits
        with self._watched(f"Page {number} of {quoted(self._source)}"):
            self._send({"page": number})
            header = self._receive()
            width = _count(header, "width", limits.max_page_px)
            height = _count(header, "height", limits.max_page_px // width)
            # Filled strip by strip: the page is never held twice.
            image = Image.new("RGB", (width, height))
            top = 0
            while top < height:
                rows = self._receive_count("rows", height - top)
                strip = self._read(rows * width * 3)
                image.paste(Image.frombytes("RGB", (width, rows), strip), (0, top))
                top += rows
            return image

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for stream in (self._stdin, self._stdout):
            with suppress(OSError):  # bytes that could not be delivered any more
                stream.close()

    @property
    def _stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def _stdout(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def _start(self) -> subprocess.Popen[bytes]:
        # The parent's own search path, without "" (the current folder may hold anything), and no
        # site start-up code: the process is there in a tenth of a second.
        package_folder = str(Path(errors.__file__).parents[1])
        folders = [folder for folder in sys.path if folder] + [package_folder]
        command = [sys.executable, "-P", "-S", "-m", "alignvlm.imaging.worker"]
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(folders)},
                start_new_session=True,  # Ctrl-C is for us; we then end it
            )
        except OSError as error:
            raise InputError(
                f"{quoted(self._source)} cannot be decoded, since no process could be started "
                f"({error.strerror}): close other programs and try again"
            ) from error

    @contextmanager
    def _watched(self, subject: str) -> Iterator[None]:
        """End the process when the time is up; say in one sentence why no answer came."""
        timer = threading.Timer(self._limits.decode_time_s, self._expire)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (EOFError, OSError, ValueError, KeyError, TypeError) as error:
            # A closed channel, or an answer that is no answer.
            self._process.kill()
            code = self._process.wait()
            raise self._explain(subject, code) from error
        finally:
            timer.cancel()

    def _expire(self) -> None:
        self._timed_out = True
        self._process.kill()

    def _explain(self, subject: str, code: int) -> InputError:
        out_of_time = -24  # SIGXCPU, the processor-time limit; Windows lacks the name
        if self._timed_out or code == out_of_time:
            return LimitError(
                f"{subject} took longer than the {self._limits.decode_time_s:g} s allowed to "
                "decode: save it again in a simpler form"
            )
        return UnsupportedImageError(
            f"{subject} made its decoder stop, being damaged or in need of more than the "
            f"{self._limits.decode_memory_bytes / 1e6:g} MB allowed: save it again with another "
            "program, or smaller"
        )

    def _send(self, request: dict[str, Any], body: bytes = b"") -> None:
        try:
            self._stdin.write(json.dumps(request).encode() + b"\n")
            self._stdin.write(body)
            self._stdin.flush()
        except BrokenPipeError:
            pass  # it may have said why before it ended: read on

    def _receive(self) -> dict[str, Any]:
        line = self._stdout.readline(_HEADER_BYTES)
        if not line.endswith(b"\n"):
            raise EOFError
        header: dict[str, Any] = json.loads(line)
        if "error" in header:
            sentence = str(header["message"])
            raise _REPORTABLE[header["error"]]("".join(filter(str.isprintable, sentence)))
        return header

    def _receive_count(self, name: str, most: int) -> int:
        return _count(self._receive(), name, most)

    def _read(self, num_bytes: int) -> bytes:
        data = self._stdout.read(num_bytes)
        if len(data) < num_bytes:
            raise EOFError
        return data


def _count(header: dict[str, Any], name: str, most: int) -> int:
    value = header[name]
    if type(value) is not int or not 1 <= value <= most:
        raise ValueError(name)
    return value
