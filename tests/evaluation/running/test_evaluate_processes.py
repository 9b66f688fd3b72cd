"""Runs as processes of their own: killed, several at once, refused."""

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
from stub_run import files, write_data

SCRIPT = Path(__file__).with_name("stub_run.py")
BUILDERS = (str(SCRIPT.parents[2] / "builders"), *filter(None, [os.environ.get("PYTHONPATH")]))


class Server:
    """Starts runs as processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.num = folder, 0
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(SCRIPT)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(BUILDERS)},
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


def test_two_processes_with_a_model_of_torch(server: Server, tmp_path: Path) -> None:
    """Six drawn pages, two at a time: other batches in other processes, the same answers."""
    options = {"model": str(tmp_path / "model"), "pages": 6, "batch": 2}
    ((alone, err),) = end(server.start(tmp_path / "one", options))
    said = end(server.start(tmp_path / "two", options, many=2))
    assert err == "" and [out for out, _ in said] == [alone] * 2
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    predictions = one["synthdoc/predictions.jsonl"]
    assert predictions == two["synthdoc/predictions.jsonl"] and len(predictions) == 6
    assert len({row["raw"] for row in predictions}) > 1, "pages and questions matter"
    assert one["synthdoc/scores.json"] == two["synthdoc/scores.json"]


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
