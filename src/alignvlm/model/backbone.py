"""Tiles -> vision encoder -> connector -> language model (Figure 2 of the paper), without its head.

Letters of section 3.1: B batch, M text tokens, I images, T tiles of all images, N features a tile,
N' visual tokens a tile, d vision width, D LLM width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling

from alignvlm.connectors.align import Align
from alignvlm.connectors.base import Connector, ConnectorOutput
from alignvlm.errors import ConfigurationError, UsageError
from alignvlm.imaging.tiling import TileGrid
from alignvlm.model.anyres import join
from alignvlm.model.compat import can_return_tuple, local_folder, where_options
from alignvlm.model.configuration import AlignVLMConfig, build_connector
from alignvlm.model.splice import SplicedInputs, expand, positions, scatter
from alignvlm.model.vision import build_vision_model, encode

Condenser = Callable[[Tensor, Tensor, TileGrid, Tensor], Tensor]
"""One image's visual tokens [T*N', D] and vocabulary probabilities [T*N', V'], tile after tile and
row-major inside each; its tile grid; the text embeddings E [V, D] -> visual tokens [N'', D]."""


# What a condenser needs of the connector.
_CONDENSED_BY = {"visual_tokens", "vocab_probs"}


@dataclass
class AlignVLMImageFeatures(BaseModelOutputWithPooling):
    """What `get_image_features` returns.

    Attributes:
        last_hidden_state: F [T, N, d], the vision features.
        pooler_output: the visual tokens that the language model reads, a list with one
            [N', D] for each image: all its tiles, condensed if the model condenses, or joined
            if its tiling says so.
        intermediates: the connector's named steps for all tiles [T, ...], if asked for.
    """

    intermediates: dict[str, Tensor] | None = None


@dataclass
class AlignVLMModelOutput(BaseModelOutputWithPast):
    """Output of the headless model; `image_hidden_states` are the visual tokens of each image."""

    image_hidden_states: list[Tensor] | None = None


class AlignVLMPreTrainedModel(PreTrainedModel):
    """Loading, saving and initialisation, common to both models."""

    config_class = AlignVLMConfig
    config: AlignVLMConfig
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _skip_keys_device_placement: ClassVar[list[str]] = ["past_key_values"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # Tiles and condensed visual tokens are counted from what a page holds: that breaks the graph.
    _can_compile_fullgraph = False

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | PathLike[str] | None, *args: Any, **kwargs: Any
    ) -> Any:
        """As in transformers; a model that spells also gets the tokenizer beside its weights.

        Raises a WeightsError if that has no readable tokenizer.json.
        """
        source = pretrained_model_name_or_path
        loaded = super().from_pretrained(source, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if source is not None and model.config.condense["merge"] == "spell":
            from alignvlm.model.condense import load_plain_tokenizer

            folder = local_folder(source, "tokenizer.json", **where_options(kwargs))
            model.base_model.condenser.tokenizer = load_plain_tokenizer(folder)
        return loaded

    def _init_weights(self, module: nn.Module) -> None:
        # A connector knows its own start; its parts come here first and are overwritten by it.
        if isinstance(module, Connector):
            module.reset_parameters()
        elif isinstance(module, AlignVLMModel):
            module.reset_newline()
        else:
            super()._init_weights(module)


class AlignVLMModel(AlignVLMPreTrainedModel):
    """Vision encoder, connector and language model, without the LM head.

    `condenser` shortens an image's visual tokens between connector and language model; it is None
    unless the configuration asks for it. `image_newline` [D] ends the rows of an image's visual
    tokens; it is None unless they are joined and the tiling wants it.
    """

    condenser: Condenser | None
    image_newline: nn.Parameter | None

    def __init__(self, config: AlignVLMConfig) -> None:
        super().__init__(config)
        self.vision_model = build_vision_model(config.vision_config)
        self.connector = build_connector(config)
        if isinstance(self.connector, Align):
            config.connector.setdefault("vocab_size", self.connector.vocab_size)
        self.language_model = AutoModel.from_config(config.text_config)
        self.condenser = _build_condenser(config)
        joining = config.joining_of(self.connector)
        newline = torch.empty(config.text_config.hidden_size)
        self.image_newline = nn.Parameter(newline) if joining and joining.newline else None
        self.post_init()

    def init_newline(self, like: Tensor) -> None:
        """Creates a newline that is still on the meta device, where and as `like` is."""
        if self.image_newline is not None and self.image_newline.is_meta:
            empty = torch.empty(self.image_newline.shape, dtype=like.dtype, device=like.device)
            self.image_newline = nn.Parameter(empty)
            self.reset_newline()

    def reset_newline(self) -> None:
        """Starts the newline from N(0, 1 / D), as LLaVA does."""
        if self.image_newline is not None:
            nn.init.normal_(self.image_newline, std=len(self.image_newline) ** -0.5)

    def get_input_embeddings(self) -> nn.Module:
        """The language model's table E [V, D]."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the language model's table."""
        self.language_model.set_input_embeddings(value)

    @can_return_tuple
    def get_image_features(
        self,
        pixel_values: Tensor,
        tile_grids: Tensor | None = None,
        return_intermediates: bool = False,
    ) -> AlignVLMImageFeatures:
        """The visual tokens of images.

        Args:
            pixel_values: [T, 3, S, S], the tiles of all images one after the other.
            tile_grids: int64 [I, 3], (rows, columns, thumbnail 0 or 1) of each image, or [I, 5]
                with its height and width in pixels for layout "anyres"; None: every tile is an
                image of its own.
            return_intermediates: also return the connector's named steps for all tiles.

        Raises:
            UsageError: the grids do not add up to T tiles, or leave out sizes that are needed.
        """
        grids = _tile_grids(tile_grids, len(pixel_values))
        features = encode(self.vision_model, pixel_values, grids, self.config.vision_feature_layer)
        connected = self._connect(features, return_intermediates)
        sizes = [grid.num_tiles for grid in grids]
        images = self._join(connected.visual_tokens.split(sizes), grids, tile_grids is None)
        if self.condenser is not None:
            images = self._condense(images, connected, grids)
        return AlignVLMImageFeatures(
            last_hidden_state=features,
            pooler_output=images,
            intermediates=connected.intermediates if return_intermediates else None,
        )

    def embed_inputs(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        tile_grids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> tuple[SplicedInputs, list[Tensor]]:
        """What the language model reads for text with images, and the visual tokens in it.

        Without a condenser the length stays M; with one, rows are as long as their images turn
        out to be and are padded on the left, mask and labels with them.

        Raises:
            UsageError: placeholders in `input_ids` and visual tokens differ in number.
        """
        images = self.get_image_features(pixel_values, tile_grids, return_dict=True).pooler_output
        text = self.get_input_embeddings()(input_ids)
        image_token = self.config.image_token_id
        if self.condenser is not None:
            spliced = expand(input_ids, text, images, image_token, attention_mask, labels)
            return spliced, images
        grids = _tile_grids(tile_grids, len(pixel_values))
        embeds = scatter(input_ids, text, images, grids, image_token)
        spliced = SplicedInputs(inputs_embeds=embeds, attention_mask=attention_mask, labels=labels)
        return spliced, images

    def check_positions(self, position_ids: Tensor | None) -> None:
        """Raises a UsageError for positions of text whose images will change its length."""
        if self.condenser is not None and position_ids is not None:
            raise UsageError(
                "position_ids count placeholders and this model condenses images to other lengths; "
                "leave position_ids out"
            )

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        tile_grids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> AlignVLMModelOutput:
        """Hidden states of the language model [B, L, D].

        It reads `input_ids`, int64 [B, M] with placeholders, or `inputs_embeds` [B, M, D].
        `pixel_values` and `tile_grids`, as in `get_image_features`, go with `input_ids`;
        `attention_mask` is int64 [B, M], 0 where there is padding; the rest is what the language
        model itself takes.
        """
        check_inputs(input_ids, inputs_embeds, pixel_values)
        images = None
        if input_ids is not None and pixel_values is not None:
            self.check_positions(position_ids)
            spliced, images = self.embed_inputs(input_ids, pixel_values, tile_grids, attention_mask)
            inputs_embeds, attention_mask = spliced.inputs_embeds, spliced.attention_mask
        elif inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        fresh = past_key_values is None or past_key_values.get_seq_length() == 0
        if position_ids is None and fresh and attention_mask is not None:
            # Left padding must not shift positions, in training as in generation.
            position_ids = positions(attention_mask) if attention_mask.ndim == 2 else None
        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        return AlignVLMModelOutput(
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=images,
        )

    def _connect(self, features: Tensor, return_intermediates: bool) -> ConnectorOutput:
        """The connector over all tiles; one at a time where its steps are wanted as values only.

        ALIGN's logits are N V numbers a tile, 0.4 GB in float32 for 729 and 128,256. A condenser
        needs its probabilities alone, so nothing else of a tile is kept for it.
        """
        grid = self.config.feature_grid
        with_steps = return_intermediates or self.condenser is not None
        options = {
            "embeddings": self.text_embeddings(),
            "grid": grid,
            "return_intermediates": with_steps,
        }
        if not with_steps or torch.is_grad_enabled() or len(features) == 1:
            return self.connector(features, **options)
        tiles: list[dict[str, Tensor]] = []
        for tile in features.split(1):
            steps = self.connector(tile, **options).intermediates
            names = steps if return_intermediates else steps.keys() & _CONDENSED_BY
            tiles.append({name: steps[name] for name in names})
        joined = {name: torch.cat([steps[name] for steps in tiles]) for name in tiles[0]}
        return ConnectorOutput(
            visual_tokens=joined["visual_tokens"],
            grid=self.connector.output_grid(grid),
            intermediates=joined,
        )

    def _join(
        self, images: Sequence[Tensor], grids: list[TileGrid], are_tiles: bool
    ) -> list[Tensor]:
        """The visual tokens of each image's tiles [T, N', D] as one sequence."""
        joining = self.config.joining_of(self.connector)
        if joining is None:
            return [tiles.flatten(0, 1) for tiles in images]
        if not are_tiles and any(grid.page_px is None for grid in grids):
            raise UsageError(
                "tile_grids have no image sizes, which tell the padding of tiling.layout "
                '"anyres"; pass them as the processor of this model returned them'
            )
        pairs = zip(images, grids, strict=True)
        return [join(tiles, grid, joining, self.image_newline) for tiles, grid in pairs]

    def text_embeddings(self) -> Tensor:
        """E [V, D] as the language model reads it; some, e.g. Gemma 3, scale it on lookup."""
        embedding = self.get_input_embeddings()
        scale = getattr(embedding, "embed_scale", None)
        table = embedding.get_parameter("weight")
        return table if scale is None else table * scale

    def _condense(
        self, images: list[Tensor], connected: ConnectorOutput, grids: list[TileGrid]
    ) -> list[Tensor]:
        assert self.condenser is not None and connected.intermediates is not None
        if "vocab_probs" not in connected.intermediates:
            raise ConfigurationError(
                f"The connector {self.config.connector['name']!r} gives no probabilities over the "
                "vocabulary to condense by; use 'align' or switch condense off"
            )
        embeddings = self.text_embeddings()
        probs = connected.intermediates["vocab_probs"].split([grid.num_tiles for grid in grids])
        return [
            self.condenser(tokens, tiles.flatten(0, 1), grid, embeddings)
            for tokens, tiles, grid in zip(images, probs, grids, strict=True)
        ]


def _build_condenser(config: AlignVLMConfig) -> Condenser | None:
    if not config.condenses:
        return None
    from alignvlm.model.condense import build_condenser

    return build_condenser(config)


def check_inputs(
    input_ids: Tensor | None, inputs_embeds: Tensor | None, pixel_values: Tensor | None
) -> None:
    """Raises a UsageError unless there is one text input, and ids where there are images."""
    if (input_ids is None) == (inputs_embeds is None):
        raise UsageError("Pass exactly one of input_ids and inputs_embeds")
    if pixel_values is not None and input_ids is None:
        raise UsageError("pixel_values need input_ids, whose placeholders say where the images go")


def _tile_grids(tile_grids: Tensor | None, num_tiles: int) -> list[TileGrid]:
    if tile_grids is None:
        return [TileGrid(rows=1, cols=1, thumbnail=False)] * num_tiles
    grids = [TileGrid.from_row(row) for row in tile_grids.tolist()]
    counted = sum(grid.num_tiles for grid in grids)
    if counted != num_tiles:
        raise UsageError(
            f"tile_grids describe {counted} tiles in {len(grids)} images and pixel_values hold "
            f"{num_tiles}; pass both as the processor returned them"
        )
    return grids
