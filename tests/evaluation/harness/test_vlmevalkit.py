"""The driver around VLMEvalKit, with a stand-in for VLMEvalKit."""

from __future__ import annotations

import json
import ssl
from collections.abc import Sequence
from pathlib import Path

import pytest

from alignvlm.data.images import FileImage
from alignvlm.errors import InputError, MissingDependencyError, UsageError
from alignvlm.evaluation.benchmarks import find_benchmark, rule_of
from alignvlm.evaluation.harness import vlmevalkit
from alignvlm.evaluation.models.base import EvaluatedModel
from alignvlm.evaluation.question import Prompt, Reply


class Parrot(EvaluatedModel):
    """Says the page's name and the question without its mark."""

    def __init__(self, name: str = "parrot", **options: object) -> None:
        self.name, self.options = name, options
        self.prompts: list[Prompt] = []

    @property
    def batch_size(self) -> int:
        return 1

    def describe(self) -> dict[str, str]:
        return {"kind": self.name}

    def length(self, prompt: Prompt) -> int:
        return 1

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        self.prompts += prompts
        if self.name == "blind":
            raise InputError("There is no page: give one")
        return [Reply(text=f"{one.images[0].name}:{one.parts[-1]['text'][:-1]}") for one in prompts]


def test_a_message_becomes_a_prompt_word_for_word() -> None:
    message = [
        {"type": "text", "value": "Compare"},
        {"type": "image", "value": "x/12.png"},
        {"type": "text", "value": " with "},
        {"type": "image", "value": "x/13.png"},
    ]
    prompt = vlmevalkit.to_prompt(message, "Some", 7)
    assert prompt.text == "Compare<image>\n with <image>\n"
    assert prompt.images == (FileImage("x/12.png"), FileImage("x/13.png"))
    assert (prompt.question_id, prompt.max_new_tokens, prompt.stop) == ("Some/12", 7, ())
    assert vlmevalkit.to_prompt(message[:1], "Some", 7).question_id == "Some"


@pytest.mark.usefixtures("fake_vlmeval")
def test_both_steps_are_vlmevalkits(tmp_path: Path) -> None:
    checking = ssl._create_default_https_context
    model = Parrot()
    found = vlmevalkit.evaluate(model, "Any", tmp_path / "out", name="p", limit=2, judge="j")
    assert found == {"answers": ["a.png:one", "b.png:two"], "model": "j"}
    assert (tmp_path / "out" / "p_Any.txt").is_file()
    assert ssl._create_default_https_context is checking


@pytest.mark.usefixtures("fake_vlmeval")
@pytest.mark.parametrize(
    ("data", "given", "expected"),
    [("Any", None, 128), ("Any", 5, 5), ("MMVet", None, None), ("DocVQA_VAL", None, None)],
)
def test_answers_are_as_long_as_in_our_own_evaluation(
    tmp_path: Path, data: str, given: int | None, expected: int | None
) -> None:
    if expected is None:
        benchmark = find_benchmark({"MMVet": "mmvet", "DocVQA_VAL": "docvqa"}[data])
        expected = rule_of(benchmark, "vlmevalkit-2026.08")[1].max_new_tokens
    model = Parrot()
    vlmevalkit.evaluate(model, data, tmp_path / "out", name="p", max_new_tokens=given)
    assert {prompt.max_new_tokens for prompt in model.prompts} == {expected}


def test_the_limits_of_known_data_sets_differ() -> None:
    rules = [rule_of(find_benchmark(name), "vlmevalkit-2026.08")[1] for name in ("mmvet", "docvqa")]
    assert rules[0].max_new_tokens != rules[1].max_new_tokens


@pytest.mark.usefixtures("fake_vlmeval")
@pytest.mark.parametrize(
    ("data", "match"),
    [("Nothing", "no data set 'Nothing'"), ("AVideo", "videos"), ("Turns", "several turns")],
)
def test_data_sets_that_are_not_for_it(tmp_path: Path, data: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        vlmevalkit.evaluate(Parrot(), data, tmp_path, name="p")
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.usefixtures("fake_vlmeval")
def test_answers_of_another_model_are_not_taken_for_its_own(tmp_path: Path) -> None:
    vlmevalkit.evaluate(Parrot("one"), "Any", tmp_path / "out", name="p")
    vlmevalkit.evaluate(Parrot("one"), "Any", tmp_path / "out", name="p")
    vlmevalkit.evaluate(Parrot("two"), "Other", tmp_path / "out", name="p")
    for model, most in ((Parrot("two"), None), (Parrot("one"), 5)):
        with pytest.raises(UsageError, match="another model or length: choose another --work-dir"):
            vlmevalkit.evaluate(model, "Any", tmp_path / "out", name="p", max_new_tokens=most)
        assert not model.prompts


@pytest.mark.usefixtures("fake_vlmeval")
@pytest.mark.parametrize(
    ("name", "value", "match"),
    [("PRED_FORMAT", "json", "cannot score"), ("WORLD_SIZE", "2", "one process")],
)
def test_surroundings_that_cannot_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, match: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=match):
        vlmevalkit.evaluate(Parrot(), "Any", tmp_path, name="p")


@pytest.mark.usefixtures("fake_vlmeval")
@pytest.mark.parametrize("missing", ["vlmeval", "xlsxwriter"])
def test_missing_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setenv("PRED_FORMAT", "")
    monkeypatch.setattr(vlmevalkit, "find_spec", lambda name: None if name == missing else name)
    with pytest.raises(MissingDependencyError, match=f"package {missing} is needed"):
        vlmevalkit.evaluate(Parrot(), "Any", tmp_path, name="p")


@pytest.mark.usefixtures("fake_vlmeval")
@pytest.mark.parametrize(
    ("model", "options", "name"),
    [("runs/parrot/", [], "parrot"), ("http://localhost:1/v1#some/bird", [], "bird"),
     ("parrot", ["--name", "polly"], "polly")],
)  # fmt: skip
def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    model: str, options: list[str], name: str,
) -> None:  # fmt: skip
    opened: list[Parrot] = []

    def open_model(called: str, **given: object) -> Parrot:
        opened.append(Parrot(called, **given))
        return opened[0]

    monkeypatch.setattr(vlmevalkit, "open_model", open_model)
    arguments = [model, "--data", "Any", "Other", "--work-dir", str(tmp_path), "--limit", "1",
                 "--device", "cpu", *options]  # fmt: skip
    assert vlmevalkit.main(arguments) == 0
    assert opened[0].options == {"device": "cpu", "dtype": None}
    assert len(opened[0].prompts) == 2
    assert {path.name for path in (tmp_path / name).glob("*.txt")} == {
        f"{name}_Any.txt", f"{name}_Other.txt"
    }  # fmt: skip
    record = json.loads((tmp_path / name / "Any-alignvlm.json").read_text())
    assert record == {"kind": model, "max_new_tokens": "128"}
    assert capsys.readouterr().out.count("a.png:one") == 2


@pytest.mark.usefixtures("fake_vlmeval")
def test_the_command_ends_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(vlmevalkit, "open_model", lambda name, **_: Parrot(name))
    work_dir = ["--work-dir", str(tmp_path)]
    assert vlmevalkit.main(["blind", "--data", "Any", *work_dir]) == 1
    assert capsys.readouterr().err == "There is no page: give one\n"
    assert vlmevalkit.main(["parrot", "--data", "Nothing", *work_dir]) == 2
    with pytest.raises(SystemExit) as stop:
        vlmevalkit.main(["parrot"])
    assert stop.value.code == 2
