from __future__ import annotations

import json
import math
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from alignvlm.files import to_line
from alignvlm.training.report import write_report
from alignvlm.training.report_data import read_run
from alignvlm.training.run_folder import TrainedPart, write_provenance, write_trained_parts
from alignvlm.weights.cache import atomic_folder

HEALTHY = {
    "health/token_cosine": 0.6, "health/feature_cosine": 0.5, "health/mean_distance": 1.0,
    "health/effective_words": 30.0, "health/entropy": math.log(30.0),
}  # fmt: skip
COLLAPSED = {**HEALTHY, "health/token_cosine": 0.997, "health/mean_distance": 0.09}


class Page(HTMLParser):
    """What a browser would make of a page: elements, whether they nest, and the text."""

    VOID = frozenset({"meta", "path", "circle", "polyline"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attributes
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def write_log(run: Path, records: list[dict[str, Any]]) -> None:
    run.mkdir(parents=True, exist_ok=True)
    (run / "log.jsonl").write_text("".join(to_line(record) for record in records))


def page_of(run: Path) -> Page:
    return Page(write_report(run).read_text("utf-8"))


def test_a_whole_run(tmp_path: Path) -> None:
    recipe = {"recipe": "smol", "seed": 1, "data": "/home/jane/pages"}
    for step in (0, 30):
        write_provenance(tmp_path, recipe, ["alignvlm", "train", "smol"], step=step, num_steps=60)
    part = TrainedPart(part="connector", num_parameters=1234, num_trained=1200, learning_rate=1e-3)
    write_trained_parts(tmp_path, [part, TrainedPart(part="llm", num_parameters=9, num_trained=0)])
    write_log(tmp_path, [
        {
            "step": step, "loss": 5.0 / step, "learning_rate/llm": 1e-5, "gradient_norm": 1.0,
            "learning_rate/connector": 1e-3, "text_tokens_per_s": 1000.0, "mfu": 0.4125,
            "visual_tokens_per_s": 2000.0, "seconds_per_step": 2.0, "data_wait_share": 0.125,
            "padding_share": 0.07, "peak_memory_bytes": 3_000_000_000, "eval/anls": 0.5,
            **(COLLAPSED if step < 20 else HEALTHY),
        }
        for step in range(1, 51)
    ])  # fmt: skip
    (tmp_path / "quarantine.jsonl").write_text("".join(
        to_line({"source": "pages", "key": f"a.jsonl:{n}", "kind": "broken", "step": n,
                 "reason": f"The file 'p{n}.png' ends after {n} bytes"})
        for n in range(3)
    ))  # fmt: skip
    with atomic_folder(tmp_path / "step-00000050") as folder:
        (folder / "weights.safetensors").write_bytes(bytes(2_000_000))
    (tmp_path / "step-00000777").mkdir()
    page = page_of(tmp_path)
    text = re.sub(r"\s+", " ", page.text)
    for expected in (
        "50 of 60, 10 still to do",
        "3k median, text and visual",
        "41.2 %",
        "3 GB",
        "Until step 19 (19 of 50 checks): The connector gives all patches nearly the mean",
        "Training waited for data 12 % of the time",
        "see the table below: 3.",
        "The file … ends after … bytes broken 3 pages, a.jsonl:0",
        "connector 1,234 1,200 0.001 0 ",
        "llm 9 0 frozen 0 ",
        "alignvlm train smol",
        "Checkpoints step size written 50 2 MB",
        "~/pages",
        '"transformers":',
        "Evaluation anls",
        "Dashed lines: the run was resumed.",
    ):
        assert expected in text
    for title in ("Loss", "Learning rate", "Gradient norm", "Padding", "Cosine between patches"):
        assert f" {title} " in text
    assert "777" not in text.partition("Checkpoints")[2].partition("Recipe")[0]
    assert "jane" not in page.text


def test_a_collapse_that_lasts_comes_first(tmp_path: Path) -> None:
    records = [{"step": n, "data_wait_share": 0.5, **COLLAPSED} for n in range(1, 9)]
    write_log(tmp_path, records)
    html = write_report(tmp_path).read_text()
    assert '<ul class="notes"><li class="bad">From step 1 to 8 (8 of 8 checks): ' in html
    assert html.count('class="warned"') >= 8


@pytest.mark.parametrize("content", [None, "", "\n\n", "\x00\x01", '{"step": 1}', "[]\n3\nnull\n"])
def test_a_run_without_numbers_has_a_page(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "log.jsonl").write_text(content)
    page = page_of(tmp_path)
    assert "The log holds no numbers yet." in page.text
    assert "svg" not in page.names


def test_damaged_lines_are_counted_and_the_others_drawn(tmp_path: Path) -> None:
    lines = ['{"step": 2, "loss": 2.0}', '{"step": 1, "loss": 3.0}', '{"loss": 9.0}', '{"step"',
             '{"step": "x", "loss": 1.0}', '{"step": 3, "loss": "NaN"}', '{"step": 4, "loss": NaN}',
             '{"step": 5, "loss": 1' + "0" * 400 + "}", '{"step": 6, "loss": true}',
             '{"step": 7, "loss": {"a": 1}}', '{"step": 8, "loss": 1.0}']  # fmt: skip
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    run = read_run(tmp_path)
    assert (list(run.columns["loss"].steps), list(run.columns["loss"].values)) == (
        [1.0, 2.0, 8.0],
        [3.0, 2.0, 1.0],
    )
    assert run.num_damaged == 3
    assert run.not_finite == {"loss": 3}
    text = page_of(tmp_path).text
    assert "left out of the curve: 3." in text
    assert "Damaged lines of log.jsonl, left out here: 3." in text


@pytest.mark.parametrize(
    "name", ["recipe.json", "environment.json", "trained_parts.json", "starts.jsonl", "config.json"]
)
@pytest.mark.parametrize("content", ["", "{", "[1, null]", '{"step": [], "num_steps": "x"}', "7"])
def test_other_files_may_be_damaged(tmp_path: Path, name: str, content: str) -> None:
    write_log(tmp_path, [{"step": 1, "loss": 1.0}])
    (tmp_path / name).write_text(content)
    assert "Loss" in page_of(tmp_path).text


def test_strangers_text_stays_text(tmp_path: Path) -> None:
    attack = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&\ud800"
    write_provenance(tmp_path, {"recipe": attack, attack: attack}, ["alignvlm", attack])
    write_trained_parts(tmp_path, [TrainedPart(part=attack, num_parameters=1, num_trained=1)])
    names = (attack, f"eval/{attack}", f"learning_rate/{attack}")
    write_log(tmp_path, [{"step": n, **dict.fromkeys(names, float(n))} for n in range(60)])
    record = {"source": attack, "key": attack, "reason": attack, "kind": attack, "step": 1}
    (tmp_path / "quarantine.jsonl").write_text(to_line(record))
    (tmp_path / f"bad-step-{attack[:9].replace('/', '')}.json").write_text("{}")
    page = page_of(tmp_path)
    assert not {"script", "img", "iframe", "link", "a"} & set(page.names)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.text.count("alert(1)") >= 8


def test_nothing_is_fetched(tmp_path: Path) -> None:
    write_log(tmp_path, [{"step": n, "loss": float(n)} for n in range(9)])
    html = write_report(tmp_path).read_text()
    assert "http" not in html.replace("http-equiv", "")
    assert "url(" not in html
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page_of(
        tmp_path
    ).attributes


def test_a_hundred_thousand_steps_are_quick_and_small(tmp_path: Path) -> None:
    keys = ("loss", "gradient_norm", "learning_rate", "text_tokens_per_s", "data_wait_share")
    with (tmp_path / "log.jsonl").open("w") as log:
        for step in range(1, 100_001):
            numbers = ", ".join(f'"{key}": {1 + step * 7919 % 1000 / 1000!r}' for key in keys)
            log.write(f'{{"step": {step}, {numbers}}}\n')
        log.write('{"step": 100001, "loss": 77.25}\n')
    started = time.process_time()
    path = write_report(tmp_path)
    assert time.process_time() - started < 3
    assert path.stat().st_size < 1_000_000
    assert "77.25" in path.read_text()


def test_many_unknown_keys_do_not_flood_the_page(tmp_path: Path) -> None:
    write_log(tmp_path, [{"step": n, **{f"k{i}": 1.0 for i in range(40)}} for n in (1, 2)])
    page = page_of(tmp_path)
    assert page.names.count("figure") == 24
    assert "16 further keys are in log.jsonl alone." in page.text


def test_the_report_is_whole_or_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_log(tmp_path, [{"step": 1, "loss": 1.0}])
    before = write_report(tmp_path).read_bytes()
    write_log(tmp_path, [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 1.0}])
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        write_report(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before


def test_settings_of_a_run_without_provenance_come_from_the_loop(tmp_path: Path) -> None:
    write_log(tmp_path, [{"step": 4, "loss": 1.0, "step_s": 90.0}])
    (tmp_path / "config.json").write_text(json.dumps({"num_steps": 4}))
    text = page_of(tmp_path).text
    assert "of 4, finished" in text
    assert "6 min" in text
