"""Fewer visual tokens, because P_vocab says what each of them holds.

Three ways, chosen by the configuration's `condense`:

- `prune`: visual tokens whose most probable word is whitespace are dropped; one stays at the end
  of every row of cells that holds text, so that rows remain apart.
- `merge="average"`: neighbours in a row that say the same word become their mean.
- `merge="spell"`: the page is read (reading.py) and neighbouring characters that together spell a
  token of the LLM's vocabulary become that token's embedding. Where a character is uncertain, the
  tokens that its second guess would spell are mixed in with its probability, so that a visual
  token stays a weighted mean of text embeddings (Eq. 2) - of whole words instead of letters.

Unlike the paper, which hands every visual token to the LLM.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from alignvlm.errors import ConfigurationError, WeightsError
from alignvlm.imaging.tiling import TileGrid
from alignvlm.model.configuration import AlignVLMConfig
from alignvlm.model.reading import ReadGlyph, Reading, read

_UNSURE = 0.95  # a character less probable than this brings its second guess along
_MAX_GUESSES = 3  # uncertain characters of one token that are varied


class Condenser:
    """Shortens one image's visual tokens between connector and LLM.

    Args:
        feature_grid: (rows, columns) of visual tokens in a tile.
        token_ids: token of the LLM's vocabulary behind each of the connector's V' words.
        prune, merge: see the module.

    Attributes:
        tokenizer: needed for `merge="spell"` and for reading; `from_pretrained`, and
            `AlignVLM.build` where it has a tokenizer, set it.
    """

    def __init__(
        self, feature_grid: tuple[int, int], token_ids: Sequence[int], *, prune: bool, merge: str
    ) -> None:
        if merge == "spell" and not prune:
            raise ConfigurationError(
                "condense.merge is 'spell', which drops whitespace by itself: set prune to true"
            )
        self._feature_grid = feature_grid
        self._token_ids = list(token_ids)
        self._prune = prune
        self._merge = merge
        self.tokenizer: Tokenizer | None = None

    def __call__(self, tokens: Tensor, probs: Tensor, grid: TileGrid, embeddings: Tensor) -> Tensor:
        """Condense one image.

        Args:
            tokens: visual tokens [T*N, D], tile after tile, row-major inside each.
            probs: P_vocab float32 [T*N, V'] in the same order.
            grid: its tiles; a thumbnail is left out, it repeats what the others show.
            embeddings: E [V, D].

        Returns:
            [N'', D]; no row at all for a blank page.
        """
        if self._merge == "spell":
            spelled = self.spell(self.read(probs, grid))
            return mix(spelled, embeddings).to(tokens.dtype)
        tokens, probs = self._page(tokens, grid), self._page(probs, grid)
        says = probs.argmax(-1)
        rows = [self._row(*row) for row in zip(tokens, says, strict=True)]
        return torch.cat(rows)

    def read(self, probs: Tensor, grid: TileGrid) -> Reading:
        """What the page says, for P_vocab float32 [T*N, V'] of one image."""
        page = self._page(probs, grid)
        return read(page.float().cpu().numpy(), self.characters())

    def characters(self) -> list[str]:
        """What each of the connector's words says; the first means "empty"."""
        tokenizer = self._tokenizer()
        return [tokenizer.decode([i], skip_special_tokens=False) for i in self._token_ids]

    def spell(self, reading: Reading) -> list[dict[int, float]]:
        """Tokens that spell a page's text, each with the alternatives of uncertain characters.

        Returns:
            For every visual token, weights by token id that sum to 1.
        """
        tokenizer = self._tokenizer()
        glyphs = _glyphs(reading)
        encoding = tokenizer.encode(reading.text, add_special_tokens=False)
        return [
            _alternatives(tokenizer, token_id, glyphs[start:end])
            for token_id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
        ]

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise ConfigurationError(
                "The model spells words and has no tokenizer yet: load it with from_pretrained, "
                "pass a tokenizer to AlignVLM.build, or set `model.model.condenser.tokenizer`"
            )
        return self.tokenizer

    def _page(self, cells: Tensor, grid: TileGrid) -> Tensor:
        """[T*N, ...] -> [rows of the page, columns of the page, ...]."""
        rows, columns = self._feature_grid
        if grid.thumbnail:
            cells = cells[rows * columns :]
        cells = cells.unflatten(0, (grid.rows, grid.cols, rows, columns))
        return cells.transpose(1, 2).flatten(2, 3).flatten(0, 1)

    def _row(self, tokens: Tensor, says: Tensor) -> Tensor:
        """One row of the page: [columns, D] and the row's words [columns] -> [N'', D]."""
        columns = torch.arange(len(says), device=says.device)
        if self._prune:
            kept = says != 0
            if not kept.any():
                return tokens[:0]
            # The last empty cell stands for the end of the row.
            blank = (~kept).nonzero()[-1:]
            order = torch.cat((kept.nonzero(), blank)).flatten()
            tokens, says, columns = tokens[order], says[order], columns[order]
        if self._merge == "average":
            starts = torch.ones_like(says, dtype=torch.bool)
            # Equal words with pruned cells between them are two: the letters of "ll".
            starts[1:] = (says[1:] != says[:-1]) | (columns.diff() != 1)
            group = starts.cumsum(0) - 1
            num_groups = int(group[-1]) + 1
            total = tokens.new_zeros(num_groups, tokens.shape[-1]).index_add_(0, group, tokens)
            return total / torch.bincount(group, minlength=num_groups).unsqueeze(-1)
        return tokens


def build_condenser(config: AlignVLMConfig) -> Condenser:
    """The condenser that a configuration asks for.

    Raises:
        ConfigurationError: the connector has no distribution over words, or an option is unknown.
    """
    options = dict(config.condense or {})
    vocabulary = config.connector.get("vocabulary")
    if config.connector["name"] != "align" or vocabulary is None:
        raise ConfigurationError(
            "condense needs the connector 'align' with a `vocabulary` whose first word means "
            "empty: set both, or switch condense off"
        )
    return Condenser(
        config.feature_grid, vocabulary, prune=bool(options["prune"]), merge=options["merge"]
    )


def load_plain_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model folder, for text of pages; see `plain`.

    Raises:
        WeightsError: there is no readable tokenizer.json.
    """
    path = folder / "tokenizer.json"
    try:
        return plain(Tokenizer.from_file(str(path)))
    except Exception as error:  # the library raises bare Exceptions
        raise WeightsError(
            f"{path} is missing or damaged: save the processor into the model's folder again."
        ) from error


def plain(tokenizer: Tokenizer) -> Tokenizer:
    """A copy for text of pages: `<|im_end|>` on a page is plain text, and nothing is cut off."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_truncation()
    # Some control tokens lack the mark of one, e.g. Qwen's <tool_call>; runs of spaces are none.
    added = copy.get_added_tokens_decoder().values()
    copy.add_special_tokens([token for token in added if len(token.content.strip()) > 1])
    copy.encode_special_tokens = True
    return copy


def mix(spelled: list[dict[int, float]], embeddings: Tensor) -> Tensor:
    """Eq. 2 on short lists of words: weights by token id -> visual tokens [N'', D] in E's dtype."""
    if not spelled:
        return embeddings[:0]
    width = max(len(weights) for weights in spelled)
    ids = np.zeros((len(spelled), width), dtype=np.int64)
    shares: NDArray[np.float32] = np.zeros((len(spelled), width), dtype=np.float32)
    for row, weights in enumerate(spelled):
        ids[row, : len(weights)] = list(weights)
        shares[row, : len(weights)] = list(weights.values())
    chosen = embeddings[torch.from_numpy(ids).to(embeddings.device)]
    weighted = chosen.float() * torch.from_numpy(shares).to(embeddings.device).unsqueeze(-1)
    return weighted.sum(1).to(embeddings.dtype)


def _glyphs(reading: Reading) -> list[ReadGlyph | None]:
    """The glyph behind each character of `reading.text`; None where the text joins lines."""
    glyphs: list[ReadGlyph | None] = []
    for index, row in enumerate(reading.rows):
        glyphs += [None] if index else []
        for number, line in enumerate(row):
            glyphs += [None, None] if number else []
            glyphs += line.glyphs
    return glyphs


def _alternatives(
    tokenizer: Tokenizer, token_id: int, glyphs: list[ReadGlyph | None]
) -> dict[int, float]:
    """The token that the best characters spell, and those that one second guess would spell."""
    weights = {token_id: 1.0}
    unsure = [
        (place, glyph)
        for place, glyph in enumerate(glyphs)
        if glyph is not None and glyph.probability < _UNSURE
    ]
    best = "".join(glyph.char if glyph else "" for glyph in glyphs)
    if len(best) != len(glyphs):
        return weights
    for place, glyph in unsure[:_MAX_GUESSES]:
        guess, share = glyph.other
        other = tokenizer.encode(best[:place] + guess + best[place + 1 :], add_special_tokens=False)
        if len(other.ids) == 1 and share > 0:
            weights[other.ids[0]] = weights.get(other.ids[0], 0.0) + share / glyph.probability
    total = sum(weights.values())
    return {token: weight / total for token, weight in weights.items()}
