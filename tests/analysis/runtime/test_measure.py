from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from alignvlm.analysis.runtime import Workload, choose_variants, measure_connectors
from alignvlm.connectors import available
from alignvlm.errors import ConfigurationError


def test_what_is_measured_and_in_which_order(workload: Workload, runner: Any) -> None:
    told: list[str] = []
    variants = choose_variants(["mlp", "align"], workload.vocab_size)
    costs = measure_connectors(workload, variants, runner, torch.float32, told.append)
    assert told == [
        "memory of mlp",
        "memory of align",
        "warming up mlp",
        "warming up align",
        "time of mlp, page 1 of 2",
        "time of align, page 1 of 2",
        "time of align, page 2 of 2",  # another one begins
        "time of mlp, page 2 of 2",
    ]
    assert [cost.connector for cost in costs] == ["mlp", "align"]
    assert [cost.peak_bytes for cost in costs] == [10**6, 2 * 10**6]
    assert runner.num_runs == 2
    for cost in costs:
        assert cost.num_visual_tokens == 2 * 16
        assert len(cost.seconds) == len(cost.first_token_s) == len(cost.connector_s) == 2
        assert all(0 < f < s for f, s in zip(cost.first_token_s, cost.seconds, strict=True))
        assert 0 < cost.connector_flops < cost.prefill_flops
        # One second a call of the connector: it gets both tiles at once or one after the other.
        assert set(cost.connector_s) in ({1.0}, {2.0})
    assert costs[0].num_parameters == 16 * 32 + 32 + 32 * 32 + 32


@pytest.mark.parametrize("name", available())
def test_every_connector_can_be_measured(name: str, workload: Workload, runner: Any) -> None:
    variants = choose_variants([name], workload.vocab_size)
    (cost,) = measure_connectors(replace(workload, num_samples=1), variants, runner, torch.float32)
    assert cost.num_visual_tokens > 0
    assert cost.num_parameters > 0


def test_nothing_runs_if_a_later_connector_does_not_exist(workload: Workload, runner: Any) -> None:
    variants = choose_variants(["mlp", "algin"], workload.vocab_size)
    with pytest.raises(ConfigurationError, match="'algin'"):
        measure_connectors(workload, variants, runner, torch.float32)
    assert runner.num_runs == 0
