"""Where the rows of Ovis's table start."""

from __future__ import annotations

import pytest
import torch

from alignvlm.connectors import Ovis
from alignvlm.errors import ConfigurationError


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_table_starts_at_the_scale_of_the_text_embeddings(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    ovis = Ovis(3, 64, visual_vocab_size=2000, num_indicators=500).to(dtype)
    assert abs(ovis.table.float().std() - 1) < 0.02
    head = ovis.head_linear.weight.clone()
    E = (0.25 + 0.02 * torch.randn(300, 64)).to(dtype)
    E[:, 0] += 4  # one mean and one deviation for all widths: an odd one moves them for all
    mean, std = E.double().mean().item(), E.double().std().item()
    torch.manual_seed(1)
    ovis.init_from_embeddings(E)
    for rows in (ovis.table[:1500], ovis.indicators()):
        assert rows.double().mean().item() == pytest.approx(mean, rel=0.05)
        assert rows.double().std().item() == pytest.approx(std, rel=0.05)
        assert rows[:, 0].double().mean().item() == pytest.approx(mean, abs=0.1)
    assert torch.equal(ovis.head_linear.weight, head)
    again = Ovis(3, 64, visual_vocab_size=2000, num_indicators=500).to(dtype)
    torch.manual_seed(1)
    again.init_from_embeddings(E)
    assert torch.equal(again.table, ovis.table)
    assert ovis.table.requires_grad


def test_text_embeddings_that_do_not_fit_are_refused() -> None:
    ovis = Ovis(3, 6, visual_vocab_size=40)
    before = ovis.table.detach().clone()
    for wrong in (torch.randn(30, 5), torch.randn(6)):
        with pytest.raises(ConfigurationError, match=r"\[V, 6\]"):
            ovis.init_from_embeddings(wrong)
    for value in (torch.nan, torch.inf):
        broken = torch.randn(30, 6)
        broken[3, 4] = value
        with pytest.raises(ConfigurationError, match="not finite"):
            ovis.init_from_embeddings(broken)
    with pytest.raises(ConfigurationError, match="meta"):
        ovis.init_from_embeddings(torch.empty(30, 6, device="meta"))
    assert torch.equal(ovis.table, before)
    with pytest.raises(ConfigurationError, match="meta"):
        ovis.to("meta").init_from_embeddings(torch.randn(30, 6))


@pytest.mark.parametrize("asked", [False, True])
def test_the_language_model_sets_the_table_where_asked(asked: bool) -> None:
    ovis = Ovis(4, 6, visual_vocab_size=500, table_from_text=asked)
    embeddings = 0.02 * torch.randn(100, 6)
    ovis.init_from_language_model(torch.zeros(100, 6), embeddings)
    assert bool(ovis.table.std() < 0.1) is asked
