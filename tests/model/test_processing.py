from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from alignvlm.errors import ConfigurationError, UsageError
from alignvlm.imaging.tiling import Tiling, choose_grid
from alignvlm.model import (
    AlignVLMConfig,
    AlignVLMForConditionalGeneration,
    AlignVLMProcessor,
    num_visual_tokens,
)


def test_counts_agree_on_ten_thousand_sizes(
    processor: AlignVLMProcessor, tiny: SimpleNamespace
) -> None:
    """R8: processor, servers' counts, configuration and the model's own tiles."""
    config: AlignVLMConfig = tiny.config()
    per_tile, tiling = config.placeholders_per_tile, Tiling(**config.tiling)
    rng = random.Random(0)
    sizes = [(rng.randint(1, 3000), rng.randint(1, 3000)) for _ in range(9_996)]
    sizes += [(1, 200), (200, 1), (28, 28), (252, 28)]
    seen = set()
    for start in range(0, len(sizes), 1000):
        part = sizes[start : start + 1000]
        grids = [choose_grid(width, height, tiling) for width, height in part]
        rows = np.asarray([[grid.rows, grid.cols, int(grid.thumbnail)] for grid in grids])
        runs = [processor.replace_image_token({"tile_grids": rows}, i) for i in range(len(part))]
        counted = [len(run) // len(processor.image_token) for run in runs]
        data = processor._get_num_multimodal_tokens(image_sizes=[(h, w) for w, h in part])
        assert counted == data["num_image_tokens"]
        assert counted == [num_visual_tokens(grid.num_tiles, per_tile) for grid in grids]
        assert data["num_image_patches"] == [int(r * c + t) for r, c, t in rows]
        seen.update(counted)
    assert len(seen) > 5


@pytest.mark.parametrize("size", [(28, 28), (60, 40), (10, 90), (300, 20)])
def test_the_model_makes_as_many_tokens_as_were_counted(
    processor: AlignVLMProcessor, tiny: SimpleNamespace, size: tuple[int, int]
) -> None:
    model = AlignVLMForConditionalGeneration(tiny.config())
    inputs = processor(images=[tiny.page(*size)], text=processor.image_token, return_tensors="pt")
    tokens = model.get_image_features(inputs["pixel_values"], inputs["tile_grids"]).pooler_output
    assert len(tokens[0]) == (inputs["input_ids"] == processor.image_token_id).sum()
    data = processor._get_num_multimodal_tokens(image_sizes=[size[::-1]])
    assert data["num_image_tokens"] == [len(tokens[0])]
    assert data["num_image_patches"] == [len(inputs["pixel_values"])]
    assert processor._get_num_multimodal_tokens().num_image_tokens is None


def test_servers_get_offsets_and_types(processor: AlignVLMProcessor, tiny: SimpleNamespace) -> None:
    image = processor.image_token
    inputs = processor(
        images=[tiny.page(28, 28), tiny.page(60, 40)],
        text=f"a{image}b{image}",
        return_text_replacement_offsets=True,
        return_mm_token_type_ids=True,
    )
    (first, second) = inputs["text_replacement_offsets"][0]
    assert first["replacement"] == image * 4
    assert first["new_span"] == (1, 1 + 4 * len(image))
    assert second["text"] == image
    types = inputs["mm_token_type_ids"][0]
    assert sum(types) == inputs["input_ids"][0].count(processor.image_token_id) == 4 + 28


@pytest.mark.parametrize(
    ("text", "num_images"), [("no image", 1), ("<empty_output>", 0), ("<empty_output>" * 2, 1)]
)
def test_placeholders_and_images_must_match(
    processor: AlignVLMProcessor, tiny: SimpleNamespace, text: str, num_images: int
) -> None:
    with pytest.raises(UsageError, match="do not fit together"):
        processor(images=[tiny.page(28, 28)] * num_images or None, text=text)


def test_truncation_never_cuts_an_image(
    processor: AlignVLMProcessor, tiny: SimpleNamespace
) -> None:
    with pytest.raises(UsageError, match="truncation"):
        processor(images=[tiny.page(60, 40)], text="<empty_output>", truncation=True, max_length=10)


def test_batches_are_padded_on_the_left(processor: AlignVLMProcessor) -> None:
    inputs = processor(text=["a", "bcd"], padding=True, return_tensors="pt")
    assert inputs["attention_mask"].tolist() == [[0, 0, 1], [1, 1, 1]]


def test_a_beginning_of_text_is_not_doubled(tiny: SimpleNamespace) -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.bos_token = "<file_sep>"
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<file_sep> $A", special_tokens=[("<file_sep>", 4)]
    )
    processor = AlignVLMProcessor.build(tokenizer, tiny.config())
    assert processor(text="a")["input_ids"][0][0] == 4
    assert processor(text="<file_sep>a")["input_ids"][0].count(4) == 1
    template = "{{ bos_token }}" + processor.chat_template
    typed = processor.apply_chat_template(
        tiny.ask("<file_sep>"), chat_template=template, tokenize=True, return_dict=True
    )
    assert typed["input_ids"][0].count(4) == 1


def conversation(tiny: SimpleNamespace, seed: int) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    words = ["total", "é", "<|im_end|>", "<empty_output>", " 12,50", "\n", "  ", "naïve", "?"]
    messages: list[dict[str, Any]] = []
    if rng.random() < 0.3:
        messages.append({"role": "system", "content": "Answer from the page."})
    for turn in range(rng.randint(1, 3)):
        pages = [tiny.page(rng.randint(5, 80), rng.randint(5, 80), seed)] * rng.randint(0, 2)
        text = "".join(rng.choices(words, k=rng.randint(1, 6)))
        messages += tiny.ask(text, *pages)
        answer = "".join(rng.choices(words, k=rng.randint(1, 4)))
        messages.append(
            {
                "role": "assistant",
                "content": answer if turn % 2 else [{"type": "text", "text": answer}],
            }
        )
    return messages


@pytest.mark.parametrize("block", range(10))
def test_training_sees_what_inference_sees(
    processor: AlignVLMProcessor, tiny: SimpleNamespace, block: int
) -> None:
    """R10, 200 conversations: ids up to each answer, pixels, and labels on answers alone."""
    for seed in range(20 * block, 20 * block + 20):
        messages = conversation(tiny, seed)
        example = processor.training_example(messages)
        ids, labels = example["input_ids"][0], example["labels"][0]
        learned = labels != -100
        assert torch.equal(ids[learned], labels[learned])
        starts = (learned & ~learned.roll(1)).nonzero().flatten().tolist()
        ends = [end for end, one in enumerate(messages) if one["role"] == "assistant"]
        assert len(starts) == len(ends)
        for start, end in zip(starts, ends, strict=True):
            prompt = processor.apply_chat_template(
                messages[:end],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
            assert torch.equal(prompt["input_ids"][0], ids[:start])
        if "pixel_values" in prompt:
            assert torch.equal(prompt["pixel_values"], example["pixel_values"])
            assert torch.equal(prompt["tile_grids"], example["tile_grids"])
        assert (labels == 2).sum() == len(ends)  # every answer learns to end


def test_an_example_needs_an_answer(processor: AlignVLMProcessor, tiny: SimpleNamespace) -> None:
    with pytest.raises(UsageError, match="no assistant message"):
        processor.training_example(tiny.ask("What?"))


def test_templates_that_rewrite_history_are_refused(tiny: SimpleNamespace) -> None:
    template = "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    processor = AlignVLMProcessor.build(tiny.tokenizer(), tiny.config(), chat_template=template)
    with pytest.raises(ConfigurationError, match="rewrites earlier messages"):
        processor.training_example(
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        )


def test_a_foreign_tokenizer_is_refused(tiny: SimpleNamespace) -> None:
    with pytest.raises(ConfigurationError, match="no special token of this tokenizer"):
        AlignVLMProcessor.build(tiny.tokenizer(), tiny.config(image_token_id=100))
    built = AlignVLMProcessor.build(tiny.tokenizer(), tiny.config())
    with pytest.raises(ConfigurationError, match="'<image>'"):
        AlignVLMProcessor(built.image_processor, tiny.tokenizer())


def test_saved_as_one_folder(
    processor: AlignVLMProcessor, tiny: SimpleNamespace, tmp_path: Path
) -> None:
    processor.save_pretrained(tmp_path)
    assert (tmp_path / "chat_template.jinja").read_text(encoding="utf-8") == processor.chat_template
    again = AlignVLMProcessor.from_pretrained(tmp_path)
    messages = tiny.ask("Total <|im_end|>?", tiny.page(60, 40))
    options: dict[str, Any] = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    first = processor.apply_chat_template(messages, **options)
    second = again.apply_chat_template(messages, **options)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
