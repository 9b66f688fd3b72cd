from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from stub_run import StubModel, files, make_benchmark, write_data

from alignvlm.errors import InputError, UsageError
from alignvlm.evaluation.running import Progress, Settings, evaluate_model, rescore
from alignvlm.evaluation.running.folder import read_predictions
from alignvlm.evaluation.running.scoring import scorers_version

PAPER = "vlmevalkit-2025.05"


def run(
    folder: Path,
    model: StubModel | None = None,
    *,
    told: Any = None,
    name: str = "run",
    **facts: Any,
) -> dict[str, Any]:
    settings = facts.pop("settings", {})
    benchmark = facts.pop("benchmark", make_benchmark())
    data = write_data(folder / "data", **facts)
    chosen = Settings(data={benchmark.name: data}, **settings)
    return evaluate_model(model or StubModel(), [benchmark], folder / name, chosen, told=told)


def test_a_run_leaves_what_it_should(tmp_path: Path) -> None:
    seen: list[Progress] = []
    found = run(tmp_path, told=seen.append)
    # Right unless divisible by three: 0, 3, 6 and 9 of ten are.
    assert found["squares"]["headline"] == {"metric": f"exact_match@{PAPER}", "value": 0.6}
    folder = tmp_path / "run" / "squares"
    assert sorted(path.name for path in folder.iterdir()) == [
        "benchmark.json", "predictions.jsonl", "scores.json",
    ]  # fmt: skip
    assert json.loads((folder / "scores.json").read_text()) == found["squares"]
    assert found["squares"]["scorers"] == scorers_version()
    assert [one.id for one in read_predictions(folder / "predictions.jsonl")] == [
        f"q{index}" for index in range(10)
    ]
    record = json.loads((folder / "benchmark.json").read_text())
    assert record["num_questions"] == 10 and record["headline"] == "mean"
    assert record["prompt"]["template"] == "{question}" and record["home"] == "stub"
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["model"] == "stub" and facts["description"]["kind"] == "stub"
    assert facts["score_dialect"] == facts["prompt_dialect"] == PAPER
    assert facts["started"] <= facts["ended"]
    assert {"alignvlm", "torch", "transformers"} <= facts["versions"].keys()
    assert [one.num_done for one in seen] == list(range(11))
    assert seen[-1].score == 0.6 and seen[-1].num_questions == 10


def test_a_run_that_is_done_asks_nothing(tmp_path: Path) -> None:
    first, model = run(tmp_path), StubModel()
    before = files(tmp_path / "run")
    assert run(tmp_path, model) == first
    assert model.batches == []
    assert files(tmp_path / "run") == before


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_files_do_not_depend_on_the_batch(tmp_path: Path, batch: int) -> None:
    run(tmp_path, StubModel(4), num=37, name="one")
    run(tmp_path, StubModel(batch), num=37, name="other")
    ours, theirs = files(tmp_path / "one"), files(tmp_path / "other")
    for found in (ours, theirs):
        del found["run.json"]["batch_size"]
    assert ours == theirs


@pytest.mark.parametrize("stop_at", [0, 1, 7, 36])
def test_ctrl_c_and_again(tmp_path: Path, stop_at: int) -> None:
    def stop(progress: Progress) -> None:
        if progress.num_done == stop_at:
            raise KeyboardInterrupt

    run(tmp_path, num=37, name="whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, num=37, told=stop)
    model, seen = StubModel(), []
    run(tmp_path, model, num=37, told=seen.append)
    assert len(model.asked) == 37 - stop_at
    assert seen[0].num_done == stop_at  # the bar begins where it was
    assert files(tmp_path / "run") == files(tmp_path / "whole")


def test_limit_groups_and_prompts(tmp_path: Path) -> None:
    settings = {"limit": 4, "prompt_dialect": "lmms-eval", "dialect": "lmms-eval"}
    benchmark = make_benchmark(headline="mean_of_groups")
    found = run(tmp_path, settings=settings, benchmark=benchmark, groups=True)["squares"]
    assert found["num_questions"] == 4
    # q0 and q3 are wrong: "a" holds q0, q2 and "b" q1, q3.
    assert found["headline"] == {"metric": "exact_match@lmms-eval", "value": 0.5}
    parts = found["metrics"]["exact_match@lmms-eval"]["parts"]
    assert parts["groups"] == {"a": 0.5, "b": 0.5}
    predictions = read_predictions(tmp_path / "run" / "squares" / "predictions.jsonl")
    assert all(one.prompt.endswith("\nBriefly.") for one in predictions)


def test_a_dialect_without_prompts_takes_the_first(tmp_path: Path) -> None:
    run(tmp_path, settings={"dialect": "vlmevalkit-2026.08"})
    record = json.loads((tmp_path / "run" / "squares" / "benchmark.json").read_text())
    assert record["prompt_dialect"] == PAPER
    with pytest.raises(UsageError, match="no dialect 'nobody'"):
        run(tmp_path, settings={"prompt_dialect": "nobody"}, name="other")
    with pytest.raises(UsageError, match="no dialect 'anybody'"):
        run(tmp_path, settings={"dialect": "anybody"}, name="other")
    assert not (tmp_path / "other" / "run.json").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"limit": 3}, "limit none and not 3"), ({"dialect": "lmms-eval"}, "score_dialect"),
     ({"prompt_dialect": "lmms-eval"}, "prompt_dialect")],
)  # fmt: skip
def test_other_settings_are_refused(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    run(tmp_path)
    before, model = files(tmp_path / "run"), StubModel()
    with pytest.raises(UsageError, match=said):
        run(tmp_path, model, settings=settings)
    assert model.batches == [] and files(tmp_path / "run") == before


def test_another_model_is_refused_and_another_device_is_not(tmp_path: Path) -> None:
    class Other(StubModel):
        def describe(self) -> dict[str, str]:
            return {**super().describe(), "sha256": "f00"}

    run(tmp_path)
    with pytest.raises(UsageError, match="model's sha256 none and not 'f00'"):
        run(tmp_path, Other())
    elsewhere = StubModel()
    elsewhere.device = "cuda:3"
    run(tmp_path, elsewhere)
    assert elsewhere.batches == []


@pytest.mark.parametrize("facts", [{"text": "figure"}, {"num": 11}])
def test_other_questions_are_refused(tmp_path: Path, facts: dict[str, Any]) -> None:
    run(tmp_path)
    with pytest.raises((InputError, UsageError), match="--run"):
        run(tmp_path, **facts)


def test_other_data_of_the_same_questions_is_refused(tmp_path: Path) -> None:
    """One gold answer of 200, which no comparison of some questions would notice."""
    facts = {"num": 200, "digest": "before"}
    run(tmp_path, **facts)
    before, model = files(tmp_path / "run"), StubModel()
    with pytest.raises(UsageError, match=r"The data of squares has changed since .*with --run"):
        run(tmp_path, model, **{**facts, "digest": "now"}, answers={"101": ["5"]})
    assert model.batches == [] and files(tmp_path / "run") == before
    record = json.loads((tmp_path / "run" / "squares" / "benchmark.json").read_text())
    assert record["digest"] == "before"


def test_a_judge_is_asked_for_before_the_model_is(tmp_path: Path) -> None:
    model = StubModel()
    with pytest.raises(UsageError, match="MM-Vet is graded by a language model: give --judge"):
        run(tmp_path, model, benchmark=make_benchmark(measures=("anls", "mmvet")))
    assert model.batches == [] and not (tmp_path / "run" / "run.json").exists()


def test_a_grade_that_is_no_number_is_null(tmp_path: Path) -> None:
    """VLMEvalKit takes "nan" for a grade. Gone on with or scored again it is the same."""
    facts = {"benchmark": make_benchmark(measures=("mmvet",)),
             "settings": {"judge": lambda prompt, temperature: "nan"}}  # fmt: skip
    value = run(tmp_path, **facts)["squares"]["headline"]["value"]
    assert value != value
    before = files(tmp_path / "run")
    kept = json.loads(before["squares/scores.json"], parse_constant=pytest.fail)
    assert kept["headline"]["value"] is None
    scores = before["squares/predictions.jsonl"][0]["scores"]
    assert scores[f"mmvet@{PAPER}"]["value"] is None
    model = StubModel()
    run(tmp_path, model, **facts)
    assert model.batches == [] and files(tmp_path / "run") == before
    rescore(tmp_path / "run", PAPER)
    folder = tmp_path / "run" / "squares"
    assert json.loads((folder / f"scores-{PAPER}.json").read_text()) == kept


@pytest.mark.parametrize(
    ("row", "said"),
    [({"answers": {"4": [{"foo": 1}]}}, "KeyError: 'value'"),
     ({"answers": {"4": [{"value": 16, "value_variants": None}]}}, "TypeError"),
     ({"options": {"4": {"document": ["d"]}}}, "TypeError: unhashable")],
)  # fmt: skip
def test_a_row_that_cannot_be_scored_is_a_failure_like_others(
    tmp_path: Path, row: dict[str, Any], said: str
) -> None:
    """The run ends, can be repeated and scored again; repaired, that row alone is asked again."""
    own = {str(n): {"document": f"d{n}"} for n in range(10)}
    facts = {**row, "options": own | row.get("options", {})}
    facts |= {"benchmark": make_benchmark(measures=("due_f1",)), "settings": {"max_failed": 0.1}}
    found = run(tmp_path, **facts)["squares"]
    assert (found["num_failed"], found["num_questions"]) == (1, 10)
    # Right are five of nine that were said and of ten that there are.
    assert found["headline"]["value"] == pytest.approx(2 * 5 / (9 + 10))
    predictions = read_predictions(tmp_path / "run" / "squares" / "predictions.jsonl")
    assert [one.id for one in predictions if one.error] == ["q4"]
    assert predictions[4].error.startswith(said) and predictions[4].raw == "16"
    again = StubModel()
    assert run(tmp_path, again, **facts)["squares"] == found and again.asked == ["q4"]
    assert rescore(tmp_path / "run", PAPER)["squares"] == found
    mended = run(tmp_path, **{**facts, "answers": {}, "options": own})["squares"]
    assert (mended["num_failed"], mended["headline"]["value"]) == (0, pytest.approx(0.6))


def test_a_file_that_has_lost_lines(tmp_path: Path) -> None:
    found = run(tmp_path, num=40)
    path = tmp_path / "run" / "squares" / "predictions.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:20]))
    with pytest.raises(InputError, match=r"holds 20 predictions .* says 40 questions: restore"):
        rescore(tmp_path / "run", PAPER)
    model = StubModel()
    assert run(tmp_path, model, num=40) == found and len(model.asked) == 20
    path.write_text("".join(lines[:38] + lines[39:]))
    with pytest.raises(InputError, match="another question than number 39 of squares"):
        run(tmp_path, num=40)


def test_failures_are_recorded_counted_and_asked_again(tmp_path: Path) -> None:
    settings = {"max_failed": 0.2}
    found = run(tmp_path, StubModel(fail=["q4", "q7"]), settings=settings)["squares"]
    assert (found["num_failed"], found["headline"]["value"]) == (2, 0.4)
    predictions = read_predictions(tmp_path / "run" / "squares" / "predictions.jsonl")
    assert [one.id for one in predictions if one.error] == ["q4", "q7"]
    assert rescore(tmp_path / "run", "lmms-eval")["squares"]["num_failed"] == 2
    again = StubModel(fail=["q4"])
    found = run(tmp_path, again, settings=settings)["squares"]
    assert set(again.asked) == {"q4", "q7"}
    assert (found["num_failed"], found["headline"]["value"]) == (1, 0.5)
    assert not list(tmp_path.rglob("scores-*.json"))  # they were of the answers before
    run(tmp_path, settings=settings, name="whole")
    run(tmp_path, settings=settings)
    assert files(tmp_path / "run") == files(tmp_path / "whole")


def test_too_many_failures_stop_the_run_and_keep_what_there_is(tmp_path: Path) -> None:
    bad = [f"q{index}" for index in range(0, 100, 10)]
    with pytest.raises(InputError) as raised:
        run(tmp_path, StubModel(1, fail=bad), num=100)
    said = str(raised.value)
    assert "6 of 100 questions of squares failed" in said and "share of 0.05" in said
    assert "'q0' (The question q0 is too long: shorten it)" in said and "'q20'" in said
    assert "'q30'" not in said and "\n" not in said
    parts = tmp_path / "run" / "squares" / "parts" / "0.jsonl"
    assert len(parts.read_text().splitlines()) == 51
    assert not (tmp_path / "run" / "squares" / "scores.json").exists()
    model = StubModel(1)
    run(tmp_path, model, num=100)
    assert len(model.asked) == 55
    run(tmp_path, StubModel(1), num=100, name="whole")
    assert files(tmp_path / "run") == files(tmp_path / "whole")


def test_exactly_the_share_may_fail(tmp_path: Path) -> None:
    bad = [f"q{index}" for index in range(5)]
    assert run(tmp_path, StubModel(fail=bad), num=100)["squares"]["num_failed"] == 5


def test_a_model_that_always_fails_is_not_asked_everything(tmp_path: Path) -> None:
    bad = [f"q{index}" for index in range(1000)]
    model = StubModel(1, fail=bad)
    with pytest.raises(InputError, match="All of the first 20 questions of squares failed"):
        run(tmp_path, model, num=1000)
    assert len(model.asked) == 20
    with pytest.raises(InputError, match="All of the first 20"):
        run(tmp_path, model, num=1000)
    whatever = run(tmp_path, model, num=60, settings={"max_failed": 1.0}, name="whatever")
    assert whatever["squares"]["num_failed"] == 60


def test_a_broken_row_is_a_failure(tmp_path: Path) -> None:
    found = run(tmp_path, broken=[3], settings={"max_failed": 0.1})["squares"]
    assert (found["num_failed"], found["num_questions"]) == (1, 10)
    whole = files(tmp_path / "run")
    assert whole["squares/predictions.jsonl"][3]["error"].startswith("Row 4 of")
    run(tmp_path, broken=[3], settings={"max_failed": 0.1})
    assert files(tmp_path / "run") == whole


def test_rescoring(tmp_path: Path) -> None:
    """In the same dialect it gives the same; in another what a run in it would have given."""
    found = run(tmp_path, settings={"prompt_dialect": PAPER})
    folder = tmp_path / "run" / "squares"
    assert rescore(tmp_path / "run", PAPER) == found
    assert (folder / f"scores-{PAPER}.json").read_bytes() == (folder / "scores.json").read_bytes()
    other = run(
        tmp_path, settings={"dialect": "lmms-eval", "prompt_dialect": PAPER}, name="other"
    )  # fmt: skip
    assert rescore(tmp_path / "run", "lmms-eval") == other
    assert json.loads((folder / "scores-lmms-eval.json").read_text()) == other["squares"]


def test_rescoring_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run\.json"):
        rescore(tmp_path, PAPER)
    with pytest.raises(UsageError, match="no dialect"):
        rescore(tmp_path, "mine")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, StubModel(fail=["q1"], error=KeyboardInterrupt))
    with pytest.raises(InputError, match=r"predictions\.jsonl is not there"):
        rescore(tmp_path / "run", PAPER)


def test_benchmarks_can_be_added(tmp_path: Path) -> None:
    run(tmp_path)
    run(tmp_path, benchmark=make_benchmark("again"), num=5)
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["benchmarks"] == ["squares", "again"]
    assert rescore(tmp_path / "run", PAPER).keys() == {"squares", "again"}


@pytest.mark.parametrize("step", ["predictions.jsonl", "scores.json", "rmtree", "run.json"])
def test_killed_while_files_are_put_together(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever write the end did not come to."""

    class Killed(BaseException):
        pass

    run(tmp_path, name="whole")
    real_replace, real_rmtree = Path.replace, shutil.rmtree
    ended = []

    def replace(self: Path, target: Path) -> Path:
        ended.append(Path(target).name)
        if Path(target).name == step and (step != "run.json" or ended.count(step) == 2):
            raise Killed
        return real_replace(self, target)

    def rmtree(path: Path, **options: Any) -> None:
        if step == "rmtree":
            raise Killed
        real_rmtree(path, **options)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "replace", replace)
        patch.setattr("alignvlm.evaluation.running.folder.shutil.rmtree", rmtree)
        run(tmp_path)
    model = StubModel()
    run(tmp_path, model)
    assert model.batches == []
    left = files(tmp_path / "run")
    assert left == files(tmp_path / "whole")
