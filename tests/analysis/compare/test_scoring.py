from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from alignvlm.analysis.compare import Comparison, Sigma
from alignvlm.analysis.compare.pages import (
    TEST_SEED,
    VALIDATION_SEED,
    Prepared,
    draw_pages,
    exchanged,
    prepare,
)
from alignvlm.analysis.compare.scoring import Scorer, exact, judged, token_distances
from alignvlm.inference.decoding import greedy
from alignvlm.training.models import build_model

Make = Callable[..., Comparison]
NUM = 5


@pytest.fixture
def pages(comparison: Make) -> Any:
    return draw_pages(comparison().recipe, TEST_SEED, NUM)


@pytest.fixture
def scored(comparison: Make, pages: Any) -> tuple[Scorer, list[Prepared], Any]:
    recipe = comparison().recipe
    model, processor = build_model(recipe.model, None, seed=3)
    return Scorer(model, processor, "cpu", False), prepare(pages, processor, recipe), model


def test_pages_are_held_out_and_the_same_again(comparison: Make, pages: Any) -> None:
    recipe = comparison().recipe
    assert [page.key for page in pages] == [f"heldout/note/{TEST_SEED + i}" for i in range(NUM)]
    again = draw_pages(recipe, TEST_SEED, NUM)
    assert [(p.key, p.question, p.answer) for p in again] == [
        (p.key, p.question, p.answer) for p in pages
    ]
    others = draw_pages(recipe, VALIDATION_SEED, NUM)
    assert not {page.key for page in others} & {page.key for page in pages}
    assert all(page.question.endswith((".", "?")) and page.answer for page in pages)


def test_exchanged_pages_keep_their_questions(pages: Any) -> None:
    others = exchanged(pages)
    for place, (ours, theirs) in enumerate(zip(pages, others, strict=True)):
        assert (ours.question, ours.answer) == (theirs.question, theirs.answer)
        assert theirs.image.tobytes() == pages[(place + 1) % NUM].image.tobytes()


def test_prompt_and_answer_are_told_apart(scored: Any, pages: Any, tokenizer: Any) -> None:
    for page, prepared in zip(pages, scored[1], strict=True):
        answer = tokenizer.decode(prepared.ids[prepared.num_prompt :])
        assert answer.startswith(page.answer) and "<|im_end|>" in answer
        prompt = tokenizer.decode(prepared.ids[: prepared.num_prompt])
        assert prompt.endswith("<|im_start|>assistant\n") and page.question in prompt


def test_losses_in_a_batch_are_those_of_single_pages(scored: Any) -> None:
    scorer, prepared, model = scored
    found = scorer.losses(prepared)
    for page, loss in zip(prepared, found, strict=True):
        with torch.no_grad():
            logits = model(
                input_ids=page.ids[None], pixel_values=page.pixel_values, tile_grids=page.tile_grids
            ).logits[0]
        alone = functional.cross_entropy(logits[:-1], page.labels[1:], ignore_index=-100)
        assert loss == pytest.approx(alone.item(), rel=1e-4)


def test_answers_in_a_batch_are_those_of_single_pages(scored: Any, tokenizer: Any) -> None:
    scorer, prepared, model = scored
    found = scorer.answers(prepared)
    for page, answer in zip(prepared, found, strict=True):
        spliced, _ = model.model.embed_inputs(
            page.ids[None, : page.num_prompt], page.pixel_values, page.tile_grids
        )
        tokens = [token for token, _ in greedy(model, spliced.inputs_embeds, (2,), 24)]
        assert answer == tokenizer.decode(tokens, skip_special_tokens=True).strip()


def test_noise_is_a_page_s_own(scored: Any) -> None:
    """A page gets the same noise in any batch, of the deviation asked for, on F alone."""
    scorer, prepared, model = scored
    sigma, seen = Sigma(value=0.5), []

    def look(_module: Any, arguments: Any) -> None:
        seen.append(arguments[0].clone())

    for group in (prepared, prepared[2:3]):
        clean = model.model.get_image_features(
            torch.cat([p.pixel_values for p in group]), return_dict=True
        ).last_hidden_state
        with torch.no_grad(), scorer._noise(group, sigma) as rms:
            hook = model.model.connector.register_forward_pre_hook(look)
            scorer._visual(group)
            hook.remove()
        seen[-1] -= clean.detach()
        expected = clean.pow(2).mean((1, 2)).sqrt()
        assert rms == pytest.approx(expected.tolist(), rel=1e-5)
    assert torch.allclose(seen[0][2], seen[1][0], atol=1e-6)
    assert seen[0].std().item() == pytest.approx(0.5, rel=0.1)
    assert not torch.allclose(seen[0][0], seen[0][1], atol=0.1)
    assert not model.model.connector._forward_pre_hooks


def test_relative_noise_is_in_units_of_f(scored: Any) -> None:
    scorer, prepared, _ = scored
    relative = scorer.distances(prepared[:1], Sigma(value=2.0, relative=True))
    rms = relative["feature_rms"]
    absolute = scorer.distances(prepared[:1], Sigma(value=2.0 * rms))
    assert absolute == pytest.approx(relative, rel=1e-4)


def test_more_noise_moves_tokens_further(scored: Any) -> None:
    scorer, prepared, _ = scored
    found = [scorer.distances(prepared, Sigma(value=value)) for value in (1e-4, 0.1, 3.0)]
    moved = [each["noise_distance"] for each in found]
    assert 0 <= moved[0] < 1e-4 and moved[0] < moved[1] < moved[2] < 2
    assert len({round(each["patch_distance"], 12) for each in found}) == 1


def test_distances_are_the_means_over_tokens_and_pairs() -> None:
    rng = np.random.default_rng(1)
    clean, noisy = rng.normal(size=(2, 6, 4))

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return float(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    pairs = [distance(clean[i], clean[j]) for i in range(6) for j in range(6) if i != j]
    found = token_distances(torch.from_numpy(clean), torch.from_numpy(noisy))
    assert found == pytest.approx(
        {
            "noise_distance": np.mean([distance(a, b) for a, b in zip(clean, noisy, strict=True)]),
            "patch_distance": np.mean(pairs),
        }
    )
    assert token_distances(torch.ones(1, 4), torch.ones(1, 4))["patch_distance"] == 0.0


def test_answers_are_judged_without_case_and_blanks(pages: Any) -> None:
    assert exact(" B  538\n", "b 538") == 1.0
    assert exact("B53", "B538") == 0.0
    found = judged(pages, [pages[0].answer.upper(), *("§§§§§§§§§§§§" for _ in pages[1:])])
    assert found["anls"] == [1.0] + [0.0] * (NUM - 1) == found["exact"]
