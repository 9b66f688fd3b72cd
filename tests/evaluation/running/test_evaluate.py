from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from stub_run import StubModel, make_benchmark, write_data

from alignvlm.errors import InputError, UsageError
from alignvlm.evaluation.running import Progress, Settings, evaluate_model, rescore
from alignvlm.evaluation.running.folder import read_predictions

SCRIPT = Path(__file__).with_name("stub_run.py")
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


def files(run: Path) -> dict[str, Any]:
    """Everything that a run leaves, without what a repetition changes."""
    found: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        if path.is_dir() or path.name == ".lock":
            continue
        name = str(path.relative_to(run))
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = [{**row, "seconds": 0} for row in rows]
        elif name == "run.json":
            times = {"started": 0, "ended": 0, "num_processes": 0}
            found[name] = {**json.loads(path.read_text()), **times}
        else:
            found[name] = path.read_bytes()
    return found


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
    [({"limit": 3}, "limit None and not 3"), ({"dialect": "lmms-eval"}, "score_dialect"),
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
    with pytest.raises(UsageError, match="model's sha256 None and not 'f00'"):
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


# Processes of their own.


class Server:
    """Starts runs as processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.num = folder, 0
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(SCRIPT)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self, **asked: Any) -> int:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(self, run: Path, options: dict[str, Any], many: int = 1) -> list[Started]:
        env: dict[str, str] = {}
        if many > 1:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(many)}
        return [
            self.fork(run, options, env | ({"RANK": f"{n}", "LOCAL_RANK": f"{n}"} if env else {}))
            for n in range(many)
        ]

    def fork(self, run: Path, options: dict[str, Any], env: dict[str, str]) -> Started:
        self.num += 1
        out = self.folder / str(self.num)
        out.mkdir()
        return Started(self, self.ask(start=[str(run), options], env=env, out=str(out)), out)


class Started:
    """A run under way."""

    def __init__(self, server: Server, pid: int, out: Path) -> None:
        self.server, self.pid, self.out = server, pid, out

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def end(self) -> int:
        return self.server.ask(wait=self.pid)

    def said(self) -> tuple[str, str]:
        return (self.out / "out").read_text(), (self.out / "err").read_text()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"))
    yield made
    assert made.process.stdin and made.process.stdout
    made.process.stdin.close()
    made.process.wait(timeout=20)
    made.process.stdout.close()


def end(started: Sequence[Started], *statuses: int) -> list[tuple[str, str]]:
    ended, said = [one.end() for one in started], [one.said() for one in started]
    assert ended == (list(statuses) or [0] * len(started)), said
    return said


def num_lines(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("squares/parts/*.jsonl"))


def wait_for_lines(folder: Path, goal: int) -> None:
    deadline = time.monotonic() + 60
    while num_lines(folder) < goal:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_killed_at_several_instants(server: Server, tmp_path: Path) -> None:
    """SIGKILL, again and again, at random instants of one run, then to its end."""
    data = write_data(tmp_path / "data", num=60)
    options = {"data": str(data), "batch": 3, "delay": 0.03}
    end(server.start(tmp_path / "whole", {**options, "delay": 0.0}))
    rng, left = random.Random(0), tmp_path / "run"
    for goal in (0, 0, 1, 9, 15, 22, 30, 38, 44, 50):
        (process,) = server.start(left, options)
        wait_for_lines(left, goal)
        time.sleep(rng.random() * 0.03)
        process.kill()
        assert process.end() == -signal.SIGKILL
    assert 50 <= num_lines(left) < 60
    ((out, err),) = end(server.start(left, options))
    assert err == "" and 0 < len(json.loads(out)["asked"]) < 60
    assert files(left) == files(tmp_path / "whole")


@pytest.mark.parametrize("step", ["predictions.jsonl", "scores.json", "rmtree", "run.json"])
def test_killed_while_files_are_put_together(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever write the end did not come to."""

    class Killed(BaseException):
        pass

    run(tmp_path, name="whole")
    real_replace, real_rmtree = Path.replace, __import__("shutil").rmtree
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


def test_two_processes_predict_as_one(server: Server, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", num=33)
    options = {"data": str(data), "batch": 4, "fail": ["q8"]}
    ((alone, _),) = end(server.start(tmp_path / "one", options))
    said = end(server.start(tmp_path / "two", options, many=2))
    assert [err for _, err in said] == ["", ""]
    found = [json.loads(out) for out, _ in said]
    assert found[0]["scores"] == found[1]["scores"] == json.loads(alone)["scores"]
    assert {name for one in found for name in one["asked"]} == {f"q{n}" for n in range(33)}
    assert all(len(set(one["asked"])) in (16, 17) for one in found)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_two_processes_are_killed_and_one_goes_on(server: Server, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", num=40)
    options = {"data": str(data), "batch": 2}
    end(server.start(tmp_path / "whole", options))
    left = tmp_path / "run"
    both = server.start(left, {**options, "delay": 0.1}, many=2)
    wait_for_lines(left, 6)
    for process in both:
        process.kill()
    end(both, -signal.SIGKILL, -signal.SIGKILL)
    done = num_lines(left)
    assert sorted(path.name for path in left.glob("squares/parts/*")) == ["0.jsonl", "1.jsonl"]
    ((out, _),) = end(server.start(left, options))
    assert len(json.loads(out)["asked"]) == 40 - done
    assert files(left) == files(tmp_path / "whole")


def test_a_process_that_dies_leaves_none_waiting(server: Server, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", num=20)
    options = {"data": str(data), "batch": 2}
    said = end(server.start(tmp_path / "run", {**options, "dies": {"1": 4}}, many=2), 1, 9)
    assert said[0][1].startswith("InputError: A process of this run has ended")
    ((out, _),) = end(server.start(tmp_path / "run", options))
    assert len(json.loads(out)["asked"]) == 20 - 10 - 4


def test_what_is_refused_is_said_once(server: Server, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", num=6)
    end(server.start(tmp_path / "run", {"data": str(data), "batch": 2}))
    write_data(tmp_path / "data", num=7)
    said = end(server.start(tmp_path / "run", {"data": str(data), "batch": 2}, many=2), 1, 1)
    assert said[0][1].startswith("UsageError: ") and "num_questions" in said[0][1]
    assert said[1][1].startswith("RepeatedError: ")
