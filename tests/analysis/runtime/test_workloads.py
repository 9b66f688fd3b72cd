from __future__ import annotations

import pytest

from alignvlm.analysis.runtime import find_workload
from alignvlm.analysis.runtime.report import TABLE_7
from alignvlm.analysis.runtime.workloads import workload_names
from alignvlm.errors import ConfigurationError
from alignvlm.model.presets import PRESETS


def test_the_papers_models_keep_their_names() -> None:
    names = set(workload_names()) - {"smol"}
    assert {f"alignvlm-{name}" for name in names} == set(PRESETS)


def test_the_papers_3b_at_full_size() -> None:
    workload = find_workload("llama-3.2-3b")
    assert (workload.vision_dim, workload.text_dim, workload.vocab_size) == (1152, 3072, 128_256)
    rows, columns = workload.config.feature_grid
    assert workload.num_tiles * rows * columns == 6561


def test_an_answer_is_as_long_as_the_papers() -> None:
    num_new_tokens = find_workload("llama-3.2-3b").num_new_tokens
    for row in TABLE_7.values():
        assert round(row["seconds"] * row["tokens_per_s"]) == num_new_tokens


def test_smol_is_smollm2_and_siglip_base() -> None:
    workload = find_workload("smol")
    assert (workload.vision_dim, workload.text_dim, workload.vocab_size) == (768, 576, 49_152)
    assert workload.config.feature_grid == (24, 24)


def test_numbers_can_be_others() -> None:
    workload = find_workload("smol", num_samples=5, num_tiles=4)
    assert (workload.num_samples, workload.num_tiles) == (5, 4)
    assert workload.num_new_tokens == find_workload("smol").num_new_tokens


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"'llama'.*choose one of smol, llama-3\.2-1b"):
        find_workload("llama")
