"""Models behind an OpenAI-compatible address: vLLM, SGLang, llama.cpp, a paid service."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from io import BytesIO
from typing import Any, Final, NoReturn, final
from urllib.parse import SplitResult, urlsplit

from PIL import Image

from alignvlm.errors import AlignVLMError, InputError, UsageError
from alignvlm.evaluation.models.base import EvaluatedModel
from alignvlm.evaluation.models.prompts import cut, rough_length
from alignvlm.evaluation.question import Prompt, Reply
from alignvlm.imaging.sources import quoted

__all__ = ["KEY", "Endpoint", "is_address"]

KEY: Final = "ALIGNVLM_API_KEY"
"""Environment variable that holds the key, if the endpoint wants one."""

_BATCH: Final = 8
_NUM_TRIES: Final = 5
_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 60.0
_TIMEOUT_S: Final = 300.0

_MAX_PNG_BYTES: Final = 8_000_000
_JPEG_QUALITY: Final = 95
_MAX_REPLY_BYTES: Final = 10_000_000
_MAX_STOPS: Final = 4  # OpenAI refuses more; answers are cut here in any case

_OVERLOADED: Final = frozenset({429, 503, 529})
_PASSING: Final = frozenset({408, 409, 425, 500, 502, 504}) | _OVERLOADED
_REFUSED: Final = frozenset({401, 403, 404, 405})


def is_address(name: str) -> bool:
    """Whether a model's name is an endpoint's address."""
    return name.lower().startswith(("http://", "https://"))


class _TryAgainError(Exception):
    """A failure that may pass.

    Args:
        reason: what happened, for the last sentence.
        wait_s: how long the server asks to be left alone.
        advice: what to do where the failure is about the server, whatever it is asked.
    """

    def __init__(self, reason: str, *, wait_s: float = 0.0, advice: str = "") -> None:
        super().__init__(reason)
        self.reason, self.wait_s, self.advice = reason, wait_s, advice


@final
class Endpoint(EvaluatedModel):
    """A model asked by HTTP, at temperature 0, as many prompts at a time as a batch has.

    A request that fails for a reason that may pass (429, 5xx, no connection, an unreadable reply)
    is sent up to 5 times, after 1, 2, 4 and 8 seconds, or when the server says. Where one request
    of a batch fails, replies to others are kept for when these prompts are asked again. The key is
    read from the environment, `ALIGNVLM_API_KEY`, and kept nowhere; no other is ever sent.

    What the server computes with whom in a batch is its own affair: answers are the same for
    batch 1 and batch N only where the server makes them so.

    Args:
        address: `http://host:port/v1#model`.
        batch_size: requests under way at once; None: 8.

    Raises:
        UsageError: the address has no model or no host, or holds a password or a query.
    """

    def __init__(self, address: str, *, batch_size: int | None = None) -> None:
        self.name = address
        parts = _split(address)
        if "@" in parts.netloc or parts.query:
            raise UsageError(
                "The address of an endpoint must not hold a password or a query: put the key into "
                f"the environment variable {KEY}"
            )
        if not parts.hostname or not parts.fragment:
            raise UsageError(
                f"{quoted(address)} names no model of an endpoint: write it as "
                "http://host:port/v1#model"
            )
        self._model = parts.fragment
        path = parts.path.rstrip("/").removesuffix("/chat/completions") or "/v1"
        self._base = f"{parts.scheme}://{parts.netloc}{path}"
        self._batch_size = batch_size or _BATCH
        self._given_up = threading.Event()
        self._kept: list[tuple[Prompt, Reply]] = []

    @property
    def batch_size(self) -> int:
        """See `EvaluatedModel.batch_size`."""
        return self._batch_size

    def describe(self) -> dict[str, str]:
        """See `EvaluatedModel.describe`; which weights an endpoint has it does not tell."""
        return {"kind": "endpoint", "address": self._base, "model": self._model}

    def length(self, prompt: Prompt) -> int:
        """See `EvaluatedModel.length`."""
        return rough_length(prompt)

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """See `EvaluatedModel.answer`.

        Raises:
            InputError: an image cannot be used, or the server fails over and over on a prompt.
            UsageError: the server refuses the key, or does not know the model or the address.
            AlignVLMError: no server answers, or it stays overloaded; the same command, run again,
                goes on.
        """
        self._given_up.clear()
        waiting: list[Future[Reply]] = []
        try:
            with ThreadPoolExecutor(max_workers=self._batch_size) as threads:
                waiting = [threads.submit(self._ask, prompt) for prompt in prompts]
                try:
                    return [one.result() for one in waiting]
                except BaseException:
                    self._given_up.set()  # nobody waits for a second try any more
                    for one in waiting:
                        one.cancel()
                    raise
        except InputError:
            if len(prompts) > 1:
                self._kept = [
                    (prompt, one.result())
                    for prompt, one in zip(prompts, waiting, strict=True)
                    if not one.cancelled() and one.exception() is None
                ]
            raise

    def _ask(self, prompt: Prompt) -> Reply:
        for other, reply in self._kept:
            if other is prompt:
                return reply
        request = self._request(prompt)
        wait_s = _FIRST_WAIT_S
        for number in range(1, _NUM_TRIES + 1):
            try:
                return _reply(self._post(request, prompt), prompt)
            except _TryAgainError as error:
                failure = error
            if number < _NUM_TRIES:
                if self._wait(max(wait_s, min(failure.wait_s, _LONGEST_WAIT_S))):
                    break
                wait_s *= 2
        told = f"{self._base} gave no answer to {_named(prompt)} in {_NUM_TRIES} tries"
        told = f"{told} ({failure.reason})"
        if failure.advice:
            raise AlignVLMError(f"{told}: {failure.advice}, then run the same command again")
        raise InputError(f"{told}: look at the server's log")

    def _wait(self, seconds: float) -> bool:
        """Whether the batch was given up meanwhile."""
        return self._given_up.wait(seconds)

    def _request(self, prompt: Prompt) -> dict[str, Any]:
        """The body of the request, images in it."""
        images = iter(prompt.images)
        content: list[dict[str, Any]] = [
            {"type": "text", "text": part["text"]}
            if part["type"] == "text"
            else {"type": "image_url", "image_url": {"url": data_url(next(images).load())}}
            for part in prompt.parts
        ]
        request = {
            "model": self._model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": prompt.max_new_tokens,
            "temperature": 0,
        }
        return request | ({"stop": list(prompt.stop[:_MAX_STOPS])} if prompt.stop else {})

    def _post(self, request: dict[str, Any], prompt: Prompt) -> Any:
        """What the server replies, read as JSON."""
        from huggingface_hub import get_session
        from huggingface_hub.errors import OfflineModeIsEnabled

        try:
            with get_session().stream(
                "POST",
                f"{self._base}/chat/completions",
                json=request,
                headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
                timeout=_TIMEOUT_S,
                follow_redirects=False,  # the key goes nowhere else
            ) as response:
                status, header = response.status_code, response.headers.get("Retry-After")
                body = _read(response)
        except OfflineModeIsEnabled:
            raise UsageError(
                "HF_HUB_OFFLINE is set, which forbids endpoints too: unset it for this command"
            ) from None
        except _TryAgainError:
            raise
        except Exception as error:  # network libraries raise many kinds
            kind = type(error).__name__
            advice = "start the server or check the address" if kind.startswith("Connect") else ""
            raise _TryAgainError(kind, advice=advice) from error
        if status != 200:
            self._complain(status, header, body, prompt)
        try:
            return json.loads(body)
        except ValueError as error:
            raise _TryAgainError("no JSON") from error

    def _complain(self, status: int, header: str | None, body: bytes, prompt: Prompt) -> NoReturn:
        """Raises what a status means."""
        if status in _PASSING:
            advice = "wait or lower --batch-size" if status in _OVERLOADED else ""
            raise _TryAgainError(f"status {status}", wait_s=_seconds(header), advice=advice)
        if status in _REFUSED:
            raise UsageError(
                f"{self._base} refuses to be asked for {quoted(self._model)} (status {status}): "
                f"check the address, the model's name and the key in {KEY}"
            )
        raise InputError(
            f"{self._base} refuses {_named(prompt)} (status {status}{self._said(body)}): it may be "
            "too long or have too many images"
        )

    def _said(self, body: bytes) -> str:
        """The first words of a server's explanation, the key blackened."""
        said = " ".join(body.decode(errors="replace").split())
        if self._key:
            said = said.replace(self._key, "***")
        said = "".join(char for char in said[:200] if char.isprintable())
        return f": {said}" if said else ""

    @cached_property
    def _key(self) -> str:
        return os.environ.get(KEY, "").strip()


def data_url(image: Image.Image) -> str:
    """The image as a URL that holds it: PNG, or JPEG where that would have more than 8 MB."""
    buffer, kind = BytesIO(), "png"
    image.save(buffer, format="PNG")
    if buffer.tell() > _MAX_PNG_BYTES:
        buffer, kind = BytesIO(), "jpeg"
        image.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _named(prompt: Prompt) -> str:
    return f"the question {quoted(prompt.question_id)}" if prompt.question_id else "a prompt"


def _reply(found: Any, prompt: Prompt) -> Reply:
    """The answer in a server's reply; some servers give it in parts."""
    try:
        choice = found["choices"][0]
        text = choice["message"]["content"]
        if isinstance(text, list):
            text = "".join(part["text"] for part in text if part["type"] == "text")
        usage = found.get("usage") or {}
        tokens = usage.get("completion_tokens"), usage.get("prompt_tokens")
        ended = choice.get("finish_reason")
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise _TryAgainError("a reply of another form") from error
    if not isinstance(text, str | None):
        raise _TryAgainError("a reply of another form")
    return Reply(
        text=cut(text or "", prompt.stop),
        num_tokens=tokens[0] if isinstance(tokens[0], int) else None,
        num_input_tokens=tokens[1] if isinstance(tokens[1], int) else None,
        complete=ended != "length",
    )


def _split(address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        _ = parts.port  # is checked when it is read
    except ValueError:
        raise UsageError(
            f"{quoted(address)} is no address: write it as http://host:port/v1#model"
        ) from None
    return parts


def _seconds(header: str | None) -> float:
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0  # a date: the usual wait will do


def _read(response: Any) -> bytes:
    """The body of a response, which is never longer than an answer can be."""
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > _MAX_REPLY_BYTES:
            raise _TryAgainError("a reply without end")
    return bytes(body)
