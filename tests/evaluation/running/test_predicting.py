from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stub_run import StubModel, StubSet, make_benchmark, write_data

from alignvlm.errors import (
    AlignVLMError,
    InputError,
    LimitError,
    MissingDependencyError,
    UsageError,
    WeightsError,
)
from alignvlm.evaluation.question import Prediction, Prompt, Question, Reply
from alignvlm.evaluation.running.predicting import Asker


def put(question: Question) -> Prompt:
    return Prompt(
        question_id=question.id,
        parts=({"type": "text", "text": question.text},),
        images=(),
        max_new_tokens=8,
    )


def make_asker(folder: Path, model: StubModel, **facts: Any) -> Asker:
    benchmark = make_benchmark()
    return Asker(
        model=model,
        questions=StubSet(benchmark, write_data(folder, **facts)).__getitem__,
        put=put,
        measures=benchmark.measures,
        dialect="vlmevalkit-2025.05",
        judge=None,
        batch_size=model.batch_size,
    )


def ask(folder: Path, model: StubModel, **facts: Any) -> dict[int, Prediction]:
    asker = make_asker(folder, model, **{"num": 10, **facts})
    return dict(asker.predict(range(facts.get("num", 10))))


def test_a_prediction_holds_everything(tmp_path: Path) -> None:
    found = ask(tmp_path, StubModel())
    assert sorted(found) == list(range(10))
    four, three = found[4], found[3]
    assert (four.id, four.raw, four.answers, four.error) == ("q4", "16", ["16"], None)
    assert four.question == four.prompt == "word " * 5 + "number 4"
    assert four.prompt_sha256 == put(StubSet(make_benchmark(), tmp_path / "squares.json")[4]).sha256
    assert four.scores["exact_match@vlmevalkit-2025.05"]["value"] == 1.0
    assert list(four.scores) == ["exact_match@vlmevalkit-2025.05", "anls@vlmevalkit-2025.05"]
    assert three.raw == "10" and three.scores["exact_match@vlmevalkit-2025.05"]["value"] == 0.0
    assert (four.tokens, four.complete, found[5].complete) == (1, True, False)
    assert 0 <= four.seconds < 1


@given(batch=st.integers(1, 7), num=st.integers(1, 150))
def test_batches_are_of_like_length_and_windows_bounded(
    tmp_path_factory: pytest.TempPathFactory, batch: int, num: int
) -> None:
    """Longest first within a window; every question once; memory for a window only."""
    model = StubModel(batch)
    asker = make_asker(tmp_path_factory.mktemp("data"), model, num=num)
    found = dict(asker.predict(range(num)))
    assert sorted(found) == list(range(num))
    assert all(len(names) <= batch for names in model.batches)
    assert len(model.batches) == sum(
        -(-min(16 * batch, num - start) // batch) for start in range(0, num, 16 * batch)
    )
    order = [int(name[1:]) for name in model.asked]
    for start in range(0, num, 16 * batch):
        window = order[start : start + 16 * batch]
        assert sorted(window) == list(range(start, min(num, start + 16 * batch)))
        lengths = [len(found[index].prompt) for index in window]
        assert lengths == sorted(lengths, reverse=True) or batch == 1
    if batch == 1:
        assert order == sorted(order)


def test_a_failing_sample_fails_alone(tmp_path: Path) -> None:
    model = StubModel(4, fail=["q6"])
    found = ask(tmp_path, model)
    assert [index for index, one in found.items() if one.error] == [6]
    assert found[6].error == "The question q6 is too long: shorten it"
    assert (found[6].raw, found[6].scores, found[6].tokens) == (None, {}, None)
    assert found[6].answers == ["36"] and found[6].prompt
    first = next(batch for batch in model.batches if "q6" in batch)
    place = model.batches.index(first)
    assert model.batches[place + 1 : place + 1 + len(first)] == [[name] for name in first]
    whole = ask(tmp_path, StubModel(4))
    for index in set(found) - {6}:
        assert found[index].raw == whole[index].raw


@pytest.mark.parametrize("error", [InputError, LimitError, RuntimeError, ValueError])
def test_what_fails_a_sample(tmp_path: Path, error: type[Exception]) -> None:
    found = ask(tmp_path, StubModel(3, fail=["q1"], error=error))
    said = found[1].error or ""
    assert "\n" not in said and said.endswith("is too long: shorten it")
    assert said.startswith("The question" if issubclass(error, InputError) else error.__name__)


@pytest.mark.parametrize("error", [AlignVLMError, UsageError, WeightsError])
def test_what_ends_the_run(tmp_path: Path, error: type[Exception]) -> None:
    with pytest.raises(error, match="too\nlong"):
        ask(tmp_path, StubModel(3, fail=["q1"], error=error))


def test_a_broken_row(tmp_path: Path) -> None:
    found = ask(tmp_path, StubModel(), broken=[2])
    broken = found[2]
    assert broken.error == f"Row 3 of {tmp_path / 'squares.json'} is broken: repair it"
    assert (broken.id, broken.answers, broken.prompt, broken.prompt_sha256) == (
        "row 3", None, "", "",
    )  # fmt: skip
    assert broken.measures == ("exact_match", "anls")


def test_too_few_replies(tmp_path: Path) -> None:
    class Short(StubModel):
        def answer(self, prompts: Any) -> list[Reply]:
            return super().answer(prompts)[:1]

    model = Short(4)
    found = ask(tmp_path, model)
    assert not any(one.error for one in found.values())  # asked alone, each gets its own
    assert max(map(len, model.batches)) == 4 and list(map(len, model.batches))[1:5] == [1] * 4


def test_ctrl_c_is_no_failure(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        ask(tmp_path, StubModel(fail=["q1"], error=KeyboardInterrupt))


def test_a_judge_without_a_reply_fails_the_sample(tmp_path: Path) -> None:
    def judge(prompt: str, temperature: float) -> str:
        if "25 | " in prompt:
            raise InputError("No reply was recorded: record it")
        return "0.5"

    benchmark = make_benchmark(measures=("mmvet",))
    model = StubModel()
    asker = Asker(
        model=model,
        questions=StubSet(benchmark, write_data(tmp_path)).__getitem__,
        put=put, measures=("mmvet",), dialect="vlmevalkit-2025.05", judge=judge, batch_size=4,
    )  # fmt: skip
    found = dict(asker.predict(range(10)))
    assert (found[5].raw, found[5].error) == ("25", "No reply was recorded: record it")
    assert found[4].scores["mmvet@vlmevalkit-2025.05"]["value"] == 0.5
    assert found[4].scores["mmvet@vlmevalkit-2025.05"]["parts"]["replies"] == ["0.5"]


@pytest.mark.parametrize(
    ("error", "said"),
    [(UsageError("The two\ndiffer: mend them"), "The two differ: mend them"),
     (KeyError("value"), "KeyError: 'value'")],
)  # fmt: skip
def test_a_row_that_cannot_be_scored_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    from alignvlm.evaluation.running import predicting

    real = predicting.score_answer

    def score(prediction: Prediction, *rest: Any) -> Any:
        if prediction.id == "q2":
            raise error
        return real(prediction, *rest)

    monkeypatch.setattr(predicting, "score_answer", score)
    found = ask(tmp_path, StubModel())
    assert {index: one.error for index, one in found.items() if one.error} == {2: said}
    assert (found[2].raw, found[2].scores) == ("4", {}) and found[1].scores


def test_a_scorer_that_is_not_installed_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise MissingDependencyError("rapidfuzz", "compute ANLS", extra="eval")

    monkeypatch.setattr("alignvlm.evaluation.running.predicting.score_answer", missing)
    with pytest.raises(MissingDependencyError):
        ask(tmp_path, StubModel())
