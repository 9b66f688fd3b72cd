"""Endpoints, against a server on this machine that fails as real ones do."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from endpoint_server import Server, reply
from PIL import Image

from alignvlm.data.images import DrawnImage, FileImage
from alignvlm.errors import AlignVLMError, InputError, UsageError
from alignvlm.evaluation.models import endpoint, open_model
from alignvlm.evaluation.models.endpoint import KEY, Endpoint, data_url
from alignvlm.evaluation.question import Prompt

Make = Callable[..., Prompt]


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Seconds between tries, which pass at once; requests are allowed."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    waited: list[float] = []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv(KEY, raising=False)
    monkeypatch.setattr(Endpoint, "_wait", lambda _, seconds: waited.append(seconds))
    yield waited
    close_session()


def opened(server: Server, **options: Any) -> Endpoint:
    model = open_model(f"{server.address}/v1#some/model", **options)
    assert isinstance(model, Endpoint)
    return model


def test_what_is_asked_and_what_comes_back(server: Server, make_prompt: Make) -> None:
    server.replies = [reply(" Paris \n", prompt_tokens=321, completion_tokens=2)]
    prompt = make_prompt(2, "Which town?", num_images=2, most=17, stop=("\n\n",))
    (found,) = opened(server).answer([prompt])
    assert (found.text, found.num_tokens, found.num_input_tokens) == ("Paris", 2, 321)
    assert found.complete
    (asked,) = server.requests
    (message,) = asked.pop("messages")
    assert asked == {
        "model": "some/model", "max_tokens": 17, "temperature": 0, "stop": ["\n\n"],
    }  # fmt: skip
    assert server.paths == ["/v1/chat/completions"]
    assert message["role"] == "user"
    *images, text = message["content"]
    assert text == {"type": "text", "text": "Which town?"}
    for part, image in zip(images, prompt.images, strict=True):
        head, _, content = part["image_url"]["url"].partition(",")
        assert (part["type"], head) == ("image_url", "data:image/png;base64")
        sent = Image.open(BytesIO(base64.b64decode(content, validate=True)))
        assert np.array_equal(np.asarray(sent), np.asarray(image.load()))


def test_large_images_go_as_jpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    monkeypatch.setattr(endpoint, "_MAX_PNG_BYTES", 9_000)
    head, _, content = data_url(image).partition(",")
    assert head == "data:image/jpeg;base64"
    sent = Image.open(BytesIO(base64.b64decode(content)))
    assert (sent.format, sent.size) == ("JPEG", (60, 60))


def test_an_answer_in_parts(server: Server, make_prompt: Make) -> None:
    parts = [{"type": "text", "text": "Pa"}, {"type": "reasoning", "text": "hm"},
             {"type": "text", "text": "ris"}]  # fmt: skip
    server.replies = [reply(parts)]
    assert opened(server).answer([make_prompt()])[0].text == "Paris"
    assert len(server.requests) == 1


def test_finished_answers_of_a_batch_that_fails_are_not_asked_again(
    server: Server, make_prompt: Make
) -> None:
    def refuse_one(request: dict[str, Any]) -> Any:
        text = request["messages"][0]["content"][-1]["text"]
        return (400, b"", {}) if text == "question 1" else reply(text)

    server.replies = [refuse_one]
    prompts = [make_prompt(number, f"question {number}", num_images=0) for number in range(4)]
    model = opened(server, batch_size=4)
    with pytest.raises(InputError, match="'q1'"):
        model.answer(prompts)
    num_asked = len(server.requests)
    assert num_asked == 4
    for number, prompt in enumerate(prompts):
        if number == 1:
            with pytest.raises(InputError, match="'q1'"):
                model.answer([prompt])
        else:
            assert model.answer([prompt])[0].text == f"question {number}"
    assert len(server.requests) == num_asked + 1
    same = make_prompt(0, "question 0", num_images=0)
    assert model.answer([same])[0].text == "question 0"
    assert len(server.requests) == num_asked + 2, "another prompt, if with the same words"


def test_a_prompt_that_is_no_question(server: Server) -> None:
    """A judge's."""
    parts = ({"type": "text", "text": "Grade it"},)
    asked = Prompt(question_id="", parts=parts, images=(), max_new_tokens=4)
    server.replies = [(500, b"", {})]
    with pytest.raises(InputError, match="gave no answer to a prompt in 5 tries"):
        opened(server).answer([asked])


def test_an_answer_cut_by_the_server_and_one_without_text(
    server: Server, make_prompt: Make
) -> None:
    server.replies = [reply("one two", "length"), reply(None, "length")]
    first, second = (opened(server).answer([make_prompt()])[0] for _ in range(2))
    assert (first.text, first.complete, first.num_tokens) == ("one two", False, None)
    assert (second.text, second.complete) == ("", False)


def test_stop_texts_cut_here_too(server: Server, make_prompt: Make) -> None:
    server.replies = [reply("yes; no | maybe")]
    stop = ("1", "2", "3", "4", "|", ";")
    (found,) = opened(server).answer([make_prompt(stop=stop)])
    assert found.text == "yes"
    assert server.requests[0]["stop"] == ["1", "2", "3", "4"]


def test_answers_are_in_the_order_of_the_questions(server: Server, make_prompt: Make) -> None:
    def echo(request: dict[str, Any]) -> dict[str, Any]:
        return reply(request["messages"][0]["content"][-1]["text"])

    server.replies, server.seconds = [echo], 0.05
    prompts = [make_prompt(number, f"question {number}", num_images=0) for number in range(7)]
    model = opened(server, batch_size=3)
    server.requests.clear()
    assert model.batch_size == 3
    found = [model.answer([prompt])[0].text for prompt in prompts]
    assert server.most_at_once == 1
    assert found == [f"question {number}" for number in range(7)]


def test_as_many_requests_at_once_as_a_batch_has(server: Server, make_prompt: Make) -> None:
    server.replies, server.seconds = [reply("x")], 0.2
    opened(server, batch_size=3).answer([make_prompt(n, num_images=0) for n in range(6)])
    assert server.most_at_once == 3


@pytest.mark.parametrize(
    "failure",
    [
        (500, b"oh no", {}),
        (502, b"<html>", {}),
        (504, b"", {}),
        (200, b"<html>no JSON", {}),
        (200, b"\xff\xfe", {}),
        (200, b"", {}),
        {"choices": []},
        {"error": "busy"},
        [],
        None,
        reply(["a", "list"]),
        {"choices": [{"message": {}}]},
        {"choices": [None]},
    ],
    ids=str,
)
def test_what_may_pass_is_tried_again(
    server: Server, make_prompt: Make, waits: list[float], failure: Any
) -> None:
    server.replies = [failure, failure, reply("at last")]
    assert opened(server).answer([make_prompt()])[0].text == "at last"
    assert waits == [1.0, 2.0]
    server.replies, waits[:] = [failure], []
    server.requests.clear()
    with pytest.raises(InputError, match=r"no answer to the question 'q0' in 5 tries \(.*\): look"):
        opened(server).answer([make_prompt()])
    assert (len(server.requests), waits) == (5, [1.0, 2.0, 4.0, 8.0])


@pytest.mark.parametrize("status", [429, 503, 529])
def test_an_overloaded_server_is_waited_for(
    server: Server, make_prompt: Make, waits: list[float], status: int
) -> None:
    busy = (status, b"", {"Retry-After": "7"})
    server.replies = [busy, (status, b"", {"Retry-After": "Wed, 21 Oct 2026"}), reply("x")]
    assert opened(server).answer([make_prompt()])[0].text == "x"
    assert waits == [7.0, 2.0]
    server.replies = [(status, b"", {"Retry-After": "99999"})]
    waits.clear()
    with pytest.raises(AlignVLMError, match="lower --batch-size, then run the same") as told:
        opened(server).answer([make_prompt()])
    assert not isinstance(told.value, InputError), "it is no matter of this question"
    assert waits == [60.0] * 4


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_not_tried_again(server: Server, make_prompt: Make, status: int) -> None:
    server.replies = [(status, b"{}", {})]
    with pytest.raises(UsageError, match=rf"for 'some/model' \(status {status}\): check the"):
        opened(server).answer([make_prompt()])
    assert len(server.requests) == 1


def test_a_question_that_the_server_does_not_take(
    server: Server, make_prompt: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "sk-secret")
    server.replies = [(400, b'{"error":\n "too long\x1b[31m for sk-secret"}' + b"x" * 999, {})]
    with pytest.raises(InputError) as told:
        opened(server).answer([make_prompt(3)])
    said = str(told.value)
    assert "refuses the question 'q3' (status 400: {" in said and "too long[31m for ***" in said
    assert len(said) < 400 and said.isprintable()


def test_redirects_are_not_followed(
    server: Server, make_prompt: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "sk-secret")
    server.replies = [(307, b"", {"Location": f"{server.address}/elsewhere"})]
    with pytest.raises(InputError, match="status 307"):
        opened(server).answer([make_prompt()])
    assert server.paths == ["/v1/chat/completions"]


def test_a_slow_reply(server: Server, make_prompt: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    server.replies, server.seconds = [reply("slow")], 0.3
    assert opened(server).answer([make_prompt()])[0].text == "slow"
    monkeypatch.setattr(endpoint, "_TIMEOUT_S", 0.1)
    with pytest.raises(InputError, match=r"5 tries \(ReadTimeout\)"):
        opened(server).answer([make_prompt()])


def test_a_reply_without_end(
    server: Server, make_prompt: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "_MAX_REPLY_BYTES", 1_000)
    server.replies = [reply("x" * 2_000)]
    with pytest.raises(InputError, match="a reply without end"):
        opened(server).answer([make_prompt()])


def test_no_server(server: Server, make_prompt: Make, waits: list[float]) -> None:
    model = open_model("http://127.0.0.1:9/v1#model")
    with pytest.raises(AlignVLMError, match=r"ConnectError\): start the server or check") as told:
        model.answer([make_prompt()])
    assert not isinstance(told.value, InputError)
    assert len(waits) == 4


def test_offline_is_told(
    server: Server, make_prompt: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE is set"):
        opened(server).answer([make_prompt()])


def test_the_first_failure_ends_the_batch(server: Server, make_prompt: Make) -> None:
    server.replies = [(400, b"", {})]
    prompts = [make_prompt(number, num_images=0) for number in range(50)]
    with pytest.raises(InputError):
        opened(server, batch_size=2).answer(prompts)
    assert len(server.requests) < 50
    server.replies = [reply("fine")]
    model = opened(server)
    broken = replace(make_prompt(1), images=(FileImage("no-such-file.png"),))
    with pytest.raises(InputError, match="There is no file"):
        model.answer([broken])
    assert model.answer([make_prompt()])[0].text == "fine"


def test_the_key_goes_to_the_server_alone(
    server: Server,
    make_prompt: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody")
    server.replies = [reply("x")]
    opened(server).answer([make_prompt()])
    assert "authorization" not in server.headers[0], "nobody else's token is sent"
    monkeypatch.setenv(KEY, " sk-secret\n")
    model = opened(server)
    caplog.set_level(0)
    model.answer([make_prompt()])
    assert server.headers[1]["authorization"] == "Bearer sk-secret"
    assert "hf_of_somebody" not in json.dumps(server.headers)
    told = json.dumps([model.describe(), model.name, repr(model)]) + caplog.text
    assert "secret" not in told + "".join(capfd.readouterr())


def test_what_identifies_it(server: Server) -> None:
    assert opened(server).describe() == {
        "kind": "endpoint", "address": f"{server.address}/v1", "model": "some/model",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("#m", "/v1/chat/completions"),
        ("/#m", "/v1/chat/completions"),
        ("/v1/#m", "/v1/chat/completions"),
        ("/openai/v1#m", "/openai/v1/chat/completions"),
        ("/v1/chat/completions#m", "/v1/chat/completions"),
    ],
)
def test_forms_of_the_address(server: Server, make_prompt: Make, address: str, path: str) -> None:
    server.replies = [reply("x")]
    open_model(server.address + address).answer([make_prompt(num_images=0)])
    assert (server.paths, server.requests[0]["model"]) == ([path], "m")


@pytest.mark.parametrize(
    ("address", "options", "sentence"),
    [
        ("http://localhost:8000/v1", {}, "names no model of an endpoint: write it as http://host"),
        ("http://#m", {}, "names no model of an endpoint"),
        ("http://localhost:port/v1#m", {}, "is no address"),
        ("http://[::1/v1#m", {}, "is no address"),
        ("http://user:secret@localhost/v1#m", {}, "must not hold a password or a query"),
        ("https://localhost/v1?key=secret#m", {}, f"into the environment variable {KEY}"),
        ("http://localhost/v1#m", {"device": "cpu"}, "leave --device and --dtype out"),
        ("http://localhost/v1#m", {"dtype": "float32"}, "leave --device and --dtype out"),
        ("http://localhost/v1#m", {"batch_size": 0}, "A batch of 0 prompts"),
    ],
)
def test_misuse(address: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as told:
        open_model(address, **options)
    assert "secret" not in str(told.value)


def test_length_needs_no_server(make_prompt: Make) -> None:
    model = open_model("http://127.0.0.1:9/v1#model")
    large = replace(make_prompt(), images=(DrawnImage(Image.new("RGB", (900, 900)), "x"),))
    assert model.length(make_prompt()) < model.length(large)
