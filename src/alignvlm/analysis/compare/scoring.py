"""What a trained model is worth: loss, answers, and both again under noise on F (Table 5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from alignvlm.analysis.compare.pages import Asked, Prepared, batches, padded
from alignvlm.analysis.compare.plan import Sigma
from alignvlm.evaluation.metrics import anls
from alignvlm.model.processing import AlignVLMProcessor
from alignvlm.model.splice import IGNORED_LABEL

__all__ = ["MAX_NEW_TOKENS", "Scorer", "exact", "token_distances"]

MAX_NEW_TOKENS = 24
_BATCH = 16
_NOISE_SEED = 20250203


class Scorer:
    """Scores a model on pages.

    Args:
        model: an AlignVLM model with all its weights; put into evaluation mode.
        processor: of the model.
        device: where it is.
        bfloat16: compute under autocast, as training did.
    """

    def __init__(
        self, model: Any, processor: AlignVLMProcessor, device: str, bfloat16: bool
    ) -> None:
        self._model, self._processor = model.to(device).eval(), processor
        self._device, self._bfloat16 = torch.device(device), bfloat16
        if bfloat16:  # autocast would round the same weights anew for every token
            model.model.language_model.layers.to(torch.bfloat16)

    @torch.no_grad()
    def losses(self, pages: Sequence[Prepared]) -> list[float]:
        """Mean loss of an answer's tokens, for each page."""
        found: list[float] = []
        for group in batches(pages, _BATCH):
            ids = padded([p.ids for p in group], 0, left=False)
            labels = padded([p.labels for p in group], IGNORED_LABEL, left=False)
            mask = padded([torch.ones_like(p.ids) for p in group], 0, left=False)
            with self._autocast():
                hidden = self._model.model(
                    input_ids=ids.to(self._device), attention_mask=mask.to(self._device),
                    use_cache=False, **self._tiles(group),
                ).last_hidden_state  # fmt: skip
                for row, targets in zip(hidden, labels.to(self._device), strict=True):
                    learned = targets[1:] != IGNORED_LABEL
                    logits = self._model.lm_head(row[:-1][learned]).float()
                    found.append(functional.cross_entropy(logits, targets[1:][learned]).item())
        return found

    @torch.no_grad()
    def answers(self, pages: Sequence[Prepared], sigma: Sigma | None = None) -> list[str]:
        """Greedy answers of at most `MAX_NEW_TOKENS` tokens, with noise on F if one is given."""
        found: list[str] = []
        tokenizer = self._processor.tokenizer
        for group in batches(pages, _BATCH):
            prompts = [p.ids[: p.num_prompt] for p in group]
            with self._autocast(), self._noise(group, sigma):
                made = self._model.generate(
                    input_ids=padded(prompts, tokenizer.pad_token_id, left=True).to(self._device),
                    attention_mask=padded([torch.ones_like(p) for p in prompts], 0, left=True).to(
                        self._device
                    ),
                    max_new_tokens=MAX_NEW_TOKENS, do_sample=False,
                    pad_token_id=tokenizer.pad_token_id, **self._tiles(group),
                )  # fmt: skip
            new = made[:, max(map(len, prompts)) :]
            found += [
                text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)
            ]
        return found

    @torch.no_grad()
    def distances(self, pages: Sequence[Prepared], sigma: Sigma) -> dict[str, float]:
        """How far noise moves visual tokens, and how far those of a page lie apart; page means."""
        sums: dict[str, float] = {"noise_distance": 0.0, "patch_distance": 0.0, "feature_rms": 0.0}
        for group in batches(pages, _BATCH):
            with self._autocast():
                clean = self._visual(group)
                with self._noise(group, sigma) as seen:
                    noisy = self._visual(group)
            for one, other, rms in zip(clean, noisy, seen, strict=True):
                for name, value in token_distances(one.float(), other.float()).items():
                    sums[name] += value
                sums["feature_rms"] += rms
        return {name: value / len(pages) for name, value in sums.items()}

    def _visual(self, group: Sequence[Prepared]) -> list[Tensor]:
        """Visual tokens [T N', D] of each page."""
        tiles = self._tiles(group)
        features = self._model.model.get_image_features(
            tiles["pixel_values"], tiles["tile_grids"], return_dict=True
        )
        return list(features.pooler_output)

    @contextmanager
    def _noise(self, group: Sequence[Prepared], sigma: Sigma | None) -> Iterator[list[float]]:
        """Adds N(0, sigma) to what the connector reads; gives the RMS of each page's features.

        The noise of a page depends on its number alone: it is the same for every model.
        """
        seen: list[float] = []

        def add(_module: Any, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            features = arguments[0]
            parts = features.split([len(page.pixel_values) for page in group])
            noisy = []
            for page, part in zip(group, parts, strict=True):
                rms = float(part.float().pow(2).mean().sqrt())
                seen.append(rms)
                assert sigma is not None
                scale = sigma.value * (rms if sigma.relative else 1.0)
                generator = torch.Generator().manual_seed(_NOISE_SEED + page.number)
                drawn = torch.randn(part.shape, generator=generator)
                noisy.append(part + scale * drawn.to(part))
            return (torch.cat(noisy), *arguments[1:])

        if sigma is None:
            yield seen
            return
        hook = self._model.model.connector.register_forward_pre_hook(add)
        try:
            yield seen
        finally:
            hook.remove()

    def _tiles(self, group: Sequence[Prepared]) -> dict[str, Tensor]:
        return {
            "pixel_values": torch.cat([page.pixel_values for page in group]).to(self._device),
            "tile_grids": torch.cat([page.tile_grids for page in group]).to(self._device),
        }

    def _autocast(self) -> Any:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16)


def token_distances(clean: Tensor, noisy: Tensor) -> dict[str, float]:
    """Cosine distances of one page's visual tokens, [N', D] each.

    Returns:
        `noise_distance`: mean of 1 - cos between each token and itself under noise, what section
        5.4 of the paper reports; `patch_distance`: mean of 1 - cos over all pairs of different
        clean tokens. The first says little without the second: tokens that are all alike hardly
        move either.
    """
    one, other = (functional.normalize(tokens.double(), dim=-1) for tokens in (clean, noisy))
    count = len(one)
    # The sum over all pairs is the squared norm of the sum; a token with itself has cosine 1.
    pairs = (one.sum(0).pow(2).sum() - one.pow(2).sum()) / max(1, count * (count - 1))
    return {
        "noise_distance": float((1 - (one * other).sum(-1)).mean()),
        "patch_distance": float(1 - pairs) if count > 1 else 0.0,
    }


def exact(prediction: str, answer: str) -> float:
    """1 if both are the same but for letter case and blanks."""
    return float(" ".join(prediction.lower().split()) == " ".join(answer.lower().split()))


def judged(pages: Sequence[Asked], predictions: Sequence[str]) -> dict[str, list[float]]:
    """ANLS and exact match of each prediction."""
    pairs = list(zip(predictions, pages, strict=True))
    return {
        "anls": [anls(prediction, [page.answer]) for prediction, page in pairs],
        "exact": [exact(prediction, page.answer) for prediction, page in pairs],
    }
