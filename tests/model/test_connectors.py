"""Every connector of the registry inside the whole model, and ALIGN pruned there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from alignvlm.connectors import available, mean_probabilities
from alignvlm.errors import ConfigurationError
from alignvlm.model import AlignVLMForConditionalGeneration, AlignVLMProcessor

Make = Callable[..., AlignVLMForConditionalGeneration]

# Where the published sizes are far above those of a tiny model.
SMALL: dict[str, dict[str, Any]] = {
    "c_abstractor": {"num_queries": 4, "hidden_dim": 8, "depth": 1, "positions": [2, 2]},
    "ovis": {"visual_vocab_size": 40, "stride": 2},
    "perceiver": {"depth": 1, "num_latents": 3, "num_heads": 2, "head_dim": 4},
}


def inputs(processor: AlignVLMProcessor, tiny: SimpleNamespace) -> dict[str, Any]:
    conversation = tiny.ask("Who?", tiny.page(28, 28, 1), tiny.page(90, 30, 2))
    return processor.apply_chat_template(
        conversation, tokenize=True, return_dict=True, return_tensors="pt"
    )


@pytest.mark.parametrize("name", available())
def test_every_connector_goes_through_the_whole_model(
    name: str, tiny: SimpleNamespace, make: Make, tmp_path: Path
) -> None:
    model = make(connector={"name": name, **SMALL.get(name, {})})
    processor = AlignVLMProcessor.build(tiny.tokenizer(), model.config)
    batch = inputs(processor, tiny)
    output = model(**batch, labels=batch["input_ids"])
    lengths = [len(tokens) for tokens in output.image_hidden_states]
    assert sum(lengths) == int((batch["input_ids"] == model.config.image_token_id).sum())
    assert lengths[0] == model.config.tokens_per_tile
    output.loss.backward()
    assert all(p.grad is not None for p in model.model.connector.parameters())
    model.save_pretrained(tmp_path)
    loaded = AlignVLMForConditionalGeneration.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, model(**batch).logits)


def test_a_pruned_model_saves_and_loads(
    tiny: SimpleNamespace, make: Make, processor: AlignVLMProcessor, tmp_path: Path
) -> None:
    model = make().eval()
    batch = inputs(processor, tiny)
    with torch.no_grad():
        features = model.get_image_features(batch["pixel_values"], batch["tile_grids"])
        mean = mean_probabilities(model.model.connector, [features.last_hidden_state])
        before = torch.cat(features.pooler_output)
        pruned = model.prune_connector(mean, keep=200)
        after = torch.cat(model.get_image_features(**batch_images(batch)).pooler_output)
        assert 0 < pruned.dropped_mass < 0.5
        # Each token moves towards the mean of the kept words by the dropped probability.
        size = model.get_input_embeddings().weight.norm(dim=-1).max()
        lost = (after - before).norm(dim=-1)
        assert 0 < lost.max() <= 4 * pruned.dropped_mass * size
        logits = model(**batch).logits
    model.save_pretrained(tmp_path)
    loaded = AlignVLMForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert loaded.model.connector.w2.weight.shape[0] == 200
    assert not loaded.model.connector.needs_embeddings
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, logits)


def batch_images(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: batch[name] for name in ("pixel_values", "tile_grids")}


def test_only_align_has_words_to_prune(make: Make) -> None:
    with pytest.raises(ConfigurationError, match="'mlp': load a model with 'align'"):
        make(connector={"name": "mlp"}).prune_connector(torch.ones(264) / 264)
