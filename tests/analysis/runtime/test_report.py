from __future__ import annotations

import csv
import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from alignvlm.analysis.runtime import Cost, ScalingPoint, markdown, plot, summarise, write_results
from alignvlm.errors import MissingDependencyError

RUN = {"preset": "tiny", "settings": {"tiles": 2}, "kinds": ["a", "b"]}


@pytest.fixture
def points() -> list[ScalingPoint]:
    """Time and memory in proportion to tiles; time with the root of the vocabulary's size."""
    tiles = [
        ScalingPoint(connector="align", axis="tiles", num_tiles=n, vocab_size=100,
                     seconds=(n, 0.5 * n, 9.0 * n), extra_bytes=n * 10**6, flops=n * 10**12)
        for n in (1, 2, 4)
    ]  # fmt: skip
    words = [
        ScalingPoint(connector="align", axis="vocabulary", num_tiles=1, vocab_size=V,
                     seconds=(V**0.5,), extra_bytes=0, flops=V)
        for V in (1024, 2048, 4096)
    ]  # fmt: skip
    return tiles + words


@pytest.fixture
def record(costs: list[Cost], points: list[ScalingPoint]) -> dict[str, Any]:
    return {"run": RUN, "results": summarise(costs, points)}


def test_numbers_of_a_connector(costs: list[Cost]) -> None:
    align, mlp = summarise(costs)["connectors"]
    assert mlp["seconds"] == mlp["seconds_median"] == 2.0
    assert (mlp["seconds_min"], mlp["seconds_max"]) == (1.0, 3.0)
    assert mlp["tokens_per_s"] == 6 / 2.0
    assert mlp["connector_share"] == 0.1 / 0.5
    assert mlp["flops_share"] == 0.1
    assert mlp["times_mlp"] == mlp["peak_times_mlp"] == 1.0
    # Page by page 2, 4 and 3: not 8 / 2, the ratio of the medians.
    assert align["times_mlp"] == 3.0
    assert (align["peak_gb"], align["peak_times_mlp"]) == (3.0, 1.5)
    assert (align["paper_seconds"], align["paper_peak_gb"]) == (0.165, 10.9)


def test_without_an_mlp_there_is_no_ratio(costs: list[Cost]) -> None:
    (align,) = summarise(costs[:1])["connectors"]
    assert align["times_mlp"] is None and align["peak_times_mlp"] is None


def test_exponents(costs: list[Cost], points: list[ScalingPoint]) -> None:
    tiles, words = summarise(costs, points)["exponents"]
    assert (tiles["axis"], words["axis"]) == ("tiles", "vocabulary")
    assert [tiles[key] for key in ("time", "memory", "flops")] == pytest.approx([1.0, 1.0, 1.0])
    assert words["time"] == pytest.approx(0.5)
    assert words["memory"] is None


def test_tables_for_people(record: dict[str, Any]) -> None:
    lines = markdown(record).splitlines()
    assert "- settings: tiles 2" in lines and "- kinds: a, b" in lines
    assert "| mlp | 32 | 0.00 M | 2.00 (1.00-3.00) | 3.0 | 2.00 | 1.00 |" in lines
    assert "| mlp | 0.50 (0.40-0.90) | 100.00 | 20.0% | 10.0% |" in lines
    assert "| align | 6.333 | 0.165 | 0.9 | 115.4 | 3.0 | 10.9 |" in lines
    assert "| align | 4 | 100 | 4.0000 (2.0000-36.0000) | 0.004 | 4.0000 |" in lines
    assert "| align | vocabulary | 0.50 | - | 1.00 |" in lines


def test_tables_have_as_many_columns_everywhere(record: dict[str, Any]) -> None:
    for block in markdown(record).split("\n## ")[1:]:
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len(rows) >= 3 and len({row.count("|") for row in rows}) == 1


def test_tables_leave_out_what_was_not_measured(costs: list[Cost]) -> None:
    costs = [c for c in costs if c.connector == "nothing of Table 7"] + costs
    text = markdown({"run": RUN, "results": summarise(costs)})
    assert "against work" not in text and "exponents" not in text


def test_files(
    record: dict[str, Any], costs: list[Cost], points: list[ScalingPoint], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    folder = tmp_path / "new" / "folder"
    paths = write_results(folder, record, costs, points)
    assert sorted(path.name for path in paths) == sorted(p.name for p in folder.iterdir())
    whole = json.loads((folder / "runtime.json").read_text("utf-8"))
    assert whole["run"] == RUN
    assert whole["results"]["connectors"][0]["times_mlp"] == 3.0
    assert whole["samples"]["costs"][0]["seconds"] == [2.0, 8.0, 9.0]
    assert len(whole["samples"]["scaling"]) == 6
    with (folder / "runtime.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["connector"] for row in rows] == ["align", "mlp"]
    assert float(rows[0]["times_mlp"]) == 3.0
    with (folder / "runtime_scaling.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 6
    assert (folder / "runtime.md").read_text("utf-8") == markdown(record)


def test_a_picture_grows_with_what_is_in_it(costs: list[Cost], points: list[ScalingPoint]) -> None:
    pytest.importorskip("matplotlib")

    def size(png: bytes) -> tuple[int, int]:
        assert png[:8] == b"\x89PNG\r\n\x1a\n"
        return struct.unpack(">II", png[16:24])

    few, many = plot.draw(summarise(costs)), plot.draw(summarise(costs * 3, points))
    assert size(few)[0] == size(many)[0]
    assert size(few)[1] < size(many)[1]


def test_without_matplotlib_nothing_is_written(
    record: dict[str, Any],
    costs: list[Cost],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "alignvlm\[plots\]"'):
        write_results(tmp_path / "out", record, costs)
    assert not (tmp_path / "out").exists()
