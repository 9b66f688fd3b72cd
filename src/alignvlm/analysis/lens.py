"""What each cell of a page says: P_vocab of Eq. 1, read at every cell.

ALIGN makes a visual token of every cell as a weighted mean of text embeddings, so the weights say
in words what the connector hands to the language model. They are not attention: nothing here says
which cells an answer relied on.

Letters: T tiles, N cells a tile, K = T N cells of the page, V' words in use.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from alignvlm.connectors.align import Align
from alignvlm.errors import UsageError
from alignvlm.imaging.tiling import Box, TileGrid, Tiling, choose_grid, page_scale, tile_boxes
from alignvlm.model.condense import Condenser
from alignvlm.model.image_processing import to_rgb
from alignvlm.model.modeling import AlignVLMForConditionalGeneration
from alignvlm.model.processing import AlignVLMProcessor
from alignvlm.model.reading import Reading
from alignvlm.model.vision import encode

__all__ = ["LensLine", "PageLens", "TilePlace", "look"]

NUM_WORDS = 5
_CHUNK = 2**24  # numbers of P_vocab held at once: 64 MB in float32


@dataclass(frozen=True, kw_only=True)
class TilePlace:
    """Where the cells of one tile lie on the page.

    Attributes:
        x, y: top left corner of the tile's first cell, in page pixels; negative where a
            letterboxed tile begins before the page does.
        cell_width, cell_height: size of a cell in page pixels.
        part: the part of the page that the tile shows; cells end at its border.
        thumbnail: the tile shows the whole page, which the other tiles show again.
    """

    x: float
    y: float
    cell_width: float
    cell_height: float
    part: Box
    thumbnail: bool


@dataclass(frozen=True, kw_only=True)
class LensLine:
    """One visual row of the page as read off P_vocab.

    Attributes:
        text: its characters.
        cells: index of the cell behind each character, -1 where the text joins two columns.
        probabilities: share of each character at its cell, "empty" left out.
    """

    text: str
    cells: tuple[int, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class PageLens:
    """A page and what the connector says at each of its K cells.

    Cells are counted tile after tile (the thumbnail first, if there is one), row-major inside each.

    Attributes:
        image: the page, RGB.
        source: what the page is called, e.g. "invoice.pdf, page 2".
        tiles: the T tiles.
        grid: (rows, columns) of cells in a tile.
        word_ids: int64 [K, k], token ids of the k most probable words, best first.
        probabilities: float32 [K, k], theirs.
        entropy: float32 [K], of the whole distribution, in nats.
        words: text of every token id in `word_ids`.
        num_words: V', the words that the connector can say; the entropy is at most ln V'.
        lines: the text read off P_vocab, or None for a model that does not read.
    """

    image: Image.Image
    source: str
    tiles: tuple[TilePlace, ...]
    grid: tuple[int, int]
    word_ids: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    entropy: NDArray[np.float32]
    words: dict[int, str]
    num_words: int
    lines: tuple[LensLine, ...] | None

    @property
    def num_cells(self) -> int:
        """K, the cells of all tiles, those beside the page included."""
        return len(self.entropy)

    @property
    def text(self) -> str | None:
        """The page's text as the connector says it, or None for a model that does not read."""
        return None if self.lines is None else "\n".join(line.text for line in self.lines)

    @cached_property
    def boxes(self) -> NDArray[np.float32]:
        """(x0, y0, x1, y1) of every cell in page pixels, float32 [K, 4].

        Cut at the border of what the tile shows: a cell in a tile's padding has no area.
        """
        return np.concatenate([_cell_boxes(tile, self.grid) for tile in self.tiles])

    @cached_property
    def on_page(self) -> NDArray[np.bool_]:
        """Which cells show a part of the page, bool [K]."""
        left, top, right, bottom = self.boxes.T
        return (right > left) & (bottom > top)

    @cached_property
    def blank(self) -> NDArray[np.bool_]:
        """Which cells say whitespace before anything else, bool [K]."""
        return self._whitespace[:, 0]

    @cached_property
    def whitespace_probability(self) -> NDArray[np.float32]:
        """Probability of whitespace among the k best words, float32 [K]."""
        total: NDArray[np.float32] = (self.probabilities * self._whitespace).sum(axis=1)
        return total

    @cached_property
    def _whitespace(self) -> NDArray[np.bool_]:
        empty = [token_id for token_id, word in self.words.items() if not word.strip()]
        return np.isin(self.word_ids, empty)


@torch.inference_mode()
def look(
    model: AlignVLMForConditionalGeneration,
    processor: AlignVLMProcessor,
    page_image: Image.Image,
    *,
    source: str = "page",
) -> PageLens:
    """Reads P_vocab at every cell of a page.

    Args:
        model: a model whose connector is ALIGN, on any device.
        processor: the model's.
        page_image: the page, any mode.
        source: what to call the page.

    Returns:
        The `NUM_WORDS` most probable words of each cell, and the page's text if the model has a
        condenser whose words are single characters.

    Raises:
        UsageError: the connector does not say words.
        InputError: the page has no pixels.
    """
    backbone = model.model
    connector = backbone.connector
    if not isinstance(connector, Align):
        raise UsageError(
            f"The connector {type(connector).__name__} has no probabilities over words to "
            "look at; give a model whose connector is Align"
        )
    image = to_rgb(page_image)
    tiling = Tiling(**processor.image_processor.tiling)
    grid = choose_grid(*image.size, tiling)
    inputs = processor.image_processor(image, return_tensors="pt")
    features = encode(
        backbone.vision_model,
        inputs["pixel_values"].to(model.device),
        [grid],
        model.config.vision_feature_layer,
    )
    condenser = _reader(backbone.condenser)
    best, rows, entropy, probs = _say(
        connector, features.flatten(0, 1), keep_all=condenser is not None
    )
    word_ids = connector.kept_ids.cpu()[rows].numpy()
    decode = processor.tokenizer.decode
    cells = model.config.feature_grid
    return PageLens(
        image=image,
        source=source,
        tiles=_places(image.size, tiling, grid, _cell_px(model.config.vision_config)),
        grid=cells,
        word_ids=word_ids,
        probabilities=best.numpy(),
        entropy=entropy.numpy(),
        words={int(i): decode([int(i)], skip_special_tokens=False) for i in np.unique(word_ids)},
        num_words=connector.num_words,
        lines=None if condenser is None else _lines(condenser.read(probs, grid), grid, cells),
    )


def _reader(condenser: object) -> Condenser | None:
    """The condenser if it can read text: it has a tokenizer and words of one character each."""
    if not isinstance(condenser, Condenser) or condenser.tokenizer is None:
        return None
    return condenser if all(len(word) == 1 for word in condenser.characters()) else None


def _say(
    connector: Align, features: Tensor, *, keep_all: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What features F [K, d] say.

    Returns:
        Probabilities and columns of P_vocab of the best words, each [K, k]; entropies [K] in nats;
        P_vocab [K, V'] if all is kept, else without a row. All on the CPU.

    P_vocab of a page over a full vocabulary takes gigabytes (K = 7,290, V = 128,256: 3.7 GB), so
    only some cells are computed at once, and it is kept only where it is asked for.
    """
    best, columns, entropies, kept = [], [], [], [torch.empty(0, connector.num_words)]
    for some in features.split(max(1, _CHUNK // connector.num_words)):
        probs = connector.probabilities(some).float()
        top = probs.topk(min(NUM_WORDS, connector.num_words), dim=-1)
        best.append(top.values.cpu())
        columns.append(top.indices.cpu())
        entropies.append(torch.special.entr(probs).sum(-1).cpu())
        if keep_all:
            kept.append(probs.cpu())
    return torch.cat(best), torch.cat(columns), torch.cat(entropies), torch.cat(kept)


def _cell_px(vision_config: Any) -> tuple[int, int]:
    """(height, width) of a cell in pixels of the tile."""
    if hasattr(vision_config, "cell_height_px"):
        return vision_config.cell_height_px, vision_config.cell_width_px
    return vision_config.patch_size, vision_config.patch_size


def _places(
    size: tuple[int, int], tiling: Tiling, grid: TileGrid, cell_px: tuple[int, int]
) -> tuple[TilePlace, ...]:
    """Where the tiles of a page of this (width, height) lie on it."""
    side = tiling.tile_px
    places = []
    for index, part in enumerate(tile_boxes(*size, tiling)):
        if tiling.layout == "canvas":
            scale_x = scale_y = page_scale(*size, tiling)
            x, y = part[0], part[1]
        else:
            # As the part was letterboxed: the longer side fills the tile, centred.
            width, height = part[2] - part[0], part[3] - part[1]
            longer = max(width, height)
            new_w, new_h = (max(1, int(length * side // longer)) for length in (width, height))
            scale_x, scale_y = new_w / width, new_h / height
            x = part[0] - (side // 2 - new_w // 2) / scale_x
            y = part[1] - (side // 2 - new_h // 2) / scale_y
        places.append(
            TilePlace(
                x=x,
                y=y,
                cell_width=cell_px[1] / scale_x,
                cell_height=cell_px[0] / scale_y,
                part=part,
                thumbnail=grid.thumbnail and index == 0,
            )
        )
    return tuple(places)


def _cell_boxes(tile: TilePlace, grid: tuple[int, int]) -> NDArray[np.float32]:
    """Boxes of one tile's cells, float32 [N, 4], cut at the part of the page that it shows."""
    rows, columns = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    left, top, right, bottom = tile.part
    xs = [(columns + step) * tile.cell_width + tile.x for step in (0, 1)]
    ys = [(rows + step) * tile.cell_height + tile.y for step in (0, 1)]
    x0, x1 = (edge.clip(left, right) for edge in xs)
    y0, y1 = (edge.clip(top, bottom) for edge in ys)
    return np.stack((x0, y0, x1, y1), axis=1).astype(np.float32)


def _lines(reading: Reading, grid: TileGrid, cells: tuple[int, int]) -> tuple[LensLine, ...]:
    """The visual rows of a reading, their characters with cells counted as in `PageLens`."""
    rows, columns = cells
    lines = []
    for row in reading.rows:
        text: list[str] = []
        places: list[int] = []
        shares: list[float] = []
        for line in row:
            if text:
                text, places, shares = [*text, " ", " "], [*places, -1, -1], [*shares, 1.0, 1.0]
            for glyph in line.glyphs:
                tile = (glyph.row // rows) * grid.cols + glyph.column // columns
                cell = (tile + grid.thumbnail) * rows + glyph.row % rows
                text.append(glyph.char)
                places.append(cell * columns + glyph.column % columns)
                shares.append(glyph.probability)
        lines.append(LensLine(text="".join(text), cells=tuple(places), probabilities=tuple(shares)))
    return tuple(lines)
