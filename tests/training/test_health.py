from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from alignvlm.connectors import Align, Connector, available, build
from alignvlm.errors import WeightsError
from alignvlm.inference.default import ensure_default_model
from alignvlm.inference.loading import load_model
from alignvlm.training.health import MAX_PATCHES, align_health, collapse_warning

VISION, TEXT, WORDS = 12, 16, 500


def make(gain: float = 1.0, **options: object) -> tuple[Align, Tensor, Tensor]:
    """An ALIGN whose W2 is the table itself, with features of unrelated patches."""
    torch.manual_seed(0)
    table = torch.randn(WORDS, TEXT) + 0.5
    connector = Align(VISION, TEXT, WORDS, gain=gain, **options)
    connector.init_from_language_model(table, table)
    return connector, torch.randn(2, 40, VISION), table


def by_definition(connector: Align, features: Tensor, table: Tensor) -> dict[str, float]:
    """The same figures in float64, patch by patch, pair by pair."""
    rows = features.reshape(-1, VISION)
    kept = table[connector.kept_ids].double()
    probs = connector.probabilities(rows).double()
    tokens = connector(rows, embeddings=table).visual_tokens.double()
    mean, count = kept.mean(0), len(rows)
    entropy = sum(-sum(p * math.log(p) for p in row.tolist() if p) for row in probs) / count
    spread = math.sqrt(sum(float((row - mean) @ (row - mean)) for row in kept) / len(kept))

    def cosine(vectors: Tensor) -> float:
        pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
        values = [torch.cosine_similarity(vectors[i], vectors[j], dim=0).item() for i, j in pairs]
        return sum(values) / len(values)

    return {
        "entropy": entropy,
        "effective_words": math.exp(entropy),
        "max_probability": probs.amax(1).mean().item(),
        "top_word_share": probs.mean(0).max().item(),
        "num_words": float((probs.mean(0) >= 1e-6).sum()),
        "mean_distance": (tokens - mean).norm(dim=1).mean().item() / spread,
        "norm_ratio": (tokens.norm(dim=1).mean() / kept.norm(dim=1).mean()).item(),
        "token_cosine": cosine(tokens),
        "feature_cosine": cosine(rows.double()),
    }


@pytest.mark.parametrize(
    "options",
    [{}, {"gain": 6.0}, {"vocabulary": list(range(3, 90))}, {"excluded": [0, 7]},
     {"own_table": True}, {"vocabulary": [5, 4, 9], "own_table": True}],
)  # fmt: skip
def test_figures_are_those_of_the_definitions(options: dict[str, object]) -> None:
    connector, features, table = make(**options)
    expected = by_definition(connector, features, table)
    if connector.excluded_rows is not None:
        assert expected["num_words"] <= WORDS - 2
    assert align_health(connector, features, table) == pytest.approx(expected, rel=2e-4, abs=1e-6)


def test_at_most_so_many_patches_are_looked_at_first_and_last_among_them() -> None:
    connector, _, table = make(gain=6.0)
    features = torch.randn(3, 700, VISION)
    seen: list[Tensor] = []
    connector.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    align_health(connector, features, table)
    assert max(len(part) for part in seen) <= 32
    patches = torch.cat(seen)
    assert len(patches) == MAX_PATCHES
    assert torch.equal(patches[0], features[0, 0])
    assert torch.equal(patches[-1], features[2, 699])
    places = [int((features.reshape(-1, VISION) == patch).all(1).nonzero()) for patch in patches]
    gaps = {b - a for a, b in pairwise(places)}
    assert gaps <= {8, 9}


def test_it_leaves_no_trace() -> None:
    connector, features, table = make()
    features.requires_grad_(True)
    state = torch.get_rng_state()
    first = align_health(connector, features, table)
    assert torch.equal(torch.get_rng_state(), state)
    assert connector.training
    assert all(parameter.grad is None for parameter in connector.parameters())
    assert align_health(connector, features, table) == first


@pytest.mark.parametrize("how", ["weights", "autocast"])
def test_bfloat16_is_measured_in_float32(how: str) -> None:
    connector, features, table = make(gain=3.0)
    expected = align_health(connector, features, table)
    if how == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            found = align_health(connector, features, table)
    else:
        found = align_health(connector.bfloat16(), features.bfloat16(), table.bfloat16())
    assert found == pytest.approx(expected, rel=0.03, abs=3e-3)


@pytest.mark.parametrize("name", [name for name in available() if name != "align"])
def test_other_connectors_have_the_parts_that_make_sense(name: str) -> None:
    torch.manual_seed(0)
    connector: Connector = build(name, vision_dim=VISION, text_dim=TEXT, vocab_size=WORDS)
    table = torch.randn(WORDS, TEXT)
    found = align_health(connector, torch.randn(7, 64, VISION), table, grid=(8, 8))
    assert set(found) == {"mean_distance", "norm_ratio", "token_cosine", "feature_cosine"}
    assert all(math.isfinite(value) for value in found.values())
    assert collapse_warning(found) is None


def test_a_batch_of_text_alone_has_no_figures() -> None:
    connector, _, table = make()
    assert align_health(connector, torch.empty(0, 40, VISION), table) == {}
    assert collapse_warning({}) is None


def test_one_patch_has_no_cosine() -> None:
    connector, features, table = make()
    found = align_health(connector, features[:1, :1], table)
    assert {"token_cosine", "feature_cosine"}.isdisjoint(found)
    assert collapse_warning(found) is None


def test_tokens_at_the_mean_embedding_are_a_collapse() -> None:
    """A constant beside small differences, and a softmax that hardly looks at its argument."""
    connector, features, table = make(gain=0.05)
    found = align_health(connector, features, table)
    warning = collapse_warning({f"health/{name}": value for name, value in found.items()})
    assert warning == collapse_warning(found)
    assert warning is not None
    for part in ("mean embedding", "gain", "learning rate", "grounded alignment", "499 words"):
        assert part in warning
    assert "\n" not in warning
    connector, features, table = make(gain=4.0)
    assert collapse_warning(align_health(connector, features, table)) is None


def test_one_word_for_every_patch_is_a_collapse_unless_the_patches_are_alike() -> None:
    connector, features, table = make()
    with torch.no_grad():
        connector.norm_v.bias[17] = 100.0
    found = align_health(connector, features, table)
    assert found["top_word_share"] > 0.99
    assert "same visual token" in (collapse_warning(found) or "")
    blank = features[:1, :1] + 0.05 * features
    assert collapse_warning(align_health(connector, blank, table)) is None


def test_the_default_model_is_well_and_a_fresh_connector_in_its_place_is_not() -> None:
    """What the thresholds are made for, with the weights that are shipped and SmolLM2's words."""
    try:
        folder = ensure_default_model(progress=False)
    except WeightsError as error:
        pytest.skip(str(error))
    model = load_model(folder, torch.device("cpu"), torch.float32)
    page = Image.open(Path(__file__).parents[2] / "examples" / "invoice.png").convert("RGB")
    pixels = torch.from_numpy(np.array(page)[:384, :384]).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        features = model.model.get_image_features(pixels, return_dict=True).last_hidden_state
    features = features[:, ::47]  # 96 a row: no column is left out
    table, head = model.model.text_embeddings(), model.get_output_embeddings().weight
    shipped = align_health(model.model.connector, features, table)
    assert collapse_warning(shipped) is None
    assert shipped["effective_words"] < 1.2
    assert shipped["mean_distance"] > 1.1
    torch.manual_seed(0)
    for gain, collapses in ((1.0, True), (2.0, False)):
        fresh = Align(features.shape[-1], table.shape[1], len(head), gain=gain)
        fresh.init_from_head(head)
        found = align_health(fresh, features, table)
        assert (collapse_warning(found) is not None) == collapses, found
