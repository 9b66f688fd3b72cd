"""Pages as the lens sees them: of a random SigLIP model, of one that says what it is told to."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import byte_tokenizer, tiny_llama, tiny_siglip
from transformers import PreTrainedTokenizerFast, SiglipVisionConfig

from alignvlm.analysis import PageLens, look
from alignvlm.analysis.lens import TilePlace
from alignvlm.model import AlignVLMConfig, AlignVLMForConditionalGeneration, AlignVLMProcessor
from alignvlm.model.document_encoder import DocumentEncoderConfig


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Every byte is a token, after the placeholder."""
    return byte_tokenizer(["<image>"], pad_token="<image>", additional_special_tokens=["<image>"])


def make_model(**options: Any) -> tuple[AlignVLMForConditionalGeneration, AlignVLMProcessor]:
    tokenizer = make_tokenizer()
    text = tiny_llama(
        vocab_size=264, num_hidden_layers=1, initializer_range=0.3, bos_token_id=None,
        eos_token_id=None,
    )  # fmt: skip
    config = AlignVLMConfig(text_config=text, image_token_id=0, **options)
    model = AlignVLMForConditionalGeneration(config).eval()
    return model, AlignVLMProcessor.build(tokenizer, config, chat_template="{{ messages }}")


def siglip() -> SiglipVisionConfig:
    """2 x 2 patches of 14 px in a tile of 30 px, which leaves 2 px without one."""
    return tiny_siglip(image_size=30)


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def lens_tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture
def without_words() -> tuple[Any, Any]:
    """A model whose connector says no words, and its processor."""
    return make_model(vision_config=siglip(), connector={"name": "mlp"})


@pytest.fixture(scope="session")
def noise_page() -> Callable[[int, int], Image.Image]:
    return noise


@pytest.fixture(scope="module")
def patches() -> tuple[PageLens, np.ndarray]:
    """A SigLIP page of four tiles and a thumbnail, and its P_vocab [T*N, V]."""
    torch.manual_seed(1)
    model, processor = make_model(
        vision_config=siglip(), connector={"name": "align", "gain": 4.0}, tiling={"max_tiles": 4}
    )
    page = noise(120, 118)
    inputs = processor.image_processor(page, return_tensors="pt")
    with torch.no_grad():
        features = model.get_image_features(**inputs, return_intermediates=True)
    probs = features.intermediates["vocab_probs"].flatten(0, 1).double().numpy()
    return look(model, processor, page, source="noise.png"), probs


def planted(model: Any, cells: dict[tuple[int, int], str], columns: int) -> Any:
    """A connector that says these characters at these cells of the page, 2 x 2 tiles of 8 x 16."""
    connector, tokenizer = model.model.connector, make_tokenizer()
    kept = connector.kept_ids.tolist()
    probs = torch.full((4 * 8 * 16, len(kept)), 0.001)
    probs[:, 0] = 1
    for (row, column), char in cells.items():
        tile, inside = (row // 8) * columns + column // 16, (row % 8) * 16 + column % 16
        probs[tile * 128 + inside, 0] = 0.001
        probs[tile * 128 + inside, kept.index(tokenizer.encode(char)[0])] = 1
    probs /= probs.sum(-1, keepdim=True)
    return lambda features: probs


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> PageLens:
    """A page of 2 x 2 tiles on which the connector says "Hi" across a seam, and "no" below."""
    tokenizer = make_tokenizer()
    vocabulary = [tokenizer.encode(char)[0] for char in ("\n", " ", "H", "i", "n", "o")]
    model, processor = make_model(
        vision_config=DocumentEncoderConfig(tile_px=64, hidden_size=8, num_context_layers=0),
        connector={"name": "align", "vocabulary": vocabulary},
        tiling={"layout": "canvas", "max_tiles": 4, "max_upscale": 2.0},
        condense={"prune": True, "merge": "spell"},
    )
    model.model.condenser.tokenizer = tokenizer.backend_tokenizer
    said = planted(model, {(3, 15): "H", (3, 17): "i", (12, 18): "n", (12, 20): "o"}, columns=2)
    monkeypatch.setattr(model.model.connector, "probabilities", said)
    return look(model, processor, Image.new("L", (64, 60), 255), source="page.png")


def make_lens(image: Image.Image, words: dict[int, str], **options: Any) -> PageLens:
    """A page of one tile with 10 x 10 cells; all say the first word, sure of it."""
    num_cells = options.pop("num_cells", 100)
    side = math.isqrt(num_cells)
    ids = np.tile(np.array(list(words)[:5]), (num_cells, 1))
    probabilities = np.full(ids.shape, 0.01, dtype=np.float32)
    probabilities[:, 0] = 0.9
    place = TilePlace(
        x=0.0,
        y=0.0,
        cell_width=image.width / side,
        cell_height=image.height / side,
        part=(0, 0, image.width, image.height),
        thumbnail=False,
    )
    defaults: dict[str, Any] = {
        "image": image,
        "source": "page.png",
        "tiles": (place,),
        "grid": (side, side),
        "word_ids": ids,
        "probabilities": probabilities,
        "entropy": np.linspace(0, math.log(50), num_cells, dtype=np.float32),
        "words": words,
        "num_words": 50,
        "lines": None,
    }
    return PageLens(**defaults | options)


@pytest.fixture(scope="session")
def made_lens() -> Callable[..., PageLens]:
    return make_lens


@pytest.fixture(scope="session")
def lens_with() -> Callable[..., PageLens]:
    """A lens with other values in some of its fields."""

    def change(lens: PageLens, **fields: Any) -> PageLens:
        return PageLens(
            **{name: getattr(lens, name) for name in PageLens.__dataclass_fields__} | fields
        )

    return change
