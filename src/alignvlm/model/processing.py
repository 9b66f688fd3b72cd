"""Messages and images to model inputs: tokenizer, image processor and the one chat template."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
from transformers import AutoTokenizer, BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from alignvlm.errors import ConfigurationError, UsageError
from alignvlm.imaging.tiling import TileGrid, Tiling
from alignvlm.model.anyres import Joining
from alignvlm.model.chat import build_chat_template, defuse
from alignvlm.model.compat import BREAK_MARK, MultiModalData
from alignvlm.model.configuration import AlignVLMConfig, num_visual_tokens
from alignvlm.model.image_processing import AlignVLMImageProcessor
from alignvlm.model.splice import IGNORED_LABEL

Messages = list[dict[str, Any]]


class AlignVLMProcessor(ProcessorMixin):
    """Prepares text with images.

    Text that reaches the processor through `apply_chat_template` cannot write control tokens: a
    typed `<image>` or end of turn stays text. Text given to the processor directly is taken for a
    finished prompt, in which placeholders are placeholders.

    Args:
        image_processor: cuts images into tiles.
        tokenizer: the language model's; batches are padded on the left.
        chat_template: see `alignvlm.model.chat`.
        image_token: the special token that stands for a visual token.
        placeholders_per_tile: `AlignVLMConfig.placeholders_per_tile` of the model.
        joined_tile: rows and columns of the visual tokens of one tile, where the model joins
            those of all tiles, `AlignVLMConfig.joining`; None: it does not.

    Raises:
        ConfigurationError: `image_token` is not one token of the tokenizer.
    """

    def __init__(
        self,
        image_processor: AlignVLMImageProcessor | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        chat_template: str | None = None,
        image_token: str = "<image>",
        placeholders_per_tile: int | None = None,
        joined_tile: Sequence[int] | None = None,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.image_token = image_token
        self.placeholders_per_tile = placeholders_per_tile
        self.joined_tile = None if joined_tile is None else list(joined_tile)
        added = self.tokenizer.added_tokens_encoder
        if image_token not in added:
            raise ConfigurationError(
                f"The tokenizer has no special token {image_token!r} for images; pass "
                f"image_token=... with one of: {', '.join(sorted(added)) or 'none'}"
            )
        self.image_token_id: int = added[image_token]
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | PathLike[str], *args: Any, **kwargs: Any
    ) -> Any:
        """As in transformers; code beside the files is not run unless that is asked for."""
        options = {"trust_remote_code": False} | kwargs
        return super().from_pretrained(pretrained_model_name_or_path, *args, **options)

    @classmethod
    def build(
        cls,
        tokenizer: str | PreTrainedTokenizerBase,
        config: AlignVLMConfig,
        *,
        chat_template: str | None = None,
    ) -> AlignVLMProcessor:
        """The processor that fits a model.

        Args:
            tokenizer: the language model's: Hub id, folder or object.
            config: the model's configuration, e.g. `model.config`.
            chat_template: Jinja source that takes content lists; None: the tokenizer's own,
                extended for images.

        Raises:
            ConfigurationError: the tokenizer does not fit the configuration.
        """
        if isinstance(tokenizer, str):
            tokenizer = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
        names = {token_id: name for name, token_id in tokenizer.added_tokens_encoder.items()}
        if config.image_token_id not in names:
            raise ConfigurationError(
                f"Token {config.image_token_id}, the model's placeholder for images, is no special "
                "token of this tokenizer; use the tokenizer that the model was built with"
            )
        image_token = names[config.image_token_id]
        return cls(
            image_processor=AlignVLMImageProcessor(tiling=config.tiling),
            tokenizer=tokenizer,
            chat_template=chat_template or build_chat_template(tokenizer, image_token),
            image_token=image_token,
            placeholders_per_tile=config.placeholders_per_tile,
            joined_tile=None if config.joining is None else config.joining.tile,
        )

    def __call__(
        self, images: Any = None, text: str | list[str] | None = None, **kwargs: Any
    ) -> BatchFeature:
        """Model inputs of finished prompts.

        Args:
            images: one image or a (nested) list, in the order of the placeholders.
            text: a prompt or a list of them, with one placeholder for each image.
            kwargs: of the tokenizer, e.g. `padding`, and `return_tensors`.

        Returns:
            `input_ids` and `attention_mask` [B, M], and with images `pixel_values`
            [T, 3, S, S] and `tile_grids` [I, 3], or [I, 5] with layout "anyres".

        Raises:
            UsageError: there are more or fewer placeholders than images, or truncation cut them.
        """
        prompts = [text] if isinstance(text, str) else list(text or [])
        if any(BREAK_MARK in prompt for prompt in prompts):
            kwargs["sanitize_control_tokens"] = True
        bos = self.tokenizer.bos_token
        if bos and prompts and all(prompt.startswith(bos) for prompt in prompts):
            kwargs.setdefault("add_special_tokens", False)
        try:
            return super().__call__(images=images, text=text, **kwargs)
        except ValueError as error:
            raise UsageError(f"The prompt and its images do not fit together: {error}") from error

    def apply_chat_template(
        self,
        conversation: Messages | list[Messages],
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """As in transformers, with everything that users typed kept plain text.

        Without `tokenize=True` the prompt is returned; where a user typed a control token it holds
        an invisible mark, which the processor removes when it is called with the prompt.
        """
        template = chat_template or self.chat_template
        if not isinstance(template, str):
            raise ConfigurationError(
                "The processor has no chat template; build it with AlignVLMProcessor.build"
            )
        safe = defuse(conversation, self.tokenizer, template)
        return super().apply_chat_template(safe, chat_template=template, **kwargs)

    def training_example(self, conversation: Messages) -> BatchFeature:
        """Model inputs of a finished conversation, with labels on what the assistant says.

        The ids up to an answer are those that inference makes of the same messages: every answer
        is tokenized apart from what comes before it.

        Args:
            conversation: messages of which at least one is the assistant's.

        Returns:
            As from the processor, [1, M], and `labels` int64 [1, M]: the answers' ids up to the
            token that ends them, -100 elsewhere.

        Raises:
            UsageError: nobody answers.
            ConfigurationError: the template rewrites earlier messages when later ones come.
        """
        ids, labels = self.training_text(conversation)
        images = [image for message in conversation for image in _images(message)]
        tiles = self.image_processor(images) if images else {}
        ids, labels = self.expand_placeholders(ids, labels, tiles.get("tile_grids", ()))
        data = {"input_ids": [ids], "attention_mask": [[1] * len(ids)], "labels": [labels], **tiles}
        return BatchFeature(data, tensor_type="pt")

    def training_text(self, conversation: Messages) -> tuple[list[int], list[int]]:
        """Ids and labels of a finished conversation, each image one placeholder still.

        No image is looked at. See `training_example` for the labels and the errors.
        """
        ids: list[int] = []
        labels: list[int] = []
        for text, is_answer in self._turns(conversation):
            starts = bool(self.tokenizer.bos_token) and text.startswith(self.tokenizer.bos_token)
            marked = {"sanitize_control_tokens": True} if BREAK_MARK in text else {}
            plain = bool(ids) or starts  # the template has written the start of the text
            new = self.tokenizer(text, add_special_tokens=not plain, **marked)["input_ids"]
            ids += new
            labels += self._labels(new) if is_answer else [IGNORED_LABEL] * len(new)
        return ids, labels

    def expand_placeholders(
        self, ids: list[int], labels: list[int], tile_grids: Any
    ) -> tuple[list[int], list[int]]:
        """Ids and labels in which each image has a placeholder for every visual token.

        Args:
            ids: with one placeholder an image.
            labels: of the ids.
            tile_grids: of each image, in their order, as the image processor returns them.

        Raises:
            UsageError: there are more or fewer placeholders than images.
        """
        places = [place for place, token in enumerate(ids) if token == self.image_token_id]
        if len(places) != len(tile_grids):
            raise UsageError(
                f"The conversation has {len(places)} image placeholders and {len(tile_grids)} "
                "images: give each image its place in a message"
            )
        long_ids, long_labels, start = [], [], 0
        for place, grid in zip(places, tile_grids, strict=True):
            count = self._num_placeholders(_grid(grid))
            long_ids += ids[start:place] + [self.image_token_id] * count
            long_labels += labels[start:place] + [IGNORED_LABEL] * count
            start = place + 1
        return long_ids + ids[start:], long_labels + labels[start:]

    def _turns(self, conversation: Messages) -> list[tuple[str, bool]]:
        """The rendered conversation in pieces: prompt, answer, prompt, answer, ..."""
        pieces: list[tuple[str, bool]] = []
        rendered = ""
        for end, message in enumerate(conversation):
            if message["role"] != "assistant":
                continue
            before = self.apply_chat_template(conversation[:end], add_generation_prompt=True)
            after = self.apply_chat_template(conversation[: end + 1])
            if not (before.startswith(rendered) and after.startswith(before)):
                raise ConfigurationError(
                    "The chat template rewrites earlier messages, so training and inference would "
                    "see different prompts; build the processor with another chat_template"
                )
            pieces += [(before[len(rendered) :], False), (after[len(before) :], True)]
            rendered = after
        if not pieces:
            raise UsageError("The conversation has no assistant message to learn; add the answer")
        return pieces

    def _labels(self, answer: list[int]) -> list[int]:
        """The answer up to its end-of-turn token; what the template writes after it is ignored."""
        end = self.tokenizer.eos_token_id
        length = answer.index(end) + 1 if end in answer else len(answer)
        return answer[:length] + [IGNORED_LABEL] * (len(answer) - length)

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **_: object) -> str:
        """The run of placeholders that takes the place of the one in the text."""
        grid = _grid(image_inputs["tile_grids"][image_idx])
        return self.image_token * self._num_placeholders(grid)

    def num_visual_tokens(self, height: int, width: int, max_tiles: int | None = None) -> int:
        """Placeholders of one image of this size in pixels.

        `max_tiles` limits its grid, as in the image processor's `preprocess`.
        """
        return self._num_placeholders(self.image_processor.choose_grid(height, width, max_tiles))

    def _num_placeholders(self, grid: TileGrid) -> int:
        return num_visual_tokens(grid, self.placeholders_per_tile, self._joining())

    def _joining(self) -> Joining | None:
        if self.joined_tile is None:
            return None
        rows, columns = self.joined_tile
        tiling = Tiling(**self.image_processor.tiling)
        return Joining(tile=(rows, columns), max_tiles=tiling.max_tiles, newline=tiling.newline)

    def _get_num_multimodal_tokens(
        self, image_sizes: list[tuple[int, int]] | None = None, **_: object
    ) -> MultiModalData:
        """Counts for servers: placeholders and rows of `pixel_values` by (height, width)."""
        if image_sizes is None:
            return MultiModalData()
        grids = [self.image_processor.choose_grid(*size) for size in image_sizes]
        tokens = [self._num_placeholders(grid) for grid in grids]
        return MultiModalData(
            num_image_tokens=tokens, num_image_patches=[grid.num_tiles for grid in grids]
        )


def _grid(row: Any) -> TileGrid:
    return TileGrid.from_row(np.asarray(row).tolist())


def _images(message: dict[str, Any]) -> list[Any]:
    parts = message["content"] if isinstance(message["content"], (list, tuple)) else []
    pictures = [part for part in parts if part["type"] == "image"]
    return [part[key] for part in pictures for key in ("image", "path", "url") if key in part]
