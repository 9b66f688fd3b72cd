"""Asking a model about a page, with every part of it timed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from alignvlm.errors import ConfigurationError
from alignvlm.imaging.tiling import TileGrid
from alignvlm.model.build import AlignVLM
from alignvlm.model.condense import Condenser, build_condenser, load_plain_tokenizer
from alignvlm.model.processing import AlignVLMProcessor
from alignvlm.model.splice import expand

CONDENSE_WAYS: dict[str, dict[str, Any]] = {
    "spell": {"prune": True, "merge": "spell"},
    "prune + average": {"prune": True, "merge": "average"},
    "prune": {"prune": True, "merge": "none"},
    "average": {"prune": False, "merge": "average"},
    "none": {"prune": False, "merge": "none"},
}
"""What may happen to visual tokens between connector and language model; fewest tokens first."""

_MAX_NEW_TOKENS = 32


@dataclass(frozen=True)
class EncodedPage:
    """A page as the language model reads it.

    Attributes:
        tokens: visual tokens, or a text's embeddings, [N'', D].
        text: what was read.
        seconds: that making them took.
    """

    tokens: Tensor
    text: str
    seconds: float


@dataclass(frozen=True)
class Answer:
    """An answer and the seconds that the language model took for it."""

    text: str
    seconds: float


class Reader:
    """A whole model, from its folder: pages to visual tokens and to text.

    Args:
        folder: as `AlignVLM.from_pretrained` takes it, tokenizer and processor inside.
        dtype: of the weights in memory.

    Raises:
        ConfigurationError: its connector is not ALIGN over a list of characters.
    """

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        make: Any = AlignVLM  # never an instance of itself, which type checkers cannot follow
        self.model = make.from_pretrained(folder, dtype=dtype).eval()
        self.processor = AlignVLMProcessor.from_pretrained(folder)
        self.tokenizer: Tokenizer = load_plain_tokenizer(folder)
        config = self.model.config
        vocabulary = config.connector.get("vocabulary")
        if config.connector["name"] != "align" or vocabulary is None:
            raise ConfigurationError(
                f"The model in {folder} does not read characters: only one whose connector is "
                "'align' with a `vocabulary` can be measured"
            )
        self._reader = Condenser(config.feature_grid, vocabulary, prune=True, merge="spell")
        self._reader.tokenizer = self.tokenizer
        self.characters = self._reader.characters()
        self.condense(config.condense)

    def condense(self, options: dict[str, Any]) -> None:
        """Change what happens to visual tokens: a value of `CONDENSE_WAYS`."""
        self.model.config.condense = dict(options)
        self.model.model.condenser = None
        if self.model.config.condenses:
            condenser = build_condenser(self.model.config)
            condenser.tokenizer = self.tokenizer
            self.model.model.condenser = condenser

    @torch.no_grad()
    def encode(self, image: Image.Image) -> EncodedPage:
        """Tiles, encoder, connector and condenser; the reading for `text` is not timed."""
        start = time.perf_counter()
        inputs = self.processor.image_processor(image, return_tensors="pt")
        features = self.model.get_image_features(
            inputs["pixel_values"], inputs["tile_grids"], return_intermediates=True
        )
        seconds = time.perf_counter() - start
        rows, cols, thumbnail = inputs["tile_grids"][0].tolist()
        grid = TileGrid(rows=rows, cols=cols, thumbnail=bool(thumbnail))
        probs = features.intermediates["vocab_probs"].flatten(0, 1)
        text = self._reader.read(probs, grid).text
        return EncodedPage(features.pooler_output[0], text, seconds)


class Asker:
    """A causal language model that answers about a page given as embeddings.

    The chat template is the processor's, whatever stands in the page's place: visual tokens or
    text. All systems are therefore asked in the same words.

    Args:
        llm: a causal language model, or a whole AlignVLM model.
        processor: with the chat template and the tokenizer.
        suffix: added to every question, e.g. to ask an untuned model to be short.
    """

    def __init__(self, llm: Any, processor: AlignVLMProcessor, suffix: str = "") -> None:
        self._llm = llm
        self._processor = processor
        self._suffix = suffix

    @property
    def embeddings(self) -> Tensor:
        """E [V, D]."""
        table: Tensor = self._llm.get_input_embeddings().weight
        return table

    @torch.no_grad()
    def ask(self, page: Tensor, question: str) -> Answer:
        """The greedy answer to a question about a page [N'', D]."""
        start = time.perf_counter()
        content = [{"type": "image"}, {"type": "text", "text": question + self._suffix}]
        prompt = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        tokenizer = self._processor.tokenizer
        ids = torch.tensor([tokenizer.encode(prompt, add_special_tokens=False)])
        text = self._llm.get_input_embeddings()(ids)
        spliced = expand(ids, text, [page], self._processor.image_token_id)
        new_ids = self._llm.generate(
            inputs_embeds=spliced.inputs_embeds,
            attention_mask=spliced.attention_mask,
            max_new_tokens=_MAX_NEW_TOKENS,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
        answer = tokenizer.decode(new_ids[0], skip_special_tokens=True).strip()
        return Answer(answer, time.perf_counter() - start)
