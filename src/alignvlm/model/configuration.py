"""Configuration of an AlignVLM model: vision encoder, tiling, connector, language model."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from transformers import AutoConfig, PreTrainedConfig

from alignvlm.connectors import registry
from alignvlm.connectors.base import Connector
from alignvlm.errors import ConfigurationError
from alignvlm.imaging.tiling import TileGrid, Tiling, choose_grid
from alignvlm.model.anyres import Joining, num_joined_tokens
from alignvlm.model.compat import SubConfigSpec, strict

# SigLIP-so400m-patch14-384, the paper's vision encoder: 27 x 27 patches of 14 px (the stride
# drops the last 6 of 384 px). Its pooling head is left out: no visual token passes through it.
SIGLIP_SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
    "vision_use_head": False,
}

MERGES = ("none", "average", "spell")


def num_visual_tokens(
    tiles: int | TileGrid, placeholders_per_tile: int | None, joining: Joining | None = None
) -> int:
    """Placeholders that one image takes in `input_ids`; the only formula for them.

    Args:
        tiles: the image's grid; its number of tiles will do where nothing is joined.
        placeholders_per_tile: N', the visual tokens of a tile, or None for a model that condenses
            its visual tokens: their number is known only once the page has been read, so one
            placeholder stands for the image and the model replaces it by as many as are left.
        joining: `AlignVLMConfig.joining`, None: all visual tokens of all tiles are read.
    """
    if placeholders_per_tile is None:
        return 1
    if joining is not None:
        assert isinstance(tiles, TileGrid)
        return num_joined_tokens(tiles, joining)
    num_tiles = tiles.num_tiles if isinstance(tiles, TileGrid) else tiles
    return num_tiles * placeholders_per_tile


def feature_grid(vision_config: PreTrainedConfig) -> tuple[int, int]:
    """(rows, columns) of the features of one tile, N = rows * columns.

    Raises ConfigurationError for an encoder that states neither cells nor square patches.
    """
    if hasattr(vision_config, "cell_height_px"):
        return vision_config.num_rows, vision_config.num_columns
    size, patch = (
        getattr(vision_config, "image_size", None),
        getattr(vision_config, "patch_size", None),
    )
    if not isinstance(size, int) or not isinstance(patch, int):
        raise ConfigurationError(
            f"The vision encoder {vision_config.model_type!r} has no integer image_size and "
            "patch_size, so its visual tokens cannot be counted; choose one that does"
        )
    return size // patch, size // patch


def tile_side(vision_config: PreTrainedConfig) -> int:
    """S, the side of the square tile in pixels that the vision encoder takes."""
    side = getattr(vision_config, "tile_px", None) or getattr(vision_config, "image_size", None)
    if not isinstance(side, int):
        raise ConfigurationError(
            f"The vision encoder {vision_config.model_type!r} states no square input size in "
            "pixels; choose one with an integer image_size"
        )
    return side


@strict
class AlignVLMConfig(PreTrainedConfig):
    """Everything that `config.json` holds.

    Args:
        vision_config: any vision encoder that `AutoConfig` knows, by default SigLIP-so400m.
        text_config: any causal language model that `AutoConfig` knows.
        connector: `{"name": "align", **options}`; names and options as in
            `alignvlm.connectors.registry`. A built model adds the `vocab_size` of its ALIGN, which
            stays when the language model's vocabulary grows.
        tiling: fields of `alignvlm.imaging.tiling.Tiling`; `tile_px` follows the encoder. With
            layout "anyres" and a connector whose visual tokens have no grid (Perceiver), a page
            has at most `max_tiles` tiles (`max_grid_tiles` says so), and all their visual tokens
            are read in their order: nothing is unpadded or shrunk, and no row ends in a newline.
        condense: `{"prune": bool, "merge": "none" | "average" | "spell"}` and its thresholds, see
            `alignvlm.model.condense`; off by default, as in the paper.
        image_token_id: the placeholder of a visual token in `input_ids`, an existing special
            token of the LLM's vocabulary, which therefore keeps its size.
        vision_feature_layer: which of the encoder's hidden states is F. The paper does not say.
            -1, as in Ovis, is the output of the last layer before the post-LayerNorm; -2 is
            LLaVA's recipe. Encoders without intermediate states (the document encoder) give
            their last one.
        tie_word_embeddings: always a copy of the text configuration's; transformers reads it here.

    Raises ConfigurationError where parts contradict each other.
    """

    model_type = "alignvlm"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "vision_config": SubConfigSpec(
            config_class=AutoConfig, model_type="siglip_vision_model", init_kwargs=SIGLIP_SO400M
        ),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama"),
    }

    vision_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    connector: dict | None = None
    tiling: dict | None = None
    condense: dict | None = None
    image_token_id: int = 0
    vision_feature_layer: int = -1
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.tie_word_embeddings = bool(self.text_config.tie_word_embeddings)
        self.connector = {"name": "align", **(self.connector or {})}
        self.condense = {"prune": False, "merge": "none", **(self.condense or {})}
        side = tile_side(self.vision_config)
        self.tiling = _tiling({"tile_px": side, **(self.tiling or {})}).options()
        if self.tiling["tile_px"] != side:
            raise ConfigurationError(
                f"tiling.tile_px is {self.tiling['tile_px']} and the vision encoder takes tiles "
                f"of {side} px; leave tiling.tile_px out or set it to {side}"
            )
        if self.condense["merge"] not in MERGES:
            raise ConfigurationError(
                f"condense.merge is {self.condense['merge']!r}; choose one of {', '.join(MERGES)}"
            )
        if not 0 <= self.image_token_id < self.text_config.vocab_size:
            raise ConfigurationError(
                f"image_token_id {self.image_token_id} is outside the vocabulary of "
                f"{self.text_config.vocab_size} tokens; choose a special token of the tokenizer"
            )
        if self.tiling["layout"] == "anyres":
            self._check_anyres()

    @property
    def condenses(self) -> bool:
        """Whether visual tokens are pruned or merged before the language model."""
        return bool(self.condense["prune"]) or self.condense["merge"] != "none"

    @property
    def feature_grid(self) -> tuple[int, int]:
        """(rows, columns) of the vision features of one tile."""
        return feature_grid(self.vision_config)

    @property
    def joining(self) -> Joining | None:
        """How the visual tokens of an image's tiles are joined; None: one after the other."""
        if self.tiling["layout"] != "anyres":
            return None
        with torch.device("meta"):
            return self.joining_of(build_connector(self))

    def joining_of(self, connector: Connector) -> Joining | None:
        """`joining` with a connector that has been built."""
        if self.tiling["layout"] != "anyres":
            return None
        tile = connector.output_grid(self.feature_grid)
        if tile is None:
            return None
        return Joining(
            tile=tile, max_tiles=self.tiling["max_tiles"], newline=self.tiling["newline"]
        )

    def num_visual_tokens(self, height: int, width: int) -> int:
        """Placeholders of one image of this size in pixels."""
        grid = choose_grid(width, height, _tiling(self.tiling or {}))
        return num_visual_tokens(grid, self.placeholders_per_tile, self.joining)

    @property
    def tokens_per_tile(self) -> int:
        """N', the visual tokens that the connector makes of one tile."""
        with torch.device("meta"):
            return build_connector(self).num_visual_tokens(self.feature_grid)

    @property
    def placeholders_per_tile(self) -> int | None:
        """Placeholders of one tile in `input_ids`; None: one for the whole image."""
        return None if self.condenses else self.tokens_per_tile

    def _check_anyres(self) -> None:
        if self.condenses:
            raise ConfigurationError(
                'Visual tokens of tiling.layout "anyres" cannot be condensed: choose the layout '
                '"cells" or "canvas", or switch condense off'
            )
        if self.joining is None:
            tiling = _tiling(self.tiling or {})
            self.tiling = tiling.limited(tiling.max_tiles).options()


def build_connector(config: AlignVLMConfig) -> Connector:
    """The connector that a configuration names, with fresh parameters."""
    options = {"vocab_size": config.text_config.vocab_size} | config.connector
    return registry.build(
        options.pop("name"),
        vision_dim=config.vision_config.hidden_size,
        text_dim=config.text_config.hidden_size,
        **options,
    )


def _tiling(options: dict[str, Any]) -> Tiling:
    try:
        return Tiling(**options)
    except TypeError as error:
        known = ", ".join(Tiling.__dataclass_fields__)
        given = ", ".join(options)
        raise ConfigurationError(
            f"The tiling options {given} hold one that does not exist; known are {known}"
        ) from error
