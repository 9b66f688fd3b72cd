"""From a file and a question to an answer, with a model in miniature."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import alignvlm
from alignvlm.cli import run
from alignvlm.errors import InputError, LimitError, UsageError
from alignvlm.imaging.decode import Page
from alignvlm.inference.answerer import ModelAnswerer
from alignvlm.inference.ask import (
    Answer,
    Answerer,
    ask,
    ask_pages,
    best_answer,
    check_question,
    stream,
)
from alignvlm.limits import Limits


@pytest.fixture
def answerer(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModelAnswerer:
    monkeypatch.setattr("alignvlm.inference.hardware.choose_dtype", lambda _: torch.float32)
    return ModelAnswerer(model_folder, "cpu")


def inputs_of(answerer: ModelAnswerer, image: Image.Image, question: str) -> Any:
    content = [{"type": "image"}, {"type": "text", "text": question}]
    prompt = answerer.processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    return answerer.processor(images=image, text=prompt, return_tensors="pt")


def test_tokens_and_probabilities_are_those_of_generate(
    answerer: ModelAnswerer, page_path: Path
) -> None:
    answer = ask(page_path, "What is it?", model=answerer, max_new_tokens=12)
    inputs = inputs_of(answerer, Image.open(page_path), "What is it?")
    reference = answerer.model.generate(
        **inputs,
        max_new_tokens=12,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    new = reference.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    if 2 in new:
        new = new[: new.index(2)]
    decode = answerer.processor.tokenizer.decode
    assert len(new) > 3
    assert [text for text, _ in answer.tokens] == [decode([token]) for token in new]
    expected = [
        float(logits[0].double().softmax(-1)[token])
        for logits, token in zip(reference.logits, new, strict=False)
    ]
    assert [share for _, share in answer.tokens] == pytest.approx(expected, rel=1e-4)
    assert answer.text == decode(new, skip_special_tokens=True).strip()
    features = answerer.model.get_image_features(inputs["pixel_values"], inputs["tile_grids"])
    assert answer.num_visual_tokens == len(features.pooler_output[0]) > 0
    assert (answer.page, answer.source) == (1, str(page_path))
    assert answer.seconds > 0
    assert answer.complete == (len(new) < 12)


def test_stream_gives_the_same_text(answerer: ModelAnswerer, page_path: Path) -> None:
    whole = ask(page_path, "What?", model=answerer, max_new_tokens=9)
    pieces = []
    running = stream(page_path, "What?", model=answerer, max_new_tokens=9)
    while True:
        try:
            pieces.append(next(running))
        except StopIteration as end:
            assert end.value.tokens == whole.tokens
            break
    assert "".join(pieces).strip() == whole.text


def test_nothing_of_inference_mode_leaks_while_streaming(
    answerer: ModelAnswerer, page_path: Path
) -> None:
    running = stream(page_path, "What?", model=answerer)
    next(running)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    running.close()


def test_the_whole_command(
    model_folder: Path, page_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["ask", str(page_path), "What is it?", "--device", "cpu", "--max-new-tokens", "4"]
    assert run([*arguments, "--json"]) == 0
    out, err = capfd.readouterr()
    record = json.loads(out)
    assert 0 < len(record["tokens"]) <= 4
    assert all(0 < token["probability"] <= 1 for token in record["tokens"])
    assert err.startswith("Running on cpu (1 thread, ")
    assert run(arguments) == 0
    assert capfd.readouterr().out.strip() == record["answer"]


def test_a_typed_placeholder_is_text(answerer: ModelAnswerer, page_path: Path) -> None:
    token = answerer.processor.image_token
    answer = ask(page_path, f"What is {token}?", model=answerer, max_new_tokens=2)
    assert answer.num_visual_tokens > 0


def test_a_blank_page_is_answered_and_says_so(answerer: ModelAnswerer, tmp_path: Path) -> None:
    class Blank:
        def __call__(self, tokens: torch.Tensor, *_: object) -> torch.Tensor:
            return tokens[:0]

    path = tmp_path / "blank.png"
    Image.new("RGB", (40, 40), "white").save(path)
    answerer.model.model.condenser = Blank()
    assert ask(path, "What?", model=answerer, max_new_tokens=2).num_visual_tokens == 0


def test_a_question_longer_than_the_context(answerer: ModelAnswerer, page_path: Path) -> None:
    with pytest.raises(UsageError, match="300 with page and answer: shorten the question") as told:
        ask(page_path, "?" * 300, model=answerer)
    assert "max-new-tokens" not in str(told.value), "it is not what binds"
    with pytest.raises(UsageError, match=r"which --max-new-tokens keeps 295 .*: lower that, or"):
        ask(page_path, "What?", model=answerer, max_new_tokens=295)
    assert "model" not in vars(answerer), "no weights were loaded to find that out"


def test_a_page_longer_than_the_context(answerer: ModelAnswerer, tmp_path: Path) -> None:
    class Wordy:
        def __call__(self, tokens: torch.Tensor, *_: object) -> torch.Tensor:
            return tokens[:1].repeat(400, 1)

    path = tmp_path / "full.png"
    Image.new("RGB", (40, 40), "white").save(path)
    answerer.model.model.condenser = Wordy()
    with pytest.raises(LimitError, match=r"holds 400 .* 300 that the model reads, whatever --max"):
        ask(path, "What?", model=answerer)


def test_the_answer_ends_with_the_context(answerer: ModelAnswerer, page_path: Path) -> None:
    class Filling:
        def __call__(self, tokens: torch.Tensor, *_: object) -> torch.Tensor:
            return tokens[:1].repeat(240, 1)

    answerer.model.model.condenser = Filling()
    answerer.model.generation_config.eos_token_id = None
    answer = ask(page_path, "Q?", model=answerer, max_new_tokens=100)
    assert 0 < len(answer.tokens) < 60
    assert not answer.complete


class Stub(Answerer):
    """Sure of what it is told to be sure of."""

    def __init__(self, shares: dict[int, tuple[float, int]] | None = None) -> None:
        self.shares = shares or {}
        self.asked: list[int] = []

    def answer(self, page: Page, question: str, max_new_tokens: int) -> Any:
        self.asked.append(page.number)
        share, num_visual_tokens = self.shares.get(page.number, (0.5, 1))
        yield f"page {page.number}"
        return Answer(
            text=f"page {page.number}",
            page=page.number,
            source=page.source,
            seconds=1.0,
            num_visual_tokens=num_visual_tokens,
            tokens=(("a", share), ("b", share)),
            complete=True,
        )


@pytest.fixture
def three_pages(tmp_path: Path) -> Path:
    path = tmp_path / "three.tiff"
    pages = [Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue")]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    return path


def test_the_surest_page_wins(three_pages: Path) -> None:
    stub = Stub({1: (0.4, 9), 2: (0.7, 9), 3: (0.99, 0)})
    answer = ask(three_pages, "Which?", model=stub)
    assert (answer.text, answer.seconds) == ("page 2", 3.0), "page 3 is blank, however sure"
    assert stub.asked == [1, 2, 3]
    assert list(stream(three_pages, "Which?", model=stub)) == ["page 2"]


def test_all_pages_answer_if_asked_to(three_pages: Path) -> None:
    answers = ask_pages(three_pages, "Which?", model=Stub(), pages="3,1")
    assert [answer.page for answer in answers] == [3, 1]


def test_pages_are_decoded_as_they_are_needed(three_pages: Path) -> None:
    stub = Stub()
    answers = ask_pages(three_pages, "Which?", model=stub)
    next(answers)
    assert stub.asked == [1]
    answers.close()  # type: ignore[attr-defined]


def test_limits_reach_the_decoder(page_path: Path) -> None:
    with pytest.raises(LimitError):
        ask(page_path, "What?", model=Stub(), limits=Limits(max_page_px=10))


@pytest.mark.parametrize("question", ["", " \n\t"])
def test_an_empty_question_comes_before_the_file(question: str) -> None:
    for call in (ask, lambda *a, **k: next(ask_pages(*a, **k)), lambda *a: next(stream(*a))):
        with pytest.raises(UsageError, match="The question is empty"):
            call("no-such-file.png", question)


@pytest.mark.parametrize("question", [None, b"Why?", 3])
def test_a_question_is_text(page_path: Path, question: Any) -> None:
    with pytest.raises(UsageError, match=r"The question is a \w+ and no text: write one"):
        alignvlm.ask(page_path, question)


def test_a_bad_file_comes_before_the_model() -> None:
    with pytest.raises(InputError, match="There is no file"):
        ask("no-such-file.png", "What?", model="no-such-model")


@pytest.mark.parametrize("most", [0, -1])
def test_an_answer_has_room(most: int) -> None:
    with pytest.raises(UsageError, match="allow 1 or more"):
        check_question("What?", most)


def test_a_device_for_a_made_answerer_is_misuse(page_path: Path) -> None:
    with pytest.raises(UsageError, match="leave `device` out"):
        ask(page_path, "What?", model=Stub(), device="cpu")


def test_a_model_named_twice_is_loaded_once(
    model_folder: Path, page_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alignvlm.inference import loading

    loaded = []
    original = loading.load_model
    monkeypatch.setattr(
        loading, "load_model", lambda *parts: loaded.append(parts) or original(*parts)
    )
    for _ in range(2):
        alignvlm.ask(page_path, "What?", model=model_folder, device="cpu", max_new_tokens=1)
    assert len(loaded) == 1


def test_log_probabilities() -> None:
    def answer(*shares: float) -> Answer:
        return Answer(
            text="x",
            page=1,
            source="x",
            seconds=1.0,
            num_visual_tokens=1,
            tokens=tuple(("t", share) for share in shares),
            complete=True,
        )

    assert answer(0.5, 0.25).mean_log_probability == pytest.approx(math.log(0.125) / 2)
    assert answer().mean_log_probability == answer(0.5, 0.0).mean_log_probability == -math.inf
    assert best_answer([answer(), answer(0.01)]).tokens
    assert best_answer([answer()]).tokens == ()
