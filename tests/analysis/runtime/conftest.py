"""A model of two layers, and a runner that runs here and counts instead of timing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_models import tiny_llama, tiny_siglip

from alignvlm.analysis.runtime import Cost, Runner, Workload
from alignvlm.model import AlignVLMConfig


class CountingRunner(Runner):
    """Every mark is one second after the last; every reading of the peak a megabyte higher."""

    device = torch.device("cpu")
    memory_is = "made up"

    def __init__(self) -> None:
        self.num_runs = self.num_marks = self.num_peaks = 0

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.num_runs += 1
        return function(*args, **kwargs)

    def synchronize(self) -> None: ...

    def mark(self) -> int:
        self.num_marks += 1
        return self.num_marks

    def seconds_between(self, start: int, end: int) -> float:
        return float(end - start)

    def restart(self) -> None: ...

    def held_bytes(self) -> int:
        return 0

    def peak_bytes(self) -> int:
        self.num_peaks += 1
        return self.num_peaks * 10**6


@pytest.fixture
def runner() -> CountingRunner:
    return CountingRunner()


@pytest.fixture
def workload() -> Workload:
    config = AlignVLMConfig(
        vision_config=tiny_siglip(image_size=56),
        text_config=tiny_llama(
            vocab_size=264, num_hidden_layers=3, num_key_value_heads=2, tie_word_embeddings=True
        ),
        image_token_id=7,
    )
    return Workload(name="tiny", config=config, num_tiles=2, num_new_tokens=3, num_samples=2)


@pytest.fixture
def costs() -> list[Cost]:
    """ALIGN twice as slow as the MLP on the first page, four times on the second, three on the
    third.
    """
    mlp = Cost(
        connector="mlp",
        num_parameters=1000,
        num_visual_tokens=32,
        num_new_tokens=6,
        seconds=(1.0, 2.0, 3.0),
        first_token_s=(0.4, 0.5, 0.9),
        connector_s=(0.1, 0.1, 0.3),
        peak_bytes=2 * 10**9,
        connector_flops=10,
        prefill_flops=100,
    )
    align = replace(mlp, connector="align", seconds=(2.0, 8.0, 9.0), peak_bytes=3 * 10**9)
    return [align, mlp]
