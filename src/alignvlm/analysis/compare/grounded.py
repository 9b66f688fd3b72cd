"""Grounded alignment with words: ALIGN learns the LLM's token under every cell of a page first.

`training.grounded` does so with single characters for the default model. Here the targets are the
tokenizer's own: each run of text on a page is tokenized, and a token is named once, at the cell
under the middle of its ink, or, where two tokens share that cell, at the free one beside it; all
other cells say a space. A row of cells is then the line's text as the language model writes it,
with spaces between. To name a token at every cell that it covers would repeat long words and make
"11" look like a wide "1".

The pages are those that the cell is trained on afterwards, in the same order: the grounded
variant sees no page that the others do not see. What it has more are their boxes, and its steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from alignvlm.analysis.compare.plan import Cell, Comparison
from alignvlm.connectors import Align
from alignvlm.data.formats.synth import DrawnPages
from alignvlm.data.mixture import Mixture
from alignvlm.errors import ConfigurationError
from alignvlm.files import replacing
from alignvlm.model.document_encoder import DocumentEncoderConfig
from alignvlm.model.processing import AlignVLMProcessor
from alignvlm.synth.page import Glyph, Line, Page
from alignvlm.training.configuration import RunConfig
from alignvlm.training.labels import IGNORED, cell_labels
from alignvlm.training.loop import train
from alignvlm.training.models import build_model
from alignvlm.training.runs import open_mixture, train_config
from alignvlm.training.task import IndexedTask, Loss, Source

__all__ = ["GroundedTokens", "TokenLabels", "ground", "load_start"]

START = "start.safetensors"
_SAME_ROW = 0.35  # of the print's size: baselines nearer than that are one row of text
_VISION = "vision_model."


class TokenLabels:
    """The token that each cell of a page should say.

    Args:
        tokenizer: the language model's.
        grid: rows and columns of cells.
        cell_px: height and width of a cell.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, grid: tuple[int, int], cell_px: tuple[int, int]
    ) -> None:
        self._tokenizer, self._grid, self._cell_px = tokenizer, grid, cell_px
        self.space: int = self._ids(" ")[0][-1]

    def __call__(self, page: Page) -> NDArray[np.int64]:
        """Token ids [rows, columns]; `IGNORED` where two tokens share a cell without room."""
        lines: list[Line] = []
        for number, line in enumerate(page.lines):
            glyphs = self._tokens(line, _follows(page.lines[:number], line))
            lines.append(replace(line, glyphs=glyphs))
        words = {glyph.char: int(glyph.char) for line in lines for glyph in line.glyphs}
        rows, columns = self._grid
        return cell_labels(
            replace(page, lines=tuple(lines)),
            words | {" ": self.space},
            num_rows=rows, num_columns=columns,
            cell_height_px=self._cell_px[0], cell_width_px=self._cell_px[1],
            empty=self.space,
        )  # fmt: skip

    def _tokens(self, line: Line, follows: bool) -> tuple[Glyph, ...]:
        """A run's tokens with their boxes; the text of a glyph is its token's id."""
        lead = " " if follows else ""
        ids, offsets = self._ids(lead + line.text)
        found = []
        for token, (start, end) in zip(ids, offsets, strict=True):
            ink = [g for g in line.glyphs[max(0, start - len(lead)) : max(0, end - len(lead))]
                   if not g.char.isspace()]  # fmt: skip
            if not ink:
                continue
            x0, x1 = ink[0].x0, ink[-1].x1
            found.append(Glyph(str(token), x0, min(g.y0 for g in ink), x1, max(g.y1 for g in ink)))
        return tuple(found) or (replace(line.glyphs[0], char=str(self.space)),)

    def _ids(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        made = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return made["input_ids"], made["offset_mapping"]


class _Pages(Source):
    """Tiles of the pages that a cell is trained on, with their labels."""

    def __init__(self, mixture: Mixture, processor: AlignVLMProcessor, labels: TokenLabels) -> None:
        self._mixture, self._processor, self._labels = mixture, processor, labels

    def sample(self, index: int) -> tuple[Tensor, Tensor]:
        """`pixel_values` [3, S, S] and labels int64 [N] of the page at a position."""
        drawn = self._mixture.draw(index)
        source = self._mixture.sources[drawn.source]
        assert isinstance(source, DrawnPages)  # the comparison has refused other sources
        page = source.page(drawn.row)
        tiles: Any = self._processor.image_processor([page.image], return_tensors="pt")
        tiling = self._processor.image_processor.tiling
        side, scale = tiling["tile_px"], tiling["max_upscale"]
        fits = max(page.image.size) <= side and scale <= 1 and tiling["layout"] == "canvas"
        if not fits or len(tiles["pixel_values"]) != 1:
            raise ConfigurationError(
                f"Grounded labels lie on pages as they are drawn, and a page of "
                f"{page.image.width} x {page.image.height} px becomes {len(tiles['pixel_values'])} "
                f"tiles or is scaled: set model.tiling.layout=canvas, model.tiling.max_upscale=1 "
                "and draw pages of one tile"
            )
        return tiles["pixel_values"][0], torch.from_numpy(self._labels(page)).flatten()

    def collate(self, samples: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """`pixel_values` [B, 3, S, S] and `labels` [B, N]."""
        pixels, labels = zip(*samples, strict=True)
        return {"pixel_values": torch.stack(pixels), "labels": torch.stack(labels)}


class GroundedTokens(IndexedTask):
    """ALIGN, and the encoder where the recipe trains it, under the tokens of cells.

    Args:
        encoder: the vision encoder.
        connector: ALIGN.
        source: pages with labels.
        space: the token of empty cells.
        vision_factor: the encoder's learning rate over the connector's; 0 freezes it.
    """

    def __init__(
        self, encoder: nn.Module, connector: Align, source: Source, space: int, vision_factor: float
    ) -> None:
        self._source, self._space, self._factor = source, space, vision_factor
        encoder.requires_grad_(vision_factor > 0)
        connector.requires_grad_(True)
        self._module = nn.ModuleDict({"vision_model": encoder, "connector": connector})

    @property
    def module(self) -> nn.Module:
        """`vision_model` and `connector`."""
        return self._module

    @property
    def source(self) -> Source:
        """Drawn pages."""
        return self._source

    def learning_rate_factor(self, name: str) -> float:
        """See the class."""
        return self._factor if name.startswith(_VISION) else 1.0

    def loss(self, batch: dict[str, Tensor]) -> Loss:
        """Cross-entropy of P_vocab (Eq. 1) over all labelled cells, empty ones included."""
        encoder, connector = self._module["vision_model"], self._module["connector"]
        assert isinstance(connector, Align)
        logits = connector.vocab_logits(encoder(batch["pixel_values"]).last_hidden_state)
        labels = batch["labels"]
        loss = functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        with torch.no_grad():
            text = (labels != self._space) & (labels != IGNORED)
            right = (logits.argmax(-1) == labels)[text]
        weight = int((labels != IGNORED).sum())
        return Loss(loss, weight, {"accuracy": (float(right.sum()), float(right.numel()))})

    def finish(self, run_folder: Path, whole: Callable[[Tensor], Tensor], *, writes: bool) -> None:
        """Writes what the cell starts from."""
        state = {name: whole(value).cpu() for name, value in self._module.state_dict().items()}
        if writes:
            with replacing(run_folder / START) as temporary:
                save_file({name: t.contiguous() for name, t in state.items()}, temporary)


def ground(
    comparison: Comparison,
    cell: Cell,
    folder: Path,
    device: str,
    on_step: Callable[[int], None] | None = None,
) -> bool:
    """Train the start of a grounded cell, going on from what the folder holds.

    Returns:
        Whether it is done; else a signal has ended it, and the next call goes on.
    """
    if (folder / START).is_file():
        return True
    steps = comparison.num_grounded_steps(cell)
    config = replace(
        comparison.config(replace(cell, rate=comparison.recipe.rates.connector or cell.rate)),
        num_steps=steps, lora=None,
    )  # fmt: skip
    return train(_task(config), _settings(config, device), folder, on_step=on_step) >= steps


def load_start(model: nn.Module, folder: Path) -> None:
    """Give a model the encoder and connector that `ground` has trained."""
    inner: Any = model.model
    parts: dict[str, dict[str, Tensor]] = {"vision_model": {}, "connector": {}}
    for name, tensor in load_file(folder / START).items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    inner.vision_model.load_state_dict(parts["vision_model"])
    inner.connector.load_state_dict(parts["connector"])


def _task(config: RunConfig) -> GroundedTokens:
    model, processor = build_model(config.model, None, config.seed)
    inner: Any = model.model
    vision = model.config.vision_config
    if not isinstance(inner.connector, Align) or not isinstance(vision, DocumentEncoderConfig):
        raise ConfigurationError(
            "Grounded alignment needs ALIGN behind the document encoder, whose cells lie on a "
            "grid of known pixels: leave the grounded variant out"
        )
    cell_px = (vision.cell_height_px, vision.cell_width_px)
    labels = TokenLabels(processor.tokenizer, model.config.feature_grid, cell_px)
    pages = _Pages(open_mixture(config), processor, labels)
    rates = config.rates
    factor = (rates.vision or 0.0) / (rates.connector or 1.0)
    return GroundedTokens(inner.vision_model, inner.connector, pages, labels.space, factor)


def _settings(config: RunConfig, device: str) -> Any:
    """The loop's settings, with the connector's rate as the peak."""
    peak = config.rates.connector
    assert peak is not None  # the comparison has refused a frozen connector
    return replace(train_config(config, 1, device), learning_rate=peak, inspect_every=0)


def _follows(before: Sequence[Line], line: Line) -> bool:
    """Whether other text stands to the left in the same row."""
    y, x = line.baseline_at(line.glyphs[0].x0), line.glyphs[0].x0
    return any(
        abs(other.baseline_at(x) - y) < _SAME_ROW * line.font_px and other.glyphs[-1].x1 <= x
        for other in before
    )
