"""Seconds and memory of whole VLMs that differ in their connector alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignvlm.analysis.runtime.memory import Runner
from alignvlm.analysis.runtime.models import (
    Variants,
    assemble,
    prefill_flops,
    prompt_ids,
    random_pages,
    random_parts,
    with_connector,
)
from alignvlm.analysis.runtime.workloads import Workload
from alignvlm.inference.decoding import greedy
from alignvlm.model.modeling import AlignVLMForConditionalGeneration

__all__ = ["Cost", "measure_connectors"]

# Enough to warm up, and to see the peak: that is in the prompt, and each step adds little to it.
_FEW_TOKENS = 2

_Times = tuple[float, float, float]
"""Seconds to the last new token, to the first, and inside the connector."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a model with one connector costs; each tuple has one entry a sample.

    Attributes:
        connector: what it is called.
        num_parameters: of the connector.
        num_visual_tokens: of a page.
        num_new_tokens: generated for a page.
        seconds: from pixels on the device to the last new token.
        first_token_s: from pixels on the device to the first new token.
        connector_s: inside the connector while the model made the first token; on CUDA by events
            on its stream, which make nothing wait.
        peak_bytes: of the whole model with its first page, see `Runner.memory_is`.
        connector_flops: of the connector's matrix products for a page.
        prefill_flops: of all matrix products up to the first new token.
    """

    connector: str
    num_parameters: int
    num_visual_tokens: int
    num_new_tokens: int
    seconds: tuple[float, ...]
    first_token_s: tuple[float, ...]
    connector_s: tuple[float, ...]
    peak_bytes: int
    connector_flops: int
    prefill_flops: int


def measure_connectors(
    workload: Workload,
    variants: Variants,
    runner: Runner,
    dtype: torch.dtype,
    on_progress: Callable[[str], None] = lambda text: None,
) -> list[Cost]:
    """The costs of each variant, in their order.

    First the memory of each, with no other connector in memory. Then the time: every model is
    warmed up, and each page is given to all models in turn, each page beginning with another one,
    so that whatever slows the machine for a while slows them alike.

    Args:
        workload: encoder, language model, page and answer.
        variants: the connectors.
        runner: where to run.
        dtype: of weights and pixels.
        on_progress: told what is being done.

    Raises:
        ConfigurationError: a connector does not fit this model.
    """
    for connector in variants.values():
        with_connector(workload.config, connector)  # what does not fit is said now
    peaks = {}
    for label, connector in variants.items():
        on_progress(f"memory of {label}")
        peaks[label] = runner.run(_peak, workload, connector, runner, dtype)
    parts = random_parts(workload.config, runner.device, dtype)
    models = {label: assemble(parts, connector) for label, connector in variants.items()}
    pages = random_pages(workload, runner.device, dtype)
    prompts = {label: prompt_ids(model, workload) for label, model in models.items()}
    for label, model in models.items():
        on_progress(f"warming up {label}")
        _run(model, pages[0], prompts[label], _FEW_TOKENS, runner)
    times: dict[str, list[_Times]] = {label: [] for label in models}
    labels = list(models)
    for number, page in enumerate(pages):
        start = number % len(labels)
        for label in labels[start:] + labels[:start]:
            on_progress(f"time of {label}, page {number + 1} of {len(pages)}")
            spent = _run(models[label], page, prompts[label], workload.num_new_tokens, runner)
            times[label].append(spent)
    return [
        _cost(label, model, workload, times[label], peaks[label]) for label, model in models.items()
    ]


def _peak(workload: Workload, connector: dict[str, Any], runner: Runner, dtype: torch.dtype) -> int:
    """Peak memory of a whole model with its first page, from nothing."""
    model = assemble(random_parts(workload.config, runner.device, dtype), connector)
    page = random_pages(workload, runner.device, dtype)[0]
    ids = prompt_ids(model, workload)
    runner.restart()
    _run(model, page, ids, _FEW_TOKENS, runner)
    return runner.peak_bytes()


@torch.inference_mode()
def _run(
    model: AlignVLMForConditionalGeneration,
    page: Tensor,
    ids: Tensor,
    num_new_tokens: int,
    runner: Runner,
) -> _Times:
    """One page and its answer; no token ends the answer early."""
    marks: list[Any] = []
    note = lambda *_: marks.append(runner.mark())  # noqa: E731, both hooks are this one line
    connector = model.model.connector
    ends = []
    with connector.register_forward_pre_hook(note), connector.register_forward_hook(note):
        runner.synchronize()
        start = time.perf_counter()
        prompt, _ = model.model.embed_inputs(ids, page)
        assert prompt.inputs_embeds is not None
        for _ in greedy(model, prompt.inputs_embeds, (), num_new_tokens):
            ends.append(time.perf_counter() - start)  # the token is here: nothing is pending
    # The model may call its connector tile by tile.
    calls = zip(marks[::2], marks[1::2], strict=True)
    return ends[-1], ends[0], sum(runner.seconds_between(*call) for call in calls)


def _cost(
    label: str,
    model: AlignVLMForConditionalGeneration,
    workload: Workload,
    times: list[_Times],
    peak_bytes: int,
) -> Cost:
    connector = model.model.connector
    seconds, first_token_s, connector_s = zip(*times, strict=True)
    return Cost(
        connector=label,
        num_parameters=connector.num_parameters(),
        num_visual_tokens=workload.num_tiles * model.config.tokens_per_tile,
        num_new_tokens=workload.num_new_tokens,
        seconds=seconds,
        first_token_s=first_token_s,
        connector_s=connector_s,
        peak_bytes=peak_bytes,
        connector_flops=connector.flops(model.config.feature_grid, workload.num_tiles),
        prefill_flops=prefill_flops(model, workload),
    )
