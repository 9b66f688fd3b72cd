"""What the model does with lmms-eval's requests, with a model that only says what it was asked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from alignvlm.errors import InputError, UsageError
from alignvlm.evaluation.models.base import EvaluatedModel
from alignvlm.evaluation.question import Prompt, Reply

# Importing lmms-eval warns of much, which is none of our business.
pytestmark = pytest.mark.filterwarnings("ignore")

Message = dict[str, Any]


class Parrot(EvaluatedModel):
    name = "parrot"

    def __init__(self, batch_size: int) -> None:
        self.prompts: list[Prompt] = []
        self.sizes: list[int] = []
        self._batch_size = batch_size

    @property
    def batch_size(self) -> int:
        return self._batch_size

    def describe(self) -> dict[str, str]:
        return {}

    def length(self, prompt: Prompt) -> int:
        return 1

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        self.sizes.append(len(prompts))
        self.prompts += prompts
        for prompt in prompts:
            for image in prompt.images:
                image.load()
        return [Reply(text=p.text, num_tokens=3, num_input_tokens=len(p.text)) for p in prompts]


Make = Callable[..., tuple[Any, Parrot]]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    """lmms-eval's model around the parrot, found as lmms-eval finds it."""
    from lmms_eval.models import get_model

    from alignvlm.evaluation.harness import lmms_eval

    def made(arguments: str = "", batch_size: object = 2) -> tuple[Any, Parrot]:
        opened: list[Parrot] = []

        def open_model(name: str, *, batch_size: int, **_: object) -> Parrot:
            opened.append(Parrot(batch_size))
            return opened[0]

        monkeypatch.setattr(lmms_eval, "open_model", open_model)
        model_class = get_model("alignvlm")
        assert model_class is lmms_eval.AlignVLM
        return model_class.create_from_arg_string(arguments, {"batch_size": batch_size}), opened[0]

    return made


def request(messages: list[Message], doc_id: int = 0, **options: Any) -> Any:
    from lmms_eval.api.instance import Instance

    return Instance(
        request_type="generate_until",
        arguments=("", lambda doc: messages, options, doc_id, "task", "test"),
        idx=0,
        metadata={"task": "task", "doc_id": doc_id, "repeats": 1},
    )


def ask(model: Any, *requests: Any) -> list[Any]:
    model.task_dict["task"] = {"test": {one.doc_id: {} for one in requests}}
    found: list[Any] = model.generate_until(list(requests))
    return found


def said(*content: str | Image.Image) -> list[Message]:
    parts = [
        {"type": "text", "text": one} if isinstance(one, str) else {"type": "image", "url": one}
        for one in content
    ]
    return [{"role": "user", "content": parts}]


def test_a_request_becomes_a_prompt_word_for_word(make: Make, tmp_path: Path) -> None:
    model, parrot = make("max_new_tokens=9")
    Image.new("RGB", (30, 20), "red").save(tmp_path / "page.png")
    messages = said("Compare", Image.new("RGBA", (4, 3)), " with ")
    messages[0]["content"].append({"type": "image", "url": str(tmp_path / "page.png")})
    ask(model, request(messages, 7, until=["\n\n", ""], max_new_tokens=5), request(said("x")))
    first, second = parrot.prompts
    assert first.text == "Compare<image>\n with <image>\n"
    assert first.images[0].load().getpixel((0, 0)) == (255, 255, 255)  # nothing, on paper
    assert (first.images[0].load().mode, first.images[0].size()) == ("RGB", (4, 3))
    assert first.images[1].load().getpixel((0, 0)) == (255, 0, 0)
    assert (first.max_new_tokens, first.stop, first.question_id) == (5, ("\n\n",), "task/7")
    assert (second.max_new_tokens, second.stop) == (9, ())
    ask(model, request(said("x"), until="stop"))
    assert parrot.prompts[-1].stop == ("stop",)


def test_a_turned_page_is_read_upright(make: Make) -> None:
    model, parrot = make()
    page = Image.new("RGB", (40, 20))
    page.getexif()[0x0112] = 6
    ask(model, request(said(page)))
    (image,) = parrot.prompts[0].images
    assert image.size() == image.load().size == (20, 40)


@pytest.mark.parametrize("batch_size", [1, 2, "3"])
def test_answers_come_in_the_order_of_the_requests(make: Make, batch_size: object) -> None:
    model, parrot = make(batch_size=batch_size)
    found = ask(model, *(request(said(str(n)), n) for n in range(5)))
    assert [one.text for one in found] == ["0", "1", "2", "3", "4"]
    assert {(one.token_counts.input_tokens, one.token_counts.output_tokens) for one in found} == {
        (1, 3)
    }
    assert max(parrot.sizes) == int(str(batch_size))


def test_a_page_that_cannot_be_read_costs_its_own_answer_alone(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    model, _ = make()
    broken = Image.new("F", (4, 4))
    found = ask(model, request(said("a"), 0), request(said("b", broken), 1), request(said("c"), 2))
    assert [one.text for one in found] == ["a", "", "c"]
    assert "task/1 was answered by nothing" in caplog.text


def test_what_ails_every_question_ends_the_run(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model, parrot = make()

    def fail(prompts: Sequence[Prompt]) -> list[Reply]:
        raise UsageError("no weights")

    monkeypatch.setattr(parrot, "answer", fail)
    with pytest.raises(UsageError, match="no weights"):
        ask(model, request(said("a")))
    assert not issubclass(UsageError, InputError)


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        ({"temperature": 0}, ""),
        ({"temperature": 0.7}, "sampling at temperature 0.7"),
        ({"temperature": 0.7, "do_sample": False}, ""),
        ({"num_beams": 4, "temperature": None}, "4 beams"),
        ({"num_beams": 1}, ""),
    ],
)
def test_a_task_that_wants_other_than_greedy_answers_is_told(
    make: Make, caplog: pytest.LogCaptureFixture, options: dict[str, Any], warned: str
) -> None:
    model, _ = make()
    with caplog.at_level(logging.WARNING):
        ask(model, *(request(said("a"), n, **options) for n in range(3)))
    messages = [one.getMessage() for one in caplog.records if "greedy" in one.getMessage()]
    assert len(messages) == bool(warned)
    assert all(warned in message for message in messages)


def test_requests_that_are_not_for_it(make: Make) -> None:
    model, parrot = make()
    system = [{"role": "system", "content": [{"type": "text", "text": "Hush"}]}]
    video = [{"role": "user", "content": [{"type": "video", "url": "x.mp4"}]}]
    with pytest.raises(UsageError, match="one message of the user"):
        ask(model, request(system + said("a")))
    with pytest.raises(UsageError, match="task asks about video"):
        ask(model, request(video))
    with pytest.raises(UsageError, match="no likelihoods"):
        model.loglikelihood([])
    with pytest.raises(UsageError, match="one message of the user"):
        model.generate_until_multi_round([request(said("a"))])
    with pytest.raises(UsageError, match="--batch_size is 'auto'"):
        make(batch_size="auto")
    assert not parrot.prompts
