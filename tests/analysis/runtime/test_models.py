from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from alignvlm.analysis.runtime import Workload, choose_variants
from alignvlm.analysis.runtime.models import (
    assemble,
    prefill_flops,
    prompt_ids,
    random_pages,
    random_parts,
    with_connector,
)
from alignvlm.connectors import available
from alignvlm.errors import ConfigurationError

CPU = torch.device("cpu")


def test_parts_are_random_the_same_each_time_and_sane(workload: Workload) -> None:
    parts, again = (random_parts(workload.config, CPU, torch.float32) for _ in range(2))
    for model, other in ((parts.vision, again.vision), (parts.llm, again.llm)):
        for (name, mine), yours in zip(model.named_parameters(), other.parameters(), strict=True):
            assert torch.equal(mine, yours), name
            if mine.ndim > 1:
                assert 0.01 < float(mine.detach().std()) < 0.03, name
            else:
                assert torch.equal(mine, torch.full_like(mine, 0.0 if "bias" in name else 1.0)), (
                    name
                )
    assert parts.llm.lm_head.weight is parts.llm.model.embed_tokens.weight
    rope = parts.llm.model.rotary_emb.inv_freq
    assert rope[0] == 1 and bool((rope.diff() < 0).all()), "buffers are no weights"


def test_no_two_rows_of_a_large_matrix_are_equal(
    workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alignvlm.analysis.runtime.models._BLOCK", 509)
    table = random_parts(workload.config, CPU, torch.float32).llm.lm_head.weight
    assert table.numel() > 10 * 509
    assert len(table.unique(dim=0)) == len(table)


def test_models_share_all_but_the_connector(workload: Workload) -> None:
    parts = random_parts(workload.config, CPU, torch.bfloat16)
    align, mlp = (assemble(parts, {"name": name}) for name in ("align", "mlp"))
    assert align.model.vision_model is mlp.model.vision_model is parts.vision
    assert align.model.language_model is mlp.model.language_model
    assert torch.equal(align.model.connector.w2.weight, align.lm_head.weight)
    assert {p.dtype for p in align.parameters()} == {torch.bfloat16}
    again = assemble(parts, {"name": "mlp"})
    for one, other in zip(
        mlp.model.connector.parameters(), again.model.connector.parameters(), strict=True
    ):
        assert torch.equal(one, other)


def test_all_connectors_and_the_pruned_one_unless_some_are_named() -> None:
    everything = choose_variants(None, 128_256)
    assert list(everything) == [*available(), "align_pruned"]
    named = choose_variants(["mlp", "align_pruned"], 264)
    assert list(named) == ["mlp", "align_pruned"]


def test_a_pruned_align_has_fewer_words(workload: Workload) -> None:
    (connector,) = choose_variants(["align_pruned"], 40).values()
    model = assemble(random_parts(workload.config, CPU, torch.float32), connector)
    full = assemble(random_parts(workload.config, CPU, torch.float32), {"name": "align"})
    assert model.model.connector.num_parameters() < full.model.connector.num_parameters() / 2


def test_a_connector_that_does_not_exist_is_refused(workload: Workload) -> None:
    with pytest.raises(ConfigurationError, match="There is no connector 'algin'"):
        with_connector(workload.config, {"name": "algin"})


def test_prompts_differ_in_their_placeholders_alone(workload: Workload) -> None:
    parts = random_parts(workload.config, CPU, torch.float32)
    prompts = {}
    for name in ("mlp", "pixel_shuffle"):
        model = assemble(parts, {"name": name})
        ids = prompt_ids(model, workload)
        visual = ids == 7
        assert int(visual.sum()) == 2 * model.config.tokens_per_tile
        prompts[name] = ids[~visual]
        assert len(prompts[name]) == workload.num_prompt_tokens
    assert torch.equal(prompts["mlp"], prompts["pixel_shuffle"])
    assert int(prompts["mlp"].max()) < workload.vocab_size


def test_pages_are_the_same_each_time_and_differ_from_each_other(workload: Workload) -> None:
    first, again = (random_pages(workload, CPU, torch.float32) for _ in range(2))
    assert [tuple(page.shape) for page in first] == [(2, 3, 56, 56)] * 2
    assert torch.equal(first[1], again[1]) and not torch.equal(first[0], first[1])


@pytest.mark.parametrize("options", [{"name": "mlp"}, {"name": "linear"}], ids=str)
def test_flops_are_those_that_torch_counts(workload: Workload, options: dict[str, Any]) -> None:
    model = assemble(random_parts(workload.config, CPU, torch.float32), options)
    ids = prompt_ids(model, workload)
    page = random_pages(workload, CPU, torch.float32)[0]
    for part in (model.model.vision_model, model.model.language_model):
        part.set_attn_implementation("eager")  # the counter does not know the fused one of a CPU
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=ids, pixel_values=page, logits_to_keep=1)
    length, num_layers, width = ids.shape[1], 3, 32
    hidden = 2 * length**2 * width * num_layers  # plain attention computes what the mask hides
    assert prefill_flops(model, workload) == counter.get_total_flops() - hidden
