"""The whole model: what `AlignVLMModel` reads, answered through the LM head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from alignvlm.connectors.align import Align
from alignvlm.connectors.pruning import Pruned, prune
from alignvlm.errors import ConfigurationError, UsageError
from alignvlm.model.backbone import AlignVLMModel, AlignVLMPreTrainedModel, check_inputs
from alignvlm.model.compat import can_return_tuple
from alignvlm.model.configuration import AlignVLMConfig

# Settings of language models that change the logits after the head; this model's head is linear.
_UNSUPPORTED_HEADS = ("final_logit_softcapping", "logits_scaling", "logit_scale")


@dataclass
class AlignVLMOutput(CausalLMOutputWithPast):
    """Output with logits; `image_hidden_states` are the visual tokens of each image."""

    image_hidden_states: list[Tensor] | None = None


class AlignVLMForConditionalGeneration(AlignVLMPreTrainedModel, GenerationMixin):
    """The whole model, with the LM head.

    Build it with `alignvlm.AlignVLM.build` or load it with `alignvlm.AlignVLM.from_pretrained`.
    """

    _tied_weights_keys: dict[str, str] = {  # noqa: RUF012
        "lm_head.weight": "model.language_model.embed_tokens.weight"
    }
    _tp_plan: ClassVar[dict[str, str]] = {"lm_head": "colwise_gather_output"}

    def __init__(self, config: AlignVLMConfig) -> None:
        super().__init__(config)
        text = config.text_config
        _check_head(text)
        self.model = AlignVLMModel(config)
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        # The table has another name in some language models, e.g. wte in GPT-2.
        self._tied_weights_keys = {"lm_head.weight": _name_of_table(self.model)}
        self.post_init()
        if not self.lm_head.weight.is_meta:
            self.init_connector()

    def init_connector(self) -> None:
        """Starts the connector from the language model's tables where it does, e.g. ALIGN's W2.

        Call it once the language model's weights are loaded and tied. A connector that is still
        on the meta device is first created where the head is, with fresh parameters; one that
        already has weights keeps all others.
        """
        head, connector = self.get_output_embeddings().weight, self.model.connector
        if any(parameter.is_meta for parameter in connector.parameters()):
            connector.to_empty(device=head.device).to(head.dtype)
            connector.reset_parameters()
        connector.init_from_language_model(head.detach(), self.model.text_embeddings().detach())
        self.model.init_newline(head)

    def prune_connector(self, probabilities: Tensor, **options: Any) -> Pruned:
        """Replaces ALIGN by one that mixes the probable words alone (Table 4), in place.

        The pruned connector keeps its own rows of E, and the configuration names them, so that
        the model saves and loads as before.

        Args:
            probabilities: of ALIGN's words on the average patch, see
                `alignvlm.connectors.mean_probabilities`.
            options: `threshold`, `keep` or `statistics_of` of `alignvlm.connectors.prune`.

        Raises:
            ConfigurationError: the connector is another one, or no word would be left.
        """
        connector = self.model.connector
        if not isinstance(connector, Align):
            raise ConfigurationError(
                f"Only ALIGN has words to prune, and this model's connector is "
                f"{self.config.connector['name']!r}: load a model with 'align'"
            )
        table = self.model.text_embeddings().detach()
        pruned = prune(connector, probabilities, embeddings=table, **options)
        self.model.connector = pruned.connector
        kept = {"name": "align", "vocab_size": connector.vocab_size}
        self.config.connector = {**kept, **pruned.connector.options()}
        return pruned

    def get_input_embeddings(self) -> nn.Module:
        """The language model's table E [V, D]."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the language model's table."""
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Linear:
        """The LM head [V, D]."""
        return self.lm_head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        """Replaces the LM head."""
        self.lm_head = value

    def get_image_features(self, pixel_values: Tensor, *args: Any, **kwargs: Any) -> Any:
        """See `AlignVLMModel.get_image_features`."""
        return self.model.get_image_features(pixel_values, *args, **kwargs)

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """As in transformers, with each part's dtype recorded, as loading does.

        So saving what was loaded writes the same bytes again.
        """
        self.config.vision_config.dtype = self.model.vision_model.dtype
        self.config.text_config.dtype = self.model.language_model.dtype
        super().save_pretrained(*args, **kwargs)

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
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> AlignVLMOutput:
        """Logits [B, L, V], and the loss where there are labels.

        L is M unless the model condenses its visual tokens; then rows are padded on the left, and
        labels are aligned with them. `labels` are int64 [B, M], -100 where there is no loss, and
        shifted here as everywhere in transformers; `logits_to_keep` limits the logits to the last
        so many positions, 0 means all; `num_items_in_batch` among `kwargs` averages the loss over
        several batches. The other arguments are those of `AlignVLMModel.forward`.
        """
        check_inputs(input_ids, inputs_embeds, pixel_values)
        images = None
        if input_ids is not None and pixel_values is not None:
            self.model.check_positions(position_ids)
            spliced, images = self.model.embed_inputs(
                input_ids, pixel_values, tile_grids, attention_mask, labels
            )
            input_ids, inputs_embeds = None, spliced.inputs_embeds
            attention_mask, labels = spliced.attention_mask, spliced.labels
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        last = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, last])
        loss = None
        if labels is not None:
            size = self.config.text_config.vocab_size
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=size, **kwargs)
        return AlignVLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=images,
        )

    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor | None = None,
        *,
        pixel_values: Tensor | None = None,
        tile_grids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """As `GenerationMixin.generate`; returns the prompt's ids followed by the new ones.

        Images are encoded once, before the first step, and spliced into the prompt here rather
        than inside the loop: beams and several answers a prompt then repeat whole prompts, never
        tiles. Batches are padded on the left.

        `inputs`, or `input_ids`, are prompt ids, int64 [B, M]; `pixel_values`, `tile_grids` and
        `attention_mask` come from the processor; `kwargs` are those of `GenerationMixin.generate`.
        """
        input_ids = kwargs.pop("input_ids", inputs)
        if pixel_values is None:
            return super().generate(input_ids, attention_mask=attention_mask, **kwargs)
        self.model.check_positions(kwargs.get("position_ids"))
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        spliced, _ = self.model.embed_inputs(input_ids, pixel_values, tile_grids, attention_mask)
        embeds, mask = spliced.inputs_embeds, spliced.attention_mask
        if self.model.condenser is None:
            return super().generate(input_ids, inputs_embeds=embeds, attention_mask=mask, **kwargs)
        # The prompt has another length than its ids: generate from embeddings alone.
        self._count_new_tokens(kwargs, input_ids.shape[1])
        output = super().generate(inputs_embeds=embeds, attention_mask=mask, **kwargs)
        if isinstance(output, Tensor):
            return _prepend(input_ids, output)
        output.sequences = _prepend(input_ids, output.sequences)
        return output

    def _count_new_tokens(self, options: dict[str, Any], num_ids: int) -> None:
        """Says `max_length`, prompt and answer together, by new tokens, in place."""
        config = options.get("generation_config") or self.generation_config
        max_length = options.pop("max_length", None) or config.max_length
        if max_length is None or (options.get("max_new_tokens") or config.max_new_tokens):
            return
        if max_length <= num_ids:
            raise UsageError(
                f"max_length is {max_length} and the prompt alone has {num_ids} ids: raise it, or "
                "pass max_new_tokens"
            )
        options["max_new_tokens"] = max_length - num_ids


def _check_head(text_config: Any) -> None:
    for name in _UNSUPPORTED_HEADS:
        if getattr(text_config, name, None) not in (None, 1, 1.0):
            raise ConfigurationError(
                f"The language model {text_config.model_type!r} changes its logits by {name}, "
                "which AlignVLM's linear head does not; choose a model without it, e.g. Llama"
            )


def _prepend(input_ids: Tensor, new_ids: Tensor) -> Tensor:
    copies = len(new_ids) // len(input_ids)
    return torch.cat((input_ids.repeat_interleave(copies, dim=0), new_ids), dim=-1)


def _name_of_table(model: AlignVLMModel) -> str:
    table = model.get_input_embeddings()
    return next(f"model.{name}.weight" for name, part in model.named_modules() if part is table)
