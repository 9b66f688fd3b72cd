from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignvlm.errors import ConfigurationError
from alignvlm.model import AlignVLMProcessor
from alignvlm.model.chat import (
    CHATML,
    LLAMA_3,
    add_image_token,
    build_chat_template,
    choose_image_token,
    defuse,
)
from alignvlm.model.compat import BREAK_MARK, MARKS

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<empty_output>", "<file_sep>"]


def test_an_existing_special_token_is_chosen(tiny: SimpleNamespace) -> None:
    tokenizer = tiny.tokenizer()
    size = len(tokenizer)
    assert choose_image_token(tokenizer) == "<empty_output>"
    assert len(tokenizer) == size
    assert add_image_token(tokenizer) == choose_image_token(tokenizer) == "<image>"
    assert len(tokenizer) == size + 1
    assert tokenizer.convert_tokens_to_ids("<empty_output>") == 3


def bare(tiny: SimpleNamespace, *special: str) -> Any:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = None
    known = SimpleNamespace(content="", special=True)
    tokens = {i: SimpleNamespace(**{**vars(known), "content": t}) for i, t in enumerate(special)}
    return SimpleNamespace(
        chat_template=None,
        added_tokens_decoder=tokens,
        added_tokens_encoder={token.content: i for i, token in tokens.items()},
    )


def test_llamas_reserved_token_is_chosen(tiny: SimpleNamespace) -> None:
    tokens = ("<|begin_of_text|>", "<|reserved_special_token_0|>", "<|eot_id|>")
    assert choose_image_token(bare(tiny, *tokens)) == "<|reserved_special_token_0|>"
    with pytest.raises(ConfigurationError, match=r"its special tokens \(<\|eot_id\|>\)"):
        choose_image_token(bare(tiny, "<|eot_id|>"))


def test_templates_follow_the_tokens(tiny: SimpleNamespace) -> None:
    llama = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    assert build_chat_template(bare(tiny, *llama), "<i>").endswith(LLAMA_3)
    assert build_chat_template(bare(tiny, "<|im_start|>", "<|im_end|>"), "<i>").endswith(CHATML)
    with pytest.raises(ConfigurationError, match="no chat template"):
        build_chat_template(bare(tiny, "<|im_end|>"), "<i>")
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = "mine"
    assert build_chat_template(tokenizer, "<i>").endswith("mine")


def render(processor: AlignVLMProcessor, messages: list[dict[str, Any]]) -> Any:
    return processor.apply_chat_template(messages, add_generation_prompt=True)


def test_rendered_chat(processor: AlignVLMProcessor, tiny: SimpleNamespace) -> None:
    messages = [
        {"role": "system", "content": "Be short."},
        *tiny.ask("Total?", tiny.page(28, 28)),
        {"role": "assistant", "content": [{"type": "text", "text": "12"}]},
        {"role": "user", "content": "Sure?"},
    ]
    assert render(processor, messages) == (
        "<|im_start|>system\nBe short.<|im_end|>\n"
        "<|im_start|>user\n<empty_output>\nTotal?<|im_end|>\n"
        "<|im_start|>assistant\n12<|im_end|>\n"
        "<|im_start|>user\nSure?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_defuse_marks_overlapping_tokens_and_spares_images() -> None:
    tokens = {i: SimpleNamespace(content=t, special=True) for i, t in enumerate(("<<a>", "<a>"))}
    tokens[2] = SimpleNamespace(content="<table>", special=False)
    tokenizer: Any = SimpleNamespace(added_tokens_decoder=tokens)
    m = BREAK_MARK
    assert defuse("<<a>", tokenizer, "") == f"<{m}<{m}a>"
    assert defuse("<table>", tokenizer, "") == "<table>"
    assert defuse("<table>", tokenizer, "x <table>") == f"<{m}table>"
    part = {"type": "image", "path": "<a>", "alt": ["<a>"]}
    assert defuse(part, tokenizer, "") == {"type": "image", "path": "<a>", "alt": [f"<{m}a>"]}


def test_marks_of_the_user_are_dropped(tiny: SimpleNamespace) -> None:
    typed = f"<|im{MARKS[0]}_end|>{MARKS[1]}"
    assert defuse(typed, tiny.tokenizer(), "") == f"<{BREAK_MARK}|im_end|>"


fragments = st.sampled_from([*SPECIAL, *(t[:5] for t in SPECIAL), *MARKS, " ", "\n", "a", "é", "<"])
typed_text = st.lists(st.one_of(fragments, st.text(max_size=6)), max_size=8).map("".join)


@given(text=typed_text, role=st.sampled_from(["user", "system", "<|im_end|>"]))
def test_what_users_type_is_never_a_control_token(
    processor: AlignVLMProcessor, tiny: SimpleNamespace, text: str, role: str
) -> None:
    """S10: typed placeholders and turns are text, down to the bytes."""
    page = tiny.page(28, 28)
    image = {"type": "image", "image": page}
    messages = [{"role": role, "content": [image, {"type": "text", "text": text}]}]
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True
    )
    ids = list(inputs["input_ids"][0])
    counts = [ids.count(token_id) for token_id in range(len(SPECIAL))]
    assert counts == [0, 2, 1, tiny.tokens_per_tile, 0]
    tokenizer = processor.tokenizer
    plain = text
    for mark in MARKS:
        plain = plain.replace(mark, "")
    assert tokenizer.decode(ids) == (
        f"<|im_start|>{role}\n{'<empty_output>' * 4}\n{plain}<|im_end|>\n<|im_start|>assistant\n"
    )
    # The prompt as a string, given to the processor later, is just as safe.
    prompt = render(processor, messages)
    assert list(processor(images=[page], text=prompt)["input_ids"][0]) == ids
