"""Vision encoders behind one interface: tiles in, visual features F out.

Letters of section 3.1: T tiles, N patches (features) a tile, d vision width.
"""

from __future__ import annotations

from torch import Tensor
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from alignvlm.imaging.tiling import TileGrid
from alignvlm.model.configuration import feature_grid
from alignvlm.model.document_encoder import DocumentEncoder


def build_vision_model(config: PreTrainedConfig) -> PreTrainedModel:
    """The encoder of a configuration, with fresh weights."""
    return AutoModel.from_config(config)


def encode(
    vision_model: PreTrainedModel,
    pixel_values: Tensor,
    grids: list[TileGrid] | None,
    feature_layer: int,
) -> Tensor:
    """Features of tiles.

    Args:
        vision_model: the encoder.
        pixel_values: [T, 3, S, S], normalised as the encoder expects.
        grids: one for each image, in the order of the tiles; None: every tile is an image.
        feature_layer: index into the encoder's hidden states; see
            `AlignVLMConfig.vision_feature_layer`.

    Returns:
        F [T, N, d] in the encoder's dtype, row-major inside each tile. Tokens that some encoders
        put before the patches (class, registers) are dropped.
    """
    pixel_values = pixel_values.to(vision_model.dtype)
    if isinstance(vision_model, DocumentEncoder):
        return vision_model(pixel_values, grids=_stitched(grids)).last_hidden_state
    # Asking for one index, not for all, spares the memory of the other layers' states.
    outputs = vision_model(pixel_values, output_hidden_states=[feature_layer], return_dict=True)
    rows, columns = feature_grid(vision_model.config)
    return outputs.hidden_states[feature_layer][:, -rows * columns :]


def _stitched(grids: list[TileGrid] | None) -> list[tuple[int, int]] | None:
    """Grids whose tiles join; the thumbnail is a picture of its own."""
    if grids is None:
        return None
    joined: list[tuple[int, int]] = []
    for grid in grids:
        joined += [(1, 1)] if grid.thumbnail else []
        joined.append((grid.rows, grid.cols))
    return joined
