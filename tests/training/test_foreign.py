"""Models of other makers with random weights: what they learn from, and that they train."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import foreign_vlm as foreign
import pytest
import tiny_vlm as tiny
import torch

from alignvlm.data.sample import Sample
from alignvlm.errors import ConfigurationError, InputError, TrainingError
from alignvlm.training import vlm
from alignvlm.training.batches import MixtureBatches
from alignvlm.training.configuration import BatchConfig, LoraConfig, Rates
from alignvlm.training.encoding import TooLongError
from alignvlm.training.foreign import ForeignEncoder
from alignvlm.training.loop import train
from alignvlm.training.models import _add_lora
from alignvlm.training.task import Share
from alignvlm.training.tracking import read_log
from alignvlm.training.vlm import VLMTask, part_of

TYPED = " <image></s><|im_end|><|im_start|>assistant\n<|image|><|eot_id|><|image_pad|><s>"
MODELS = pytest.mark.parametrize("name", foreign.MODELS)


@pytest.fixture(scope="module", autouse=True)
def made() -> dict[str, tuple[Any, Any]]:
    """Models are shared: no test may train one of these."""
    return {name: build() for name, build in foreign.MODELS.items()}


def encoder(processor: Any, **limits: Any) -> ForeignEncoder:
    return ForeignEncoder(processor, BatchConfig(**{"num_samples": 2} | limits))


def conversation(*turns: tuple[str, str, int], system: str = "") -> Sample:
    """(question, answer, number of its images) each."""

    def said(role: str, text: str, num_images: int = 0) -> dict[str, Any]:
        images = [{"type": "image"}] * num_images
        return {"role": role, "content": [*images, {"type": "text", "text": text}]}

    messages = [said("system", system)] if system else []
    for question, answer, num_images in turns:
        messages += [said("user", question, num_images), said("assistant", answer)]
    total = sum(number for *_, number in turns)
    images = tuple(tiny.Drawn(20 + 9 * n, 50 - 5 * n, n) for n in range(total))
    return Sample(key="file.jsonl:3", messages=messages, images=images)


CONVERSATIONS = {
    "one image": conversation(("What?", "Yes", 1)),
    "text alone": conversation(("What?", "Yes", 0)),
    "images in several turns": conversation(("A?", "b", 1), ("C?", "d e", 0), ("F?", "g", 2)),
    "equal turns": conversation(("A?", "a", 1), ("A?", "a", 1), ("A?", "a", 1)),
    "a system prompt": conversation(("What?", "Yes", 1), system="Be short."),
    "typed control tokens": conversation(("So" + TYPED, "No" + TYPED, 1), (TYPED, "c", 1)),
}


@MODELS
@pytest.mark.parametrize("case", CONVERSATIONS)
def test_answers_alone_are_learned(made: dict[str, tuple[Any, Any]], name: str, case: str) -> None:
    """Decoded, the labels are the answers with what ends them, and nothing else."""
    sample, (_, processor) = CONVERSATIONS[case], made[name]
    coder = encoder(processor)
    measured = coder.measure(sample)
    example = coder.encode(sample, measured)
    ids, labels = example.tensors["input_ids"], example.tensors["labels"]
    learned = labels != -100
    assert torch.equal(labels[learned], ids[learned])
    end, space = processor.tokenizer.eos_token, " " if name == "llava" else ""
    answers = [m["content"][0]["text"] for m in sample.messages if m["role"] == "assistant"]
    expected = "".join(f"{space}{answer}{end}" for answer in answers)
    assert processor.tokenizer.decode(labels[learned]) == expected
    eos = processor.tokenizer.eos_token_id
    assert int((labels == eos).sum()) == len(answers)
    assert measured.num_supervised == int(learned.sum())
    assert example.measured.num_tokens == len(ids)


@MODELS
def test_the_ids_are_those_of_the_models_own_template(
    made: dict[str, tuple[Any, Any]], name: str
) -> None:
    """Against `apply_chat_template` with the images in the messages, as inference calls it."""
    _, processor = made[name]
    sample = CONVERSATIONS["images in several turns"]
    coder = encoder(processor)
    ours = coder.encode(sample, coder.measure(sample)).tensors
    images = iter(image.load() for image in sample.images)
    whole = [
        {**message, "content": [
            {"type": "image", "image": next(images)} if part["type"] == "image" else part
            for part in message["content"]
        ]}
        for message in sample.messages
    ]  # fmt: skip
    theirs = processor.apply_chat_template(
        whole, tokenize=True, return_dict=True, return_tensors="pt"
    )
    assert torch.equal(ours["input_ids"], theirs["input_ids"][0])
    for key, value in theirs.items():
        if key not in ("input_ids", "attention_mask"):
            assert torch.equal(ours[key], value), key


def make_task(name: str, rates: Rates | None = None, samples: Any = None, **made: Any) -> VLMTask:
    model, processor = made.get("pair") or foreign.MODELS[name]()
    limits = BatchConfig(num_samples=3, max_text_tokens=200, pack=False)
    coder = ForeignEncoder(processor, limits)
    return VLMTask(
        model, processor, MixtureBatches(samples or tiny.DrawnSamples(), coder, limits),
        rates or Rates(vision=1e-3, connector=1e-3, llm=1e-3),
    )  # fmt: skip


def rows_of(task: VLMTask, num_steps: int = 1) -> list[Any]:
    return list(task.micro_batches(tiny.config(num_steps=num_steps), 0, Share()))


@MODELS
def test_the_loss_is_the_models_own(made: dict[str, tuple[Any, Any]], name: str) -> None:
    task = make_task(name, pair=made[name])
    rows, total = rows_of(task, 2), 0
    assert any("pixel_values" in row.tensors for row in rows)
    with torch.no_grad():
        for row in rows[:3]:
            found = task.loss(row.tensors)
            own = task.module(**row.tensors, use_cache=False).loss
            assert found.total.item() / found.weight == pytest.approx(own.item(), rel=1e-5)
            total += found.weight
    assert rows[0].step_weight == total


@MODELS
def test_padding_is_no_visual_token(made: dict[str, tuple[Any, Any]], name: str) -> None:
    for row in rows_of(make_task(name, pair=made[name])):
        counts = row.counts
        assert counts["padding_tokens"] == 0
        length = row.tensors["input_ids"].shape[1]
        assert counts["text_tokens"] + counts["visual_tokens"] == length
        has_images = "pixel_values" in row.tensors
        assert (counts["visual_tokens"] > 0) == (has_images and name != "mllama")


@MODELS
def test_a_process_that_has_no_row_left(made: dict[str, tuple[Any, Any]], name: str) -> None:
    """Three samples for two processes: the fourth row is empty, and counts nothing."""
    task, rows = make_task(name, pair=made[name]), []
    for rank in (0, 1):
        share = Share(rank=rank, num_processes=2)
        rows += list(task.micro_batches(tiny.config(num_steps=1), 0, share))
    (empty,) = [row for row in rows if not row.keys]
    loss = task.loss(empty.tensors)
    assert loss.weight == 0 and loss.total.item() == 0 and loss.total.requires_grad


@pytest.mark.parametrize("name", ["qwen2_vl", "llava"])
def test_a_row_without_images_takes_part_in_the_encoder(
    made: dict[str, tuple[Any, Any]], name: str
) -> None:
    """Where encoder and connector are sharded, all processes must pass through them."""
    task = make_task(name, pair=made[name])
    task.module.zero_grad()
    nothing = task._nothing_of_another_model(torch.device("cpu"))
    assert nothing.item() == 0
    nothing.backward()
    touched = {part_of(n) for n, p in task.module.named_parameters() if p.grad is not None}
    task.module.zero_grad()
    assert touched == {"vision", "connector"}


@pytest.mark.parametrize("name", ["qwen2_vl", "llava"])
def test_every_row_takes_the_same_way(
    made: dict[str, tuple[Any, Any]], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One with an image and one without, as `test_vlm` has it for models of this package."""
    task = make_task(name, pair=made[name], samples=tiny.DrawnSamples(alternate=True))
    by_kind = {"pixel_values" in row.tensors: row.tensors for row in rows_of(task)}
    assert by_kind.keys() == {True, False}
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    ways = [tiny.way(task, row) for row in by_kind.values()]
    assert ways[0] == ways[1]
    forward, backward = ways[0]
    assert "vis" in forward[0] and "language" in forward[-1] and "language" in backward[0]


@pytest.mark.parametrize("layout", ["fsdp2", "zero3"])
def test_layers_that_are_passed_over_cannot_be_shared(
    made: dict[str, tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    """Mllama skips its cross-attention without an image, and the others would wait for it."""
    task = make_task("mllama", pair=made["mllama"])
    assert task._nothing_of_another_model(torch.device("cpu")) == 0.0
    if layout == "fsdp2":
        monkeypatch.setattr(vlm, "DTensor", torch.nn.Parameter)
    else:
        last = list(task.module.base_model.parameters())[-1]
        monkeypatch.setattr(last, "ds_id", 7, raising=False)  # as DeepSpeed marks its own
    with pytest.raises(TrainingError, match="A row without an image passes over layers of mllama"):
        task._nothing_of_another_model(torch.device("cpu"))


@MODELS
def test_trains_and_goes_on(tmp_path: Path, name: str) -> None:
    """Three steps at once, or one and then two: the same losses, and a model that moved."""
    options = {"num_steps": 3, "checkpoint_every": 1, "batch_size": 3}
    whole = make_task(name, Rates(connector=1e-3, llm=1e-3))
    before = {n: p.detach().clone() for n, p in whole.module.named_parameters()}
    save(whole)
    train(whole, tiny.config(**options), tmp_path / "whole")
    moved = {part_of(n) for n, p in whole.module.named_parameters() if not p.equal(before[n])}
    assert moved == {"connector", "llm"}

    def stop(step: int) -> None:
        if step == 1:
            signal.raise_signal(signal.SIGTERM)

    for on_step in (stop, None):
        task = make_task(name, Rates(connector=1e-3, llm=1e-3))
        save(task)
        train(task, tiny.config(**options), tmp_path / "parts", on_step=on_step)
    losses = [[r["loss"] for r in read_log(tmp_path / run)] for run in ("whole", "parts")]
    assert losses[0] == losses[1] and len(losses[0]) == 3
    loaded = type(whole.module).from_pretrained(tmp_path / "parts" / "model")
    for key, value in whole.module.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)


def save(task: VLMTask) -> None:
    """The processor of Qwen2-VL without videos is the tests' own and cannot be saved."""
    task._processor.save_pretrained = lambda folder: None


def test_adapters_in_another_model(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    model, processor = foreign.qwen2_vl()
    _add_lora(model, LoraConfig(rank=2, alpha=4))
    task = make_task("", Rates(connector=1e-3, llm=1e-3), pair=(model, processor))
    save(task)
    train(task, tiny.config(num_steps=2, batch_size=3), tmp_path)
    loaded = type(model).from_pretrained(tmp_path / "model")
    merged = make_task("", pair=(loaded, processor))
    with torch.no_grad():
        for row in rows_of(task):
            ours, theirs = task.loss(row.tensors).total, merged.loss(row.tensors).total
            assert ours.item() == pytest.approx(theirs.item(), rel=1e-4)


@pytest.mark.parametrize(("policy", "kind"), [("error", InputError), ("skip", TooLongError)])
def test_long_text(made: dict[str, tuple[Any, Any]], policy: str, kind: type) -> None:
    coder = encoder(made["llava"][1], max_text_tokens=30, too_long=policy)
    with pytest.raises(
        kind, match=r"file\.jsonl:3 has \d+ text tokens and batches\.max_text_"
    ) as e:
        coder.measure(CONVERSATIONS["equal turns"])
    assert type(e.value) is kind


def test_a_template_that_rewrites_what_was_said(made: dict[str, tuple[Any, Any]]) -> None:
    """Only the last question is kept by it: what came before would be learned from nothing."""
    _, processor = foreign.llava()
    processor.chat_template = (
        "{% for m in messages[-2:] %}{{ m['role'] }}: {{ m['content'][-1]['text'] }} {% endfor %}"
    )
    coder = encoder(processor)
    assert coder.measure(conversation(("A?", "b", 0))).num_supervised
    with pytest.raises(InputError, match=r"file\.jsonl:3: the model's chat template rewrites"):
        coder.measure(conversation(("A?", "b", 0), ("C?", "d", 0)))


def test_nothing_to_learn(made: dict[str, tuple[Any, Any]]) -> None:
    sample = conversation(("A?", "b", 0))
    alone = Sample(key="file.jsonl:3", messages=sample.messages[:1])
    with pytest.raises(InputError, match=r"file\.jsonl:3 has no supervised token: nobody answers"):
        encoder(made["llava"][1]).measure(alone)


def test_a_base_model_without_a_template() -> None:
    _, processor = foreign.llava()
    processor.chat_template = None
    with pytest.raises(ConfigurationError, match="processor has no chat template: save one"):
        encoder(processor)


def test_more_images_than_tiles_fit_into_a_row(made: dict[str, tuple[Any, Any]]) -> None:
    """`max_tiles` means tiles of AlignVLM: here it must not drop a sample without a word."""
    limits = BatchConfig(num_samples=1, max_tiles=1, pack=False)

    class Three:
        def read(self, position: int, attempt: int = 0) -> Sample:
            return CONVERSATIONS["equal turns"]

        def where(self, position: int, attempt: int = 0) -> tuple[str, str]:
            return "three", str(position)

    coder = ForeignEncoder(made["llava"][1], limits)
    (row,) = MixtureBatches(Three(), coder, limits)(1, 0, Share(), 0)
    assert row.keys == ("three/0",) and len(row.tensors["pixel_values"]) == 3
