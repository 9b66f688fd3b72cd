from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignvlm.errors import TrainingError
from alignvlm.files import read_lines
from alignvlm.training.quarantine import Quarantine


def record(key: str, kind: str = "broken", source: str = "a") -> dict[str, Any]:
    return {"source": source, "key": key, "reason": f"{key} is ünusable: repair it", "kind": kind}


def quarantine(folder: Path, share: float = 0.5, writes: bool = True) -> Quarantine:
    return Quarantine(folder, writes, share, batch_size=10)


def test_each_sample_stands_once_with_its_step(tmp_path: Path) -> None:
    """All processes plan the same step, epochs come round, and resumed runs see it again."""
    first = quarantine(tmp_path)
    first.add(1, [record("x"), record("x"), record("x", source="b")])
    first.add(2, [record("y", "too_long"), record("x")])
    again = quarantine(tmp_path)
    again.add(2, [record("y", "too_long"), record("z")])
    lines = read_lines(tmp_path / "quarantine.jsonl")
    assert [(line["source"], line["key"], line["kind"], line["step"]) for line in lines] == [
        ("a", "x", "broken", 1), ("b", "x", "broken", 1), ("a", "y", "too_long", 2),
        ("a", "z", "broken", 2),
    ]  # fmt: skip
    assert lines[0]["reason"] == "x is ünusable: repair it"


def test_nothing_broken_writes_nothing(tmp_path: Path) -> None:
    quarantine(tmp_path).add(1, [])
    quarantine(tmp_path, writes=False).add(1, [record("x")])
    assert not list(tmp_path.iterdir())


def test_a_file_that_a_kill_has_cut(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    path.write_text(json.dumps(record("x") | {"step": 1}) + '\n{"source": "a", "ke')
    quarantine(tmp_path).add(3, [record("x"), record("y")])
    assert [line["key"] for line in read_lines(path)] == ["x", "y"]
    assert len(path.read_text().splitlines()) == 3


def test_half_a_character_is_written_too(tmp_path: Path) -> None:
    quarantine(tmp_path).add(1, [record("\ud800")])
    assert read_lines(tmp_path / "quarantine.jsonl")[0]["key"] == "\ud800"


def test_writing_costs_what_is_new(tmp_path: Path) -> None:
    """A long run that skips long samples adds lines, it does not write the file again."""
    long = quarantine(tmp_path)
    path = tmp_path / "quarantine.jsonl"
    long.add(1, [record("0", "too_long")])
    inode = path.stat().st_ino
    for step in range(2, 50):
        long.add(step, [record(str(step), "too_long")])
    assert path.stat().st_ino == inode and len(read_lines(path)) == 49


@pytest.mark.parametrize(
    ("share", "steps", "num_broken", "stops"),
    [(0.1, 1, 10, False),  # of the first hundred samples, however few were seen
     (0.1, 1, 11, True), (0.1, 20, 20, False), (0.1, 20, 21, True), (0.0, 1, 1, True),
     (1.0, 1, 99, False)],
)  # fmt: skip
def test_the_limit(tmp_path: Path, share: float, steps: int, num_broken: int, stops: bool) -> None:
    found = quarantine(tmp_path, share)
    for step in range(1, steps):
        found.add(step, [record(f"long {step}", "too_long")])
    records = [record(str(number)) for number in range(num_broken)]
    if not stops:
        found.add(steps, records)
        return
    with pytest.raises(TrainingError) as raised:
        found.add(steps, records)
    assert str(raised.value) == (
        f"{num_broken} of the last {steps * 10} samples are broken, more than the share of "
        f"{share:g} that this run accepts (last: {num_broken - 1} is ünusable: repair it): see "
        f"{tmp_path / 'quarantine.jsonl'}, repair the data or raise max_bad_share"
    )
    assert len(read_lines(tmp_path / "quarantine.jsonl")) == steps - 1 + num_broken


def test_long_samples_follow_from_the_recipe(tmp_path: Path) -> None:
    found = quarantine(tmp_path, share=0.0)
    found.add(1, [record(str(number), "too_long") for number in range(1000)])


def test_a_resumed_run_counts_from_its_own_start(tmp_path: Path) -> None:
    found = quarantine(tmp_path, share=0.1)
    with pytest.raises(TrainingError, match="11 of the last 10 samples"):
        found.add(1000, [record(str(number)) for number in range(11)])
