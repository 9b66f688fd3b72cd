from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import warm
from kill_compare import kill_compare

from alignvlm.analysis.compare import Comparison, compare, estimate, run
from alignvlm.analysis.compare.cell import Bench
from alignvlm.analysis.compare.report import write_report
from alignvlm.analysis.compare.run import rate_of
from alignvlm.analysis.compare.summary import summarise
from alignvlm.errors import ConfigurationError, TrainingError
from alignvlm.training import loop, runs
from alignvlm.training.runs import open_run
from alignvlm.training.task import Loss, Share

Make = Callable[..., Comparison]

TIMES = ("train_seconds", "cpu_seconds_per_sample")


def without_times(content: Any) -> Any:
    """Results as they must be again: all but how long things took."""
    if isinstance(content, dict):
        return {k: without_times(v) for k, v in content.items() if k not in (*TIMES, "run")}
    return [without_times(v) for v in content] if isinstance(content, list) else content


def small(comparison: Make, **options: Any) -> Comparison:
    """Three runs: two rates of one connector, and a second budget."""
    return comparison(**{"variants": ("mlp",), "num_seeds": 1} | options)


def test_everything_but_the_connector_is_the_same(comparison: Make) -> None:
    """Samples, their order, the tensors of each step, and every weight that all have."""
    made = comparison(variants=("align", "mlp", "perceiver"))
    seen, kept = [], []
    for variant in made.variants:
        config = made.config(list(made.scored(variant, 1e-3))[-1])
        task, settings = open_run(config, "cpu")
        steps = list(task.micro_batches(settings, 0, Share()))
        seen.append([(batch.keys, batch.tensors["pixel_values"]) for batch in steps])
        kept.append({name: p.detach() for name, p in task.module.named_parameters()
                     if "connector" not in name})  # fmt: skip
    for other in seen[1:]:
        assert [keys for keys, _ in other] == [keys for keys, _ in seen[0]]
        for (_, ours), (_, theirs) in zip(other, seen[0], strict=True):
            assert torch.equal(ours, theirs)
    assert sum(len(keys) for keys, _ in seen[0]) == 4
    assert any("lora_A" in name for name in kept[0])
    for other_weights in kept[1:]:
        assert other_weights.keys() == kept[0].keys()
        assert all(torch.equal(p, kept[0][name]) for name, p in other_weights.items())


def test_another_seed_is_another_order(comparison: Make) -> None:
    made = comparison()
    keys = []
    for cell in list(made.scored("mlp", 1e-3))[:2]:
        task, settings = open_run(made.config(cell), "cpu")
        keys.append([b.keys for b in task.micro_batches(settings, 0, Share())])
    assert keys[0] != keys[1]


def test_a_whole_comparison(comparison: Make, out: Path) -> None:
    made = comparison()
    told: list[tuple[str, int]] = []
    assert estimate(made, out).seconds_left is None
    assert compare(made, out, "cpu", told=lambda what, samples: told.append((what, samples)))
    left = estimate(made, out)
    assert (left.num_cells, left.num_done, left.seconds_left) == (10, 10, 0)
    assert sum(samples for _, samples in told) == left.num_samples == 2 * (2 * 2 + 2 + 2 * 4)
    for variant in made.variants:
        losses = {
            cell.rate: json.loads((out / cell.name / "validation.json").read_text())["loss"]
            for cell in made.search(variant)
        }
        assert rate_of(made, out, variant) == min(losses, key=lambda rate: losses[rate])
    assert not list(out.rglob("*.safetensors")), "weights are cleared away"
    written = {path.name for path in write_report(made, out)}
    assert written == {
        "results.json", "table.md", "table.csv", "losses.csv", "report.html", "losses.png",
        "efficiency.png",
    }  # fmt: skip
    results = json.loads((out / "results.json").read_text("utf-8"))
    assert results["cells"] == results["cells_wanted"] == 8
    check_layout(made, results, out)


def check_layout(made: Comparison, results: dict[str, Any], out: Path) -> None:
    assert [row["connector"] for row in results["rows"]] == list(made.variants)
    for row in results["rows"]:
        assert [entry["budget"] for entry in row["budgets"]] == [2, 4]
        assert row["visual_tokens"] == 16 and row["parameters"] > 0
        for entry in row["budgets"]:
            assert 0 <= entry["anls"]["mean"] <= 1 and entry["loss"]["spread"] >= 0
    assert [(t["connector"], t["budget"], t["metric"]) for t in results["tests"]] == [
        ("mlp", 2, "anls"), ("mlp", 2, "loss"), ("mlp", 4, "anls"), ("mlp", 4, "loss"),
    ]  # fmt: skip
    cell = next(c for c in made.scored("mlp", rate_of(made, out, "mlp") or 0) if c.budget == 2)
    result = json.loads((out / cell.name / "result.json").read_text("utf-8"))
    assert result["noise"] == [], "noise is looked at for the largest budget"
    assert [(row["connector"], row["sigma"]) for row in results["noise"]] == [
        ("align", "3"), ("align", "1x"), ("mlp", "3"), ("mlp", "1x"),
    ]  # fmt: skip
    for row in results["noise"]:
        moved, apart = row["noise_distance"]["mean"], row["patch_distance"]["mean"]
        assert moved > 0 and apart > 0
        assert row["ratio"]["mean"] == pytest.approx(moved / apart)
    table = (out / "table.md").read_text("utf-8")
    assert re.search(r"^\| connector \| ANLS, 2 \| exact, 2 \| loss, 2 ", table, re.MULTILINE)
    assert re.search(r"^\| mlp \| \d+\.\d ± \d+\.\d \|", table, re.MULTILINE)
    lines = (out / "table.csv").read_text("utf-8").splitlines()
    assert lines[0] == "connector,budget,metric,mean,spread,seeds"
    assert len([line for line in lines if line.startswith("align,2,anls,")]) == 1
    points = (out / "losses.csv").read_text("utf-8").splitlines()
    assert [line.rsplit(",", 1)[0] for line in points] == [
        "connector,samples", "align,2", "align,4", "mlp,2", "mlp,4",
    ]  # fmt: skip
    page = (out / "report.html").read_text("utf-8")
    assert "after 4 samples" in page and page.count('<figure class="page">') == 3
    assert not re.search(r"(?:src|href)=\"(?!data:)", page), "nothing is fetched"
    assert "<script" not in page


@pytest.mark.parametrize("bad", [{1e-2}, {1e-3, 1e-2}], ids=["one rate", "all rates"])
def test_a_rate_at_which_the_loss_is_no_number(
    comparison: Make, out: Path, monkeypatch: pytest.MonkeyPatch, bad: set[float]
) -> None:
    """It is out of the choice, and not tried again."""
    real, opened = runs.open_run, []

    def open_run(config: Any, device: str) -> Any:
        task, settings = real(config, device)
        opened.append(config.rates.connector)
        if config.rates.connector in bad:
            monkeypatch.setattr(task, "loss", lambda _: Loss(_a_nan(task), 1, {}))
        return task, settings

    monkeypatch.setattr(runs, "open_run", open_run)
    made = small(comparison, budgets=(2,))
    if len(bad) == 2:
        with pytest.raises(ConfigurationError, match="loss of mlp becomes no number at every"):
            compare(made, out, "cpu")
        assert summarise(made, out)["search"][0]["chosen"] is None
        return
    assert compare(made, out, "cpu") and compare(made, out, "cpu")
    assert opened == [1e-3, 1e-2]
    assert rate_of(made, out, "mlp") == 1e-3
    (found,) = summarise(made, out)["search"]
    assert found["diverged"] == ["0.01"] and found["losses"]["0.01"] is None
    assert estimate(made, out).num_done == 2
    write_report(made, out)
    assert re.search(r"\| mlp \| \d.\d+ \| no number \| 0.001 \|", (out / "table.md").read_text())


def _a_nan(task: Any) -> torch.Tensor:
    return next(p for p in task.module.parameters() if p.requires_grad).sum() * float("nan")


def test_what_other_errors_say_is_not_swallowed(
    comparison: Make, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise TrainingError("The checkpoint cannot be written: free some space")

    monkeypatch.setattr(loop, "train", refuse)
    with pytest.raises(TrainingError, match="free some space"):
        compare(small(comparison), out, "cpu")
    assert not list(out.rglob("validation.json"))


def test_half_a_comparison_compares_like_with_like(comparison: Make, out: Path) -> None:
    """One connector is done with both budgets, the other with the smaller one."""
    made = comparison(num_seeds=1, rates=(1e-3,))
    assert compare(small(comparison, rates=(1e-3,)), out, "cpu")
    Bench(made, out, "cpu").search("align")
    results = summarise(made, out)
    assert (results["cells"], results["cells_wanted"]) == (3, 4)
    assert [curve["connector"] for curve in results["curves"]] == ["mlp"]
    assert results["examples_budget"] == 2
    assert {name for e in results["examples"] for name in e["said"]} == {"align", "mlp"}
    assert {test["budget"] for test in results["tests"]} == {2}
    write_report(made, out)
    assert "(so far 3 of 4 runs)" in (out / "table.md").read_text("utf-8")
    assert "So far 3 of 4 scored runs are done" in (out / "report.html").read_text("utf-8")


def test_what_is_done_is_kept(comparison: Make, out: Path) -> None:
    made = small(comparison)
    assert compare(made, out, "cpu")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("result.json")}
    assert compare(made, out, "cpu")
    more = small(comparison, budgets=(2, 4), num_seeds=2)
    assert compare(more, out, "cpu")
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert len(list(out.rglob("result.json"))) == 4
    with pytest.raises(ConfigurationError, match="another pages"):
        compare(small(comparison, num_pages=9), out, "cpu")


def test_a_result_is_made_again_from_nothing(comparison: Make, out: Path) -> None:
    """A cell whose weights are cleared and whose result is lost is trained once more."""
    made = small(comparison, budgets=(2,), rates=(1e-3,))
    compare(made, out, "cpu")
    (path,) = out.rglob("result.json")
    first = json.loads(path.read_text("utf-8"))
    path.unlink()
    compare(made, out, "cpu")
    assert without_times(json.loads(path.read_text("utf-8"))) == without_times(first)


def test_two_at_a_time_find_the_same(
    comparison: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = small(comparison, variants=("align", "mlp"), budgets=(2,), rates=(1e-3,))
    compare(made, tmp_path / "one", "cpu")
    warmer = SimpleNamespace(get_context={"spawn": warm.CONTEXT}.__getitem__)
    monkeypatch.setattr(run, "multiprocessing", warmer)
    compare(made, tmp_path / "two", "cpu", jobs=2)
    one, two = (without_times(summarise(made, tmp_path / name)) for name in ("one", "two"))
    assert one == two


def test_a_folder_in_use_is_refused(comparison: Make, out: Path) -> None:
    made = small(comparison)

    def again(_what: str, _samples: int) -> None:
        with pytest.raises(ConfigurationError, match="Another process works on the comparison"):
            compare(made, out, "cpu")
        raise KeyboardInterrupt

    assert not compare(made, out, "cpu", told=again)


def test_a_signal_ends_it_and_the_same_call_goes_on(comparison: Make, tmp_path: Path) -> None:
    made = small(comparison, budgets=(2, 6), rates=(1e-3,))
    whole, out = tmp_path / "whole", tmp_path / "stopped"
    compare(made, whole, "cpu")

    def stop(_what: str, samples: int) -> None:
        if samples:
            os.kill(os.getpid(), signal.SIGTERM)

    stops = 0
    while not compare(made, out, "cpu", told=stop):
        stops += 1
        results = summarise(made, out)
        assert results["cells"] <= results["cells_wanted"]
    assert stops >= 1
    ours, theirs = (without_times(summarise(made, folder)) for folder in (out, whole))
    assert ours == theirs


def test_killed_anywhere_it_finds_the_same(comparison: Make, tmp_path: Path) -> None:
    made = small(comparison, budgets=(2, 4))
    whole, out = tmp_path / "whole", tmp_path / "killed"
    compare(made, whole, "cpu")
    for kill_at in (1, 2, 2):  # steps after each start
        process = warm.start(kill_compare, made, out, kill_at, stderr=tmp_path / "stderr")
        process.join(120)
        assert process.exitcode == -signal.SIGKILL, (tmp_path / "stderr").read_text()
    assert compare(made, out, "cpu")
    assert without_times(summarise(made, out)) == without_times(summarise(made, whole))


def test_models_are_kept_if_asked_for(comparison: Make, out: Path) -> None:
    made = small(comparison, budgets=(2,), rates=(1e-3,))
    Bench(made, out, "cpu", keep_models=True).search("mlp")
    assert len(list(out.rglob("model/model.safetensors"))) == 1


def test_a_model_of_another_budget_is_another_run(comparison: Make, out: Path) -> None:
    made = small(comparison, rates=(1e-3,))
    compare(made, out, "cpu")
    steps = [len((out / cell.name / "log.jsonl").read_text().splitlines())
             for cell in made.scored("mlp", 1e-3)]  # fmt: skip
    assert steps == [1, 2]
