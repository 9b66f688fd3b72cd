"""Pages to tiles to pixel values, by `alignvlm.imaging.tiling` alone: PIL and NumPy, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import BatchFeature

from alignvlm.errors import InputError, UsageError
from alignvlm.imaging.decode import load_pages, on_paper, upright
from alignvlm.imaging.tiling import TileGrid, Tiling, choose_grid, split
from alignvlm.model.compat import BaseImageProcessor, make_flat_list_of_images


class AlignVLMImageProcessor(BaseImageProcessor):
    """Images to `pixel_values` and `tile_grids`.

    Args:
        tiling: fields of `alignvlm.imaging.tiling.Tiling`; defaults are the paper's.
        image_mean: subtracted from values in [0, 1]; 0.5, as SigLIP.
        image_std: divides what is left; 0.5, so that pixel values lie in [-1, 1].
    """

    model_input_names = ["pixel_values", "tile_grids"]  # noqa: RUF012, the base class's own

    def __init__(
        self,
        tiling: dict[str, Any] | None = None,
        image_mean: Sequence[float] = (0.5, 0.5, 0.5),
        image_std: Sequence[float] = (0.5, 0.5, 0.5),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.tiling = dict(tiling or {})
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)
        self._tiling()  # wrong options fail here, not at the first page

    def preprocess(
        self,
        images: Any,
        return_tensors: str | None = None,
        max_tiles: int | None = None,
        **_: object,
    ) -> BatchFeature:
        """Cut and normalise images.

        Args:
            images: one image or a (nested) list: PIL, uint8 arrays or tensors [H, W, 3] or
                [3, H, W], or paths of local files, whose first page is taken.
            return_tensors: "pt", "np" or None.
            max_tiles: of an image's grid, where it is to be fewer than the tiling allows.
            _: settings of other image processors; tiles have one size and one normalisation.

        Returns:
            `pixel_values` float32 [T, 3, S, S], the tiles of all images one after the other, and
            `tile_grids` int64 [I, 3]: rows, columns, and 1 if a thumbnail comes first. With
            layout "anyres" they are [I, 5]: the image's height and width in pixels follow.

        Raises:
            InputError: an image cannot be used.
            UsageError: an address instead of a file.
        """
        pages = make_flat_list_of_images(self.fetch_images(images))
        tiling = self._tiling(max_tiles)
        cut = [split(to_rgb(page), tiling) for page in pages]
        tiles = np.concatenate([page for page, _ in cut])
        mean = np.asarray(self.image_mean, dtype=np.float32)
        std = np.asarray(self.image_std, dtype=np.float32)
        values = (tiles.astype(np.float32) / 255 - mean) / std
        grids = [grid.as_row() for _, grid in cut]
        data = {
            "pixel_values": np.ascontiguousarray(values.transpose(0, 3, 1, 2)),
            "tile_grids": np.asarray(grids, dtype=np.int64),
        }
        return BatchFeature(data, tensor_type=return_tensors)

    @property
    def max_tiles(self) -> int:
        """Most tiles of one image's grid, the thumbnail not counted."""
        return self._tiling().largest_grid

    def num_tiles(self, height: int, width: int, max_tiles: int | None = None) -> int:
        """T of one image of this size in pixels; `max_tiles` as in `preprocess`."""
        return self.choose_grid(height, width, max_tiles).num_tiles

    def choose_grid(self, height: int, width: int, max_tiles: int | None = None) -> TileGrid:
        """The grid of one image of this size in pixels; `max_tiles` as in `preprocess`."""
        return choose_grid(width, height, self._tiling(max_tiles))

    def fetch_images(self, image_url_or_urls: Any) -> Any:
        """Opens the paths in a nested list; images stay what they are. Nothing is downloaded."""
        if isinstance(image_url_or_urls, (list, tuple)):
            return [self.fetch_images(image) for image in image_url_or_urls]
        if not isinstance(image_url_or_urls, (str, Path)):
            return image_url_or_urls
        if "://" in str(image_url_or_urls) or str(image_url_or_urls).startswith("data:"):
            raise UsageError(
                "Images are read from local files only and an address was given; download it and "
                "pass the path or the image"
            )
        return next(load_pages(image_url_or_urls)).image

    def _tiling(self, max_tiles: int | None = None) -> Tiling:
        tiling = Tiling(**self.tiling)
        return tiling if max_tiles is None else tiling.limited(max_tiles)


def to_rgb(image: Any) -> Image.Image:
    """A new PIL RGB image of any PIL image or uint8 array, just as `load_pages` makes of a file.

    Raises InputError for an array that is no uint8 image of 1, 3 or 4 channels, and for 32 bits a
    sample.
    """
    if not isinstance(image, Image.Image):
        image = Image.fromarray(_channels_last(np.asarray(image)))
    page = on_paper(upright(image), "The image")
    page.info.clear()  # whoever sees the EXIF data again would turn it again
    return page


def _channels_last(array: np.ndarray) -> np.ndarray:
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    channels_fit = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not channels_fit:
        raise InputError(
            f"An image array must be uint8 with 1, 3 or 4 channels and this one is {array.dtype} "
            f"of shape {list(array.shape)}; convert it to 0-255 first"
        )
    return np.ascontiguousarray(array)
