"""Base models, whose repositories have no chat template."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from alignvlm.errors import ConfigurationError
from alignvlm.evaluation.models import open_model
from alignvlm.evaluation.models.raw import RawFormat
from alignvlm.evaluation.question import Prompt

BASES = pytest.mark.parametrize("name", ("mllama", "llava", "qwen2_vl"))
Make = Callable[..., Prompt]

# As the models' cards write them, or for LLaVA its processor's documentation.
CARDS = {
    "mllama": "<|image|><|begin_of_text|>What is it?",
    "llava": "<image>What is it?",
    "qwen2_vl": "<|vision_start|><|image_pad|><|vision_end|>What is it?",
}


@pytest.fixture
def base(
    foreign_folders: dict[str, Path],
    foreign_models: dict[str, tuple[Any, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Any]:
    """Opens a model whose folder lacks the template."""
    from alignvlm.evaluation.models import foreign

    videoless = copy.copy(foreign_models["qwen2_vl"][1])  # its video half needs torchvision
    videoless.chat_template = None
    original = foreign.AutoProcessor.from_pretrained

    def load(folder: Path, **options: Any) -> Any:
        return videoless if folder.name == "qwen2_vl" else original(folder, **options)

    monkeypatch.setattr(foreign.AutoProcessor, "from_pretrained", load)

    def open_one(name: str) -> Any:
        folder = tmp_path / name
        shutil.copytree(foreign_folders[name], folder)
        (folder / "chat_template.jinja").unlink()
        return open_model(folder, device="cpu", dtype="float32")

    return open_one


@BASES
def test_answers_are_those_of_the_models_own_generate(
    base: Callable[..., Any],
    foreign_models: dict[str, tuple[Any, Any]],
    make_prompt: Make,
    name: str,
) -> None:
    """Against transformers as the models' cards show it: processor, greedy `generate`."""
    prompt = make_prompt(0)
    (reply,) = base(name).answer([prompt])
    model, processor = foreign_models[name]
    inputs = processor(images=prompt.images[0].load(), text=CARDS[name], return_tensors="pt")
    length = inputs["input_ids"].shape[1]
    torch.manual_seed(0)
    new = model.eval().generate(**inputs, max_new_tokens=10, do_sample=False)[0, length:]
    assert reply.text == processor.tokenizer.decode(new, skip_special_tokens=True).strip()
    assert reply.text and reply.num_input_tokens == length
    assert reply.num_tokens == len(new) - (int(new[-1]) == processor.tokenizer.eos_token_id)


@BASES
def test_a_batch_answers_as_each_alone(
    base: Callable[..., Any], make_prompt: Make, name: str
) -> None:
    model = base(name)
    typed = "".join(model.processor.tokenizer.all_special_tokens)
    prompts = [make_prompt(number) for number in range(4)]
    prompts += [make_prompt(4, "Is it?" + typed), make_prompt(5, num_images=2)]
    parts = ({"type": "text", "text": "Of"}, {"type": "image"}, {"type": "text", "text": "what?"})
    prompts.append(Prompt(question_id="m", parts=parts, images=prompts[0].images, max_new_tokens=9))
    alone = [model.answer([prompt])[0] for prompt in prompts]
    assert len({reply.text for reply in alone}) > 4
    assert model.answer(prompts) == alone


@BASES
def test_typed_control_tokens_stay_text(
    base: Callable[..., Any], make_prompt: Make, name: str
) -> None:
    """What stands around them, the start of the text included, is the same."""
    model = base(name)
    typed = "".join(model.processor.tokenizer.all_special_tokens)
    plain, marked = make_prompt(1, "Is it?"), make_prompt(1, "Is it?" + typed)
    first, second = (model._prepared([prompt])[0]["input_ids"][0] for prompt in (plain, marked))
    assert second[: len(first)].tolist() == first.tolist()
    assert len(second) - len(first) == len(typed)


@BASES
def test_the_format_is_said(base: Callable[..., Any], name: str) -> None:
    assert base(name).describe()["prompt_format"] == "raw"


def test_nothing_stands_for_an_image() -> None:
    bare = SimpleNamespace(tokenizer=SimpleNamespace(bos_token="<s>"), image_token=None)
    with pytest.raises(ConfigurationError, match="neither a chat template nor a token for images"):
        RawFormat("mine", bare, SimpleNamespace(model_type="llava"))
