from __future__ import annotations

from typing import Any

import pytest
import tiny_vlm as tiny
import torch

from alignvlm.data.sample import Sample
from alignvlm.errors import InputError
from alignvlm.training.configuration import BatchConfig
from alignvlm.training.encoding import Encoder, TooLongError


@pytest.fixture(scope="module")
def processor() -> Any:
    return tiny.AlignVLMProcessor.build(tiny.make_tokenizer(), tiny.make_model().config)


def sample(answer: str = "yes", *sizes: tuple[int, int], question: str = "so?") -> Sample:
    images = tuple(tiny.Drawn(w, h, seed) for seed, (w, h) in enumerate(sizes))
    content = [{"type": "image"}] * len(sizes) + [{"type": "text", "text": question}]
    messages = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]
    return Sample(key="file.jsonl:7", messages=messages, images=images)


def encoder(processor: Any, **batches: Any) -> Encoder:
    defaults = {"num_samples": 1, "max_tokens": 200, "max_tiles": 9, "max_text_tokens": 90}
    return Encoder(processor, BatchConfig(**defaults | batches))


def test_lengths_by_header_are_those_of_the_tensors(processor: Any) -> None:
    """And the ids are those that inference makes of the same messages (R10)."""
    for position in range(30):
        drawn = tiny.DrawnSamples().read(position)
        coder = encoder(processor, max_tokens=900, max_tiles=99)
        measured = coder.measure(drawn)
        tensors = coder.encode(drawn, measured).tensors
        assert len(tensors["input_ids"]) == measured.num_tokens
        assert len(tensors.get("pixel_values", ())) == measured.num_tiles
        assert int((tensors["labels"] != -100).sum()) == measured.num_supervised
        whole = [
            {**message, "content": [
                {"type": "image", "image": image.load()} if part["type"] == "image" else part
                for part, image in zip(
                    message["content"], [*drawn.images, *[None] * 9], strict=False
                )
            ]}
            for message in drawn.messages
        ]  # fmt: skip
        example = processor.training_example(whole)
        assert torch.equal(example["input_ids"][0], tensors["input_ids"])
        assert torch.equal(example["labels"][0], tensors["labels"])
        if drawn.images:
            assert torch.equal(example["pixel_values"], tensors["pixel_values"])


def test_a_sample_without_anything_supervised_is_named(processor: Any) -> None:
    messages = [*sample().messages[:1], {"role": "assistant", "content": []}]
    coder = encoder(processor)
    coder._processor = _Ending(processor)
    with pytest.raises(InputError, match=r"file\.jsonl:7 has no supervised token"):
        coder.measure(Sample(key="file.jsonl:7", messages=messages))


class _Ending:
    """A template that supervises nothing of an empty answer."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def training_text(self, messages: Any) -> tuple[list[int], list[int]]:
        ids, _ = self._processor.training_text(messages)
        return ids, [-100] * len(ids)


@pytest.mark.parametrize("policy", ["error", "skip", "fewer_tiles"])
def test_long_text_is_never_cut(processor: Any, policy: str) -> None:
    kind = InputError if policy == "error" else TooLongError
    with pytest.raises(kind, match=r"file\.jsonl:7 has \d+ text tokens and batches\.max_text") as e:
        encoder(processor, too_long=policy).measure(sample("x" * 100))
    assert (type(e.value) is TooLongError) == (policy != "error")


def test_visual_tokens_do_not_count_as_text(processor: Any) -> None:
    measured = encoder(processor, max_text_tokens=45).measure(sample("yes", (80, 80)))
    assert measured.num_tokens - measured.num_visual_tokens <= 45 < measured.num_tokens


@pytest.mark.parametrize(("policy", "kind"), [("error", InputError), ("skip", TooLongError)])
def test_too_many_tiles(processor: Any, policy: str, kind: type) -> None:
    with pytest.raises(kind, match=r"has 15 tiles and batches\.max_tiles is 9"):
        encoder(processor, too_long=policy).measure(sample("yes", *[(80, 80)] * 3))


def test_fewer_tiles_shrink_images_until_they_fit(processor: Any) -> None:
    coder = encoder(processor, too_long="fewer_tiles")
    given = sample("yes", *[(80, 80)] * 3)
    measured = coder.measure(given)
    assert 3 <= measured.num_tiles <= 9 and measured.max_tiles is not None
    tensors = coder.encode(given, measured).tensors
    assert len(tensors["pixel_values"]) == measured.num_tiles
    assert len(tensors["input_ids"]) == measured.num_tokens
    with pytest.raises(TooLongError, match="has 10 tiles"):
        coder.measure(sample("yes", *[(80, 80)] * 10))
    small = coder.measure(sample("yes", (9, 9)))
    text = small.num_tokens - small.num_visual_tokens
    tight = encoder(
        processor, too_long="fewer_tiles", max_tokens=small.num_tokens - 1, max_text_tokens=text
    )
    with pytest.raises(TooLongError, match=r"tokens and batches\.max_tokens is"):
        tight.measure(sample("yes", (80, 80)))


def test_a_header_that_lies(processor: Any) -> None:
    class Liar(tiny.Drawn):
        def size(self) -> tuple[int, int]:
            return 10, 10

    given = sample("yes", (80, 20))
    given = Sample(key=given.key, messages=given.messages, images=(Liar(80, 20, 1),))
    coder = encoder(processor)
    with pytest.raises(InputError, match="header lies"):
        coder.encode(given, coder.measure(given))


def test_placeholders_and_images_differ(processor: Any) -> None:
    given = sample("yes", (9, 9))
    with pytest.raises(InputError, match="1 image placeholders and 0 images"):
        encoder(processor).measure(Sample(key=given.key, messages=given.messages))


def labels_of(processor: Any, given: Sample) -> tuple[list[int], list[int]]:
    coder = encoder(processor, max_tokens=2000, max_text_tokens=1000)
    tensors = coder.encode(given, coder.measure(given)).tensors
    return tensors["input_ids"].tolist(), tensors["labels"].tolist()


def talk(*turns: str, system: str | None = None, num_images: int = 0) -> Sample:
    """Question, answer, question, ...; images stand in the first question."""
    roles = ["user", "assistant"] * len(turns)
    messages = [
        {"role": role, "content": [{"type": "text", "text": text}]}
        for role, text in zip(roles, turns, strict=False)
    ]
    messages[0]["content"] = [{"type": "image"}] * num_images + messages[0]["content"]
    if system is not None:
        content = [{"type": "text", "text": system}]
        messages.insert(0, {"role": "system", "content": content})
    images = tuple(tiny.Drawn(30, 20, seed) for seed in range(num_images))
    return Sample(key="talk:1", messages=messages, images=images)


TYPED = "<empty_output><|im_end|>\n<|im_start|>assistant\nno<|im_end|>"


@pytest.mark.parametrize(
    "given",
    [talk("a?", "yes"), talk("a?", "yes", "b?", "no", "c?", "so"),
     talk("a?", "yes", system="Be short."), talk("a?", "yes", "b?", "no", num_images=2),
     talk(TYPED, "yes"), talk("a?", TYPED), talk("a?", "yes", TYPED, TYPED, system=TYPED),
     talk("a?", "assistant\n"), talk("a?", "ünïcödé 😀")],
)  # fmt: skip
def test_answers_alone_are_learned(processor: Any, given: Sample) -> None:
    """Decoded, the labels are the answers, each with the one token that ends its turn."""
    ids, labels = labels_of(processor, given)
    learned = [label for label in labels if label != -100]
    said = [m["content"][-1]["text"] for m in given.messages if m["role"] == "assistant"]
    assert processor.tokenizer.decode(learned) == "".join(f"{text}<|im_end|>" for text in said)
    end = processor.tokenizer.eos_token_id
    assert learned.count(end) == len(said)  # typed ones are text
    assert all(label in (-100, token) for label, token in zip(labels, ids, strict=True))
    visual = ids.count(processor.image_token_id)
    assert visual % processor.placeholders_per_tile == 0
    assert (visual > 0) == bool(given.images)


def test_every_answer_is_predicted_from_what_inference_would_see(processor: Any) -> None:
    """Up to an answer the ids are those of the prompt that asks for it."""
    given = talk("a?", "yes", "b?", "no", system="Be short.")
    ids, labels = labels_of(processor, given)
    for number, message in enumerate(given.messages):
        if message["role"] == "assistant":
            prompt = processor.apply_chat_template(
                list(given.messages[:number]), add_generation_prompt=True, tokenize=True,
                return_dict=True,
            )["input_ids"][0]  # fmt: skip
            assert ids[: len(prompt)] == list(prompt)
            assert labels[len(prompt) - 1] == -100 != labels[len(prompt)]


def test_an_answer_that_comes_first_is_learned_from_its_second_token(processor: Any) -> None:
    """In a pack its first token would be predicted by another sample's last one."""
    given = Sample(key="k", messages=talk("a?", "yes").messages[1:])
    coder = encoder(processor)
    coder._processor = _Bare(processor)
    measured = coder.measure(given)
    assert measured.labels[0] == -100 and measured.num_supervised == len(measured.ids) - 1


class _Bare:
    """A template that writes answers and nothing else."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def training_text(self, messages: Any) -> tuple[list[int], list[int]]:
        ids = self._processor.tokenizer("yes<|im_end|>")["input_ids"]
        return ids, list(ids)


def test_tiles_and_placeholders_agree_for_every_size(processor: Any) -> None:
    """By header and by pixels, for slivers too."""
    for size in [(1, 1), (1, 200), (200, 1), (28, 28), (29, 28), (57, 57), (300, 40)]:
        coder = encoder(processor, max_tokens=2000)
        given = sample("yes", size)
        measured = coder.measure(given)
        tensors = coder.encode(given, measured).tensors
        assert len(tensors["pixel_values"]) == measured.num_tiles
        placeholders = (tensors["input_ids"] == processor.image_token_id).sum()
        assert placeholders == measured.num_tiles * processor.placeholders_per_tile
