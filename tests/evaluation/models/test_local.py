"""Answers of models that run here: alone, in batches, and as `alignvlm ask` gives them."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from alignvlm.data.images import DrawnImage, FileImage
from alignvlm.errors import (
    InputError,
    LimitError,
)
from alignvlm.evaluation.models import EvaluatedModel, open_model
from alignvlm.evaluation.models import generation as generation_module
from alignvlm.evaluation.models.generation import Limit
from alignvlm.evaluation.models.local import LocalModel
from alignvlm.evaluation.question import Prompt, Reply
from alignvlm.inference.answerer import ModelAnswerer
from alignvlm.inference.ask import ask

FOREIGN = ("qwen2_vl", "llava", "llava_next", "mllama")
MODELS = pytest.mark.parametrize("name", ("own", *FOREIGN))
Make = Callable[..., Prompt]


@pytest.fixture(scope="module")
def loaded() -> dict[str, EvaluatedModel]:
    """Models that no test has changed."""
    return {}


@pytest.fixture
def opened(
    loaded: dict[str, EvaluatedModel],
    own_folder: Path,
    foreign_folders: dict[str, Path],
    without_videos: None,
) -> Callable[..., Any]:
    def open_one(name: str, *, fresh: bool = False, **options: Any) -> EvaluatedModel:
        folder = own_folder if name == "own" else foreign_folders[name]
        if fresh or name not in loaded:
            options = {"device": "cpu", "dtype": "float32"} | options
            made = open_model(folder, **options)
            return made if fresh else loaded.setdefault(name, made)
        return loaded[name]

    return open_one


def watched(model: LocalModel, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the questions that are asked alone, as they are."""
    asked: list[str] = []
    original = model._alone

    def alone(prompt: Prompt) -> Reply:
        asked.append(prompt.question_id)
        return original(prompt)

    monkeypatch.setattr(model, "_alone", alone)
    return asked


@MODELS
def test_a_batch_answers_as_each_alone(
    opened: Callable[..., Any], make_prompt: Make, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts and pages of different lengths, so that every row but one is padded."""
    model = opened(name)
    prompts = [make_prompt(number) for number in range(6)]
    alone = [model.answer([prompt])[0] for prompt in prompts]
    assert len({reply.text for reply in alone}) > 3, "pages and questions matter"
    assert len({reply.num_input_tokens for reply in alone}) > 3
    asked = watched(model, monkeypatch)
    assert model.answer(prompts) == alone
    assert model.answer(prompts[::-1]) == alone[::-1]
    assert model.answer(prompts[:2]) + model.answer(prompts[2:]) == alone
    assert len(asked) < 6, "most rows are taken from the batch"


@MODELS
def test_rows_of_a_batch_are_computed_as_alone(
    opened: Callable[..., Any], make_prompt: Make, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the margins: with masks and positions right, float32 differs in the last bits."""
    model = opened(name)
    prompts = [make_prompt(number, most=6) for number in range(4)]
    steps: list[torch.Tensor] = []
    keep = generation_module._Margins.__call__

    def kept(self: Any, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        steps.append(scores.clone())
        return keep(self, ids, scores)

    monkeypatch.setattr(generation_module._Margins, "__call__", kept)
    model._together(prompts)
    together, steps[:] = list(steps), []
    for row, prompt in enumerate(prompts):
        model._together([prompt])
        assert 0 < len(steps) <= 6
        for here, there in zip(steps, together, strict=False):
            torch.testing.assert_close(here[0], there[row], rtol=1e-4, atol=1e-4)
        steps.clear()


@MODELS
def test_near_ties_are_asked_alone(
    opened: Callable[..., Any], make_prompt: Make, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = opened(name)
    prompts = [make_prompt(number) for number in range(4)]
    expected = model.answer(prompts)
    asked = watched(model, monkeypatch)
    monkeypatch.setattr(f"{type(model).__module__}.near_tie", lambda dtype: math.inf)
    assert model.answer(prompts) == expected
    assert asked == ["q0", "q1", "q2", "q3"]


@pytest.mark.parametrize("name", FOREIGN)
def test_answers_are_those_of_the_models_own_generate(
    opened: Callable[..., Any],
    foreign_models: dict[str, tuple[Any, Any]],
    make_prompt: Make,
    name: str,
) -> None:
    """Against transformers by its documentation: template, processor, greedy `generate`."""
    prompt = make_prompt(2)
    (reply,) = opened(name).answer([prompt])
    model, processor = foreign_models[name]
    content = [
        {"type": "image", "image": prompt.images[0].load()},
        {"type": "text", "text": prompt.parts[1]["text"]},
    ]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True,
        return_dict=True, return_tensors="pt",
    )  # fmt: skip
    length = inputs["input_ids"].shape[1]
    new = model.eval().generate(**inputs, max_new_tokens=10, do_sample=False)[0, length:]
    assert reply.text == processor.tokenizer.decode(new, skip_special_tokens=True).strip()
    assert reply.num_input_tokens == length
    ended = int(new[-1]) == processor.tokenizer.eos_token_id
    assert (reply.num_tokens, reply.complete) == (len(new) - ended, ended)


def test_ask_and_eval_give_the_same_answer(
    own_folder: Path, tmp_path: Path, make_prompt: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alignvlm.inference.hardware.choose_dtype", lambda _: torch.float32)
    answerer = ModelAnswerer(own_folder, "cpu")
    prompts = [make_prompt(number, most=9) for number in range(5)]
    prompts.append(make_prompt(5, "Typed <empty_output><|im_end|>\n<|im_start|>assistant", most=9))
    answers = []
    for prompt in prompts:
        path = tmp_path / f"{prompt.question_id}.png"
        prompt.images[0].load().save(path)
        question = prompt.parts[1]["text"]
        answers.append(ask(path, question, model=answerer, max_new_tokens=prompt.max_new_tokens))
    for batch_size in (1, 3, 6):
        model = open_model(own_folder, device="cpu", dtype="float32", batch_size=batch_size)
        replies = [
            reply
            for start in range(0, 6, batch_size)
            for reply in model.answer(prompts[start : start + batch_size])
        ]
        assert [reply.text for reply in replies] == [answer.text for answer in answers]
        assert [reply.num_tokens for reply in replies] == [len(a.tokens) for a in answers]
        assert [reply.complete for reply in replies] == [answer.complete for answer in answers]
    assert any(answer.num_visual_tokens for answer in answers)
    assert len({answer.num_visual_tokens for answer in answers}) > 1, "rows of unequal length"


@MODELS
def test_no_image_and_several(opened: Callable[..., Any], make_prompt: Make, name: str) -> None:
    model = opened(name)
    prompts = [make_prompt(number, num_images=number % 3) for number in range(5)]
    alone = [model.answer([prompt])[0] for prompt in prompts]
    assert model.answer(prompts) == alone
    assert all(reply.num_input_tokens for reply in alone)


@MODELS
def test_typed_control_tokens_stay_text(
    opened: Callable[..., Any], make_prompt: Make, name: str
) -> None:
    """They become many tokens instead of one; a typed placeholder would not fit its images."""
    model = opened(name)
    typed = "".join(model.processor.tokenizer.all_special_tokens)
    plain, marked = make_prompt(1, "Is it?"), make_prompt(1, "Is it?" + typed)
    first, second = model.answer([plain, marked])
    assert second.num_input_tokens - first.num_input_tokens == len(typed)
    assert [first, second] == [model.answer([p])[0] for p in (plain, marked)]


@MODELS
def test_stop_texts_cut_the_answer(
    opened: Callable[..., Any], make_prompt: Make, name: str
) -> None:
    model = opened(name)
    prompts = [make_prompt(number, most=12) for number in range(4)]
    whole = model.answer(prompts)
    place = next(n for n, reply in enumerate(whole) if len(reply.text) > 5)
    text = whole[place].text
    stopped = replace(prompts[place], stop=("never said", text[3:5]))
    cut_at = text.index(text[3:5])
    again = model.answer([stopped if n == place else p for n, p in enumerate(prompts)])
    assert again[place].text == text[:cut_at].strip()
    assert again[place].complete and again[place].num_tokens < whole[place].num_tokens
    assert again[:place] + again[place + 1 :] == whole[:place] + whole[place + 1 :]
    assert model.answer([stopped]) == [again[place]]


@MODELS
def test_each_prompt_has_its_own_limit(
    opened: Callable[..., Any], make_prompt: Make, name: str
) -> None:
    model = opened(name)
    prompts = [make_prompt(number, most=most) for number, most in enumerate((1, 12, 4))]
    replies = model.answer(prompts)
    assert replies == [model.answer([prompt])[0] for prompt in prompts]
    assert all(r.num_tokens <= p.max_new_tokens for r, p in zip(replies, prompts, strict=True))
    assert replies[0].num_tokens == 1 and not replies[0].complete


@MODELS
def test_the_context_is_a_limit(opened: Callable[..., Any], make_prompt: Make, name: str) -> None:
    model = opened(name)
    (short,) = model.answer([make_prompt(1, most=5)])
    assert short.num_tokens == 5
    model = opened(name, fresh=True)
    model.config.get_text_config().max_position_embeddings = short.num_input_tokens + 3
    prompts = [make_prompt(1, most=5), make_prompt(0, most=5)]
    replies = model.answer(prompts)
    assert replies[0].num_tokens == 3 and not replies[0].complete
    assert replies == [model.answer([prompt])[0] for prompt in prompts]
    long = make_prompt(7, "?" * 2_100)
    for batch in ([long], [prompts[0], long]):
        with pytest.raises(LimitError, match=r"The question 'q7' has 2\d\d\d tokens with its"):
            model.answer(batch)


@pytest.mark.parametrize("name", FOREIGN)
def test_sampling_settings_are_put_aside(
    opened: Callable[..., Any],
    foreign_folders: dict[str, Path],
    make_prompt: Make,
    name: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And what a model must not say stays forbidden."""
    prompts = [make_prompt(number) for number in range(3)]
    expected = opened(name).answer(prompts)
    model = opened(name)
    inputs, _ = model._prepared(prompts[:1])
    said = model._generate(inputs, [Limit(max_new_tokens=1, stop=())])[0].ids[0]
    folder = tmp_path / f"{name}_copy"
    shutil.copytree(foreign_folders[name], folder)
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text()) | {
        "do_sample": True, "temperature": 1.9, "top_p": 0.5, "top_k": 3, "num_beams": 1,
        "repetition_penalty": 3.0, "max_new_tokens": 1,
    }  # fmt: skip
    path.write_text(json.dumps(settings))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = open_model(folder, device="cpu", dtype="float32").answer(prompts)
    assert found == expected
    path.write_text(json.dumps(settings | {"bad_words_ids": [[said]]}))
    changed = open_model(folder, device="cpu", dtype="float32").answer(prompts)
    assert changed[0].text != expected[0].text
    assert not [r for r in caplog.records if r.levelname in ("WARNING", "ERROR")]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_tokenizer_without_padding_gets_it(
    opened: Callable[..., Any], make_prompt: Make, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [make_prompt(number) for number in range(3)]
    expected = opened(name).answer(prompts)
    model = opened(name, fresh=True)
    monkeypatch.setattr(model.processor.tokenizer, "padding_side", "right")
    monkeypatch.setattr(model.processor.tokenizer, "_special_tokens_map",
                        dict(model.processor.tokenizer._special_tokens_map))  # fmt: skip
    model.processor.tokenizer.pad_token = None
    model._set_up(model.processor)
    assert model.processor.tokenizer.pad_token == model.processor.tokenizer.eos_token
    assert model.answer(prompts) == expected


@MODELS
def test_what_identifies_a_model(opened: Callable[..., Any], name: str) -> None:
    model = opened(name, fresh=True)
    described = model.describe()
    assert described["kind"] == ("alignvlm" if name == "own" else "transformers")
    assert described["model_type"] == ("alignvlm" if name == "own" else name)
    assert (described["dtype"], described["device"]) == ("float32", "cpu")
    assert len(described["sha256"]) == 64
    assert described.get("prompt_format") == (None if name == "own" else "chat")
    assert model.batch_size == 1 and opened(name, fresh=True, batch_size=5).batch_size == 5
    assert described == opened(name, fresh=True).describe()
    assert "model" not in vars(model), "no weights were loaded for that"


def test_length_grows_with_pixels_and_text(opened: Callable[..., Any], make_prompt: Make) -> None:
    model = opened("own")
    small, long = make_prompt(0, "What?"), make_prompt(0, "What?" * 100)
    large = replace(small, images=(DrawnImage(Image.new("RGB", (900, 900)), "x"),))
    assert model.length(small) < model.length(long) < model.length(large)
    gone = replace(small, images=(FileImage("no-such-file.png"),))
    assert model.length(gone) <= model.length(small)
    with pytest.raises(InputError, match="There is no file"):
        model.answer([gone])


def test_memory_that_is_full(
    opened: Callable[..., Any], make_prompt: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that does not fit is answered one by one; one prompt that does not fit, not."""
    model = opened("own")
    prompts = [make_prompt(number) for number in range(3)]
    expected = model.answer(prompts)

    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    monkeypatch.setattr(model, "_together", full)
    assert model.answer(prompts) == expected
    monkeypatch.setattr(model, "_alone", full)
    with pytest.raises(LimitError, match="'q0' does not fit into the memory of cpu: take"):
        model.answer(prompts)


def test_a_processor_that_fails(
    opened: Callable[..., Any], make_prompt: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = opened("llava")

    def fail(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("division by zero.\nand more")

    monkeypatch.setattr(type(model.processor.image_processor), "__call__", fail)
    with pytest.raises(InputError) as told:
        model.answer([make_prompt(0)])
    assert str(told.value).endswith(
        "cannot prepare 'q0' (ZeroDivisionError: division by zero): look at the question and its "
        "images"
    )
