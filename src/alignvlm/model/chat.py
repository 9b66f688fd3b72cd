"""The one chat template, for training and inference alike, and what keeps users from writing it.

A template writes control tokens: turns, and one placeholder for each `{"type": "image"}`. Text that
a user typed may contain the same strings; they must stay text (S10: "typed placeholder = plain
text"). `defuse` therefore puts an invisible mark inside each of them before the template is
rendered, and the processor cuts the text at the marks before tokenizing, so that the pieces can
never join into a control token.
"""

from __future__ import annotations

import json
import re
from typing import Any

from transformers import PreTrainedTokenizerBase

from alignvlm.errors import ConfigurationError
from alignvlm.model.compat import BREAK_MARK, MARKS

CHATML = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""

LLAMA_3 = """\
{{- bos_token -}}
{%- for message in messages -%}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' -}}
{{- message['content'] | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}
"""

# Content lists become strings; each image is its placeholder and a line break, so that the text
# before and after a page never runs into it.
_FLATTEN = """\
{%- set flat = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- if message['content'] is string -%}
{%- set flat.messages = flat.messages + [message] -%}
{%- else -%}
{%- set parts = namespace(text='') -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{%- set parts.text = parts.text + IMAGE_TOKEN + '\\n' -%}
{%- else -%}{%- set parts.text = parts.text + part['text'] -%}{%- endif -%}
{%- endfor -%}
{%- set flat.messages = flat.messages + [dict(message, content=parts.text)] -%}
{%- endif -%}
{%- endfor -%}
{%- set messages = flat.messages -%}
"""

# Special tokens that mean nothing to the language model and may stand for a visual token, best
# first: names made for it, then those of SmolLM2 and Llama 3.
_IMAGE_TOKENS = (
    "<image>",
    "<|image|>",
    "<|image_pad|>",
    "<empty_output>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_2|>",
    "<unused0>",
)

_NOT_TEXT = frozenset({"image", "url", "path", "base64"})


def choose_image_token(tokenizer: PreTrainedTokenizerBase) -> str:
    """An existing special token for visual tokens, so that the vocabulary keeps its size.

    Raises:
        ConfigurationError: the tokenizer has none that is free.
    """
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    for token in _IMAGE_TOKENS:
        if token in special:
            return token
    raise ConfigurationError(
        "The tokenizer has no special token to spare for images; pass image_token=... with one of "
        f"its special tokens ({', '.join(sorted(special)) or 'it has none'}), or "
        "call add_image_token(tokenizer) first"
    )


def add_image_token(tokenizer: PreTrainedTokenizerBase) -> str:
    """Adds `<image>` to a tokenizer that has no token to spare, and returns it.

    Pass the tokenizer to `AlignVLM.build`, which gives the language model a row for it, and save
    it with the processor.
    """
    tokenizer.add_special_tokens({"additional_special_tokens": [_IMAGE_TOKENS[0]]})
    return _IMAGE_TOKENS[0]


def build_chat_template(tokenizer: PreTrainedTokenizerBase, image_token: str) -> str:
    """The tokenizer's own template, else ChatML or Llama 3's by its tokens, extended for images.

    Raises:
        ConfigurationError: the tokenizer has neither a template nor the tokens of a known one.
    """
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    known = set(tokenizer.added_tokens_encoder)
    if not template and {"<|im_start|>", "<|im_end|>"} <= known:
        template = CHATML
    if not template and {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"} <= known:
        template = LLAMA_3
    if not template:
        raise ConfigurationError(
            "The tokenizer has no chat template and no tokens of ChatML or Llama 3; set "
            "tokenizer.chat_template or use an instruction-tuned language model"
        )
    return _FLATTEN.replace("IMAGE_TOKEN", json.dumps(image_token)) + template


def defuse(value: Any, tokenizer: PreTrainedTokenizerBase, template: str) -> Any:
    """A copy of messages in which no string holds a control token any more.

    Control tokens are the tokenizer's special tokens and the added ones that the template writes.
    Each that occurs in text gets an invisible mark after its first character, which is dropped
    again before tokenizing. Images and their addresses are left alone.
    """
    added = tokenizer.added_tokens_decoder.values()
    tokens = [t.content for t in added if t.special or t.content in template]
    # A token of one character cannot be split, and one of white space alone controls nothing.
    tokens = [token for token in tokens if len(token) > 1 and not token.isspace()]
    # Only the first character is consumed, so overlapping tokens are all found.
    starts = "|".join(f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in tokens)
    return _walk(value, re.compile(starts or "(?!)"))


def _walk(value: Any, pattern: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        for mark in MARKS:  # what a user typed must not forge or heal a mark
            value = value.replace(mark, "")
        return pattern.sub(rf"\g<0>{BREAK_MARK}", value)
    if isinstance(value, dict):
        return {
            key: part if key in _NOT_TEXT else _walk(part, pattern) for key, part in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_walk(part, pattern) for part in value]
    return value
