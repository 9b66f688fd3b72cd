"""Small models of other makers with random weights, and processors made on the spot."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaImageProcessor,
    MllamaProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
)

# As Qwen2-VL's: a line break after the end of a turn, which nobody learns.
CHATML = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% for part in message['content'] -%}
{%- if part['type'] == 'image' -%}IMAGE{%- else -%}{{ part['text'] }}{%- endif -%}
{%- endfor -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}
"""

# As Llava 1.5's: no control tokens around turns; the tokenizer adds the start of the text.
VICUNA = """\
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}ASSISTANT:{%- else -%}USER:{%- endif -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' %} IMAGE
{% else %} {{ part['text'] }}{%- endif -%}
{%- endfor -%}
{%- if message['role'] == 'assistant' -%}</s>{%- else %} {% endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}ASSISTANT:{%- endif -%}
"""

# As Llama 3.2's: the template writes the start of the text.
LLAMA = """\
{{- bos_token -}}
{%- for message in messages -%}
<|start_header_id|>{{ message['role'] }}<|end_header_id|>

{% for part in message['content'] -%}
{%- if part['type'] == 'image' -%}IMAGE{%- else -%}{{ part['text'] | trim }}{%- endif -%}
{%- endfor -%}<|eot_id|>
{%- endfor -%}
{%- if add_generation_prompt -%}<|start_header_id|>assistant<|end_header_id|>

{% endif -%}
"""


def make_tokenizer(
    special: list[str], eos: str, bos: str | None = None, adds_bos: bool = False
) -> PreTrainedTokenizerFast:
    """Bytes, the special tokens before them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*special, *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    if adds_bos and bos is not None:
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, vocabulary[bos])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=eos, bos_token=bos, pad_token=special[0],
        additional_special_tokens=special[1:],
    )  # fmt: skip


class _WithoutVideos(Qwen2VLProcessor):
    """Videos need torchvision, images do not."""

    @classmethod
    def get_attributes(cls) -> list[str]:
        return ["image_processor", "tokenizer"]


def qwen2_vl() -> tuple[Any, Any]:
    special = [
        "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
        "<|image_pad|>", "<|video_pad|>",
    ]  # fmt: skip
    tokenizer = make_tokenizer(special, "<|im_end|>")
    template = CHATML.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    images = Qwen2VLImageProcessor(
        patch_size=4, merge_size=2, size={"shortest_edge": 64, "longest_edge": 1024}
    )
    processor = _WithoutVideos(images, tokenizer, chat_template=template)
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": 264, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
            "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.3,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4,
                                "mrope_section": [1, 1, 2]},
        },
        vision_config={
            "depth": 2, "embed_dim": 16, "num_heads": 2, "hidden_size": 32, "patch_size": 4,
            "spatial_merge_size": 2, "mlp_ratio": 2,
        },
        image_token_id=5, video_token_id=6, vision_start_token_id=3, vision_end_token_id=4,
        tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    return Qwen2VLForConditionalGeneration(config), processor


def llava() -> tuple[Any, Any]:
    tokenizer = make_tokenizer(["<pad>", "<s>", "</s>", "<image>"], "</s>", "<s>", adds_bos=True)
    images = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = LlavaProcessor(
        images, tokenizer, patch_size=14, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=VICUNA.replace("IMAGE", "<image>"),
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            image_size=28, patch_size=14,
        ),
        text_config=_llama(),
        image_token_id=3,
    )  # fmt: skip
    torch.manual_seed(0)
    return LlavaForConditionalGeneration(config), processor


def mllama() -> tuple[Any, Any]:
    special = [
        "<|finetune_right_pad_id|>", "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>",
        "<|end_header_id|>", "<|image|>", "<|python_tag|>",
    ]  # fmt: skip
    tokenizer = make_tokenizer(special, "<|eot_id|>", "<|begin_of_text|>", adds_bos=True)
    images = MllamaImageProcessor(size={"height": 28, "width": 28}, max_image_tiles=2)
    processor = MllamaProcessor(
        images, tokenizer, chat_template=LLAMA.replace("IMAGE", "<|image|>")
    )
    config = MllamaConfig(
        vision_config={
            "hidden_size": 16, "attention_heads": 2, "num_hidden_layers": 2,
            "num_global_layers": 1, "intermediate_size": 32, "vision_output_dim": 32,
            "image_size": 28, "patch_size": 14, "max_num_tiles": 2,
            "intermediate_layers_indices": [0], "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
        },
        text_config={
            "vocab_size": 263, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 2, "cross_attention_layers": [1],
            "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        },
        image_token_index=5,
    )  # fmt: skip
    torch.manual_seed(0)
    return MllamaForConditionalGeneration(config), processor


def _llama() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=264, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, bos_token_id=1, eos_token_id=2,
        pad_token_id=0,
    )  # fmt: skip


MODELS = {"qwen2_vl": qwen2_vl, "llava": llava, "mllama": mllama}
