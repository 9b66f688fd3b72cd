"""`AlignVLM`: models from any vision encoder and any language model, and from their own folders."""

from __future__ import annotations

from os import PathLike
from typing import Any, NoReturn, TypeAlias, final

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from alignvlm.errors import ConfigurationError, WeightsError
from alignvlm.model.chat import choose_image_token
from alignvlm.model.compat import model_class, where_options
from alignvlm.model.condense import plain
from alignvlm.model.configuration import AlignVLMConfig
from alignvlm.model.modeling import AlignVLMForConditionalGeneration
from alignvlm.model.presets import find_preset

Source: TypeAlias = "str | PathLike[str] | PreTrainedConfig | PreTrainedModel"
"""Hub id or folder (pretrained), configuration (fresh weights) or model (taken as it is)."""

_LOADING_ERRORS = (OSError, ValueError, RuntimeError, KeyError, SafetensorError)


@final
class AlignVLM:
    """Makes AlignVLM models; not one itself: `build` and `from_pretrained` return
    `AlignVLMForConditionalGeneration`.
    """  # noqa: D205

    def __new__(cls) -> NoReturn:
        """Refuses: there is nothing to hold."""
        raise ConfigurationError("Use AlignVLM.build(...) or AlignVLM.from_pretrained(...)")

    @staticmethod
    def build(
        preset: str | None = None,
        *,
        vision: Source | None = None,
        llm: Source | None = None,
        connector: str | dict[str, Any] = "align",
        tiling: dict[str, Any] | None = None,
        condense: dict[str, Any] | None = None,
        vision_feature_layer: int = -1,
        tokenizer: str | PreTrainedTokenizerBase | None = None,
        image_token_id: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> AlignVLMForConditionalGeneration:
        """A model from a vision encoder and a language model, with a fresh connector.

        ALIGN's W2 starts as a copy of the language model's head, as in the paper.

        Args:
            preset: a name of `alignvlm.model.presets.PRESETS`; gives `vision` and `llm`.
            vision: the vision encoder; of a dual encoder such as SigLIP the vision half is taken.
            llm: the causal language model.
            connector: name, or `{"name": ..., **options}`, see `alignvlm.connectors.registry`.
            tiling: as in `AlignVLMConfig`.
            condense: as in `AlignVLMConfig`.
            vision_feature_layer: as in `AlignVLMConfig`.
            tokenizer: where to look for a special token to stand for images, and what a model
                that spells does so with; None: the one at `llm`.
            image_token_id: that token, if it is known.
            dtype: of all weights; None: as stored.

        Raises:
            ConfigurationError: the parts do not fit, or no token can stand for images.
            WeightsError: an encoder, language model or tokenizer cannot be loaded in full.
        """
        if preset is not None:
            chosen = find_preset(preset)
            vision, llm = vision or chosen.vision, llm or chosen.llm
        if vision is None or llm is None:
            raise ConfigurationError("Pass a preset, or both vision and llm, to AlignVLM.build")
        spells = condense is not None and condense.get("merge") == "spell"
        if image_token_id is None or spells:
            tokenizer = _load_tokenizer(tokenizer or llm)
        if image_token_id is None:
            image_token_id = _image_token_id(tokenizer)
        vision_model = _load_vision(vision, dtype)
        language_model = _load_llm(llm, dtype)
        if image_token_id >= language_model.config.vocab_size:
            language_model.resize_token_embeddings(image_token_id + 1)
        config = AlignVLMConfig(
            vision_config=vision_model.config,
            text_config=language_model.config,
            connector={"name": connector} if isinstance(connector, str) else connector,
            tiling=tiling,
            condense=condense,
            image_token_id=image_token_id,
            vision_feature_layer=vision_feature_layer,
        )
        model = assemble(config, vision_model, language_model)
        if spells and hasattr(tokenizer, "backend_tokenizer"):
            model.model.condenser.tokenizer = plain(tokenizer.backend_tokenizer)
        return model

    @staticmethod
    def from_pretrained(
        source: str | PathLike[str], **kwargs: Any
    ) -> AlignVLMForConditionalGeneration:
        """A saved model, from a folder or the Hub; every weight must be there and fit.

        Args:
            source: folder written by `save_pretrained`, or Hub id.
            kwargs: of `PreTrainedModel.from_pretrained`, e.g. `dtype` and `device_map`.

        Raises:
            ConfigurationError: it is another kind of model.
            WeightsError: weights are absent, damaged, missing, superfluous or of wrong shapes.
        """
        try:
            stored, _ = PreTrainedConfig.get_config_dict(source, **where_options(kwargs))
        except _LOADING_ERRORS as error:
            raise _unreadable(source) from error
        if not stored:
            raise _unreadable(source)
        if stored.get("model_type") != AlignVLMConfig.model_type:
            raise ConfigurationError(
                f"{source} holds a model of type {stored.get('model_type')!r}, not an AlignVLM "
                "model; use it as vision or llm of AlignVLM.build"
            )
        return _load(AlignVLMForConditionalGeneration, source, **kwargs)


def assemble(
    config: AlignVLMConfig, vision_model: PreTrainedModel, language_model: PreTrainedModel
) -> AlignVLMForConditionalGeneration:
    """A model around an encoder and a causal language model that exist already.

    Neither is copied. On the meta device the connector stays there too; load the weights, then
    call `init_connector`.
    """
    head = language_model.get_output_embeddings()
    if head is None or head.bias is not None:
        raise ConfigurationError(
            f"The language model {config.text_config.model_type!r} has no linear LM head without "
            "bias; choose one that has, e.g. Llama"
        )
    with torch.device("meta"):
        model = AlignVLMForConditionalGeneration(config)
    model.model.vision_model = vision_model
    model.model.language_model = language_model.base_model
    model.lm_head = head
    model.tie_weights()
    if not head.weight.is_meta:
        model.init_connector()
    model.generation_config = language_model.generation_config
    return model.eval()


def _load_vision(source: Source, dtype: torch.dtype | None) -> PreTrainedModel:
    if isinstance(source, PreTrainedModel):
        return source
    config = source if isinstance(source, PreTrainedConfig) else _read_config(source)
    config = getattr(config, "vision_config", config)
    if hasattr(config, "vision_use_head"):
        config.vision_use_head = False  # SigLIP's pooling head: no visual token passes through it
    if isinstance(source, PreTrainedConfig):
        return AutoModel.from_config(config, dtype=dtype)
    return _load(model_class(config), source, config=config, dtype=dtype, strict=False)


def _load_llm(source: Source, dtype: torch.dtype | None) -> PreTrainedModel:
    if isinstance(source, PreTrainedModel):
        return source
    if isinstance(source, PreTrainedConfig):
        return AutoModelForCausalLM.from_config(source, dtype=dtype)
    return _load(AutoModelForCausalLM, source, dtype=dtype, strict=False)


def _read_config(source: str | PathLike[str]) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=False)
    except _LOADING_ERRORS as error:
        raise _unreadable(source) from error


def _load(
    cls: Any, source: str | PathLike[str], *, strict: bool = True, **kwargs: Any
) -> PreTrainedModel:
    """Loads safetensors only; `strict` also refuses weights that the model has no place for."""
    try:
        model, info = cls.from_pretrained(
            source,
            output_loading_info=True,
            use_safetensors=True,
            trust_remote_code=False,
            **kwargs,
        )
    except _LOADING_ERRORS as error:
        raise _unreadable(source) from error
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    if missing or (strict and unexpected):
        kind, names = ("missing", missing) if missing else ("unknown", unexpected)
        raise WeightsError(
            f"The weights in {source} do not fit its config.json: {len(names)} tensors are {kind}, "
            f"e.g. {names[0]}; save the model again with the version that made it"
        )
    return model


def _unreadable(source: str | PathLike[str]) -> WeightsError:
    return WeightsError(
        f"No model can be loaded from {source}: it needs a config.json and complete safetensors "
        "files of matching shapes; check the path or Hub id, or download it again"
    )


def _load_tokenizer(source: Source | PreTrainedTokenizerBase) -> PreTrainedTokenizerBase | None:
    """The tokenizer at a place; None for a configuration or model, which has none with it."""
    if isinstance(source, (PreTrainedConfig, PreTrainedModel)):
        return None
    if isinstance(source, PreTrainedTokenizerBase):
        return source
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except _LOADING_ERRORS as error:
        raise _unreadable(source) from error


def _image_token_id(tokenizer: PreTrainedTokenizerBase | None) -> int:
    if tokenizer is None:
        raise ConfigurationError(
            "AlignVLM.build needs a tokenizer or an image_token_id when llm is not a folder or "
            "Hub id; pass one of the two"
        )
    return int(tokenizer.convert_tokens_to_ids(choose_image_token(tokenizer)))
