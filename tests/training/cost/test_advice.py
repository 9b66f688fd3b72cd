"""Advice: it leaves out no data and no saving is nothing; what a row cannot hold is said."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from alignvlm.imaging.tiling import Tiling, choose_grid
from alignvlm.model.configuration import AlignVLMConfig, num_visual_tokens
from alignvlm.training import overrides, recipes
from alignvlm.training.configuration import RunConfig, check_device
from alignvlm.training.cost import plan as planning
from alignvlm.training.cost.advice import left_out
from alignvlm.training.cost.memory import Memory
from alignvlm.training.cost.plan import RESERVE_BYTES, Plan, make_plan

GB = 10**9
OURS = [name for name in recipes.names() if not name.startswith("base-vlm")]


def run_of(name: str, *settings: str) -> RunConfig:
    return overrides.apply(recipes.find(name)(), settings)


def followed(made: Plan) -> Iterator[RunConfig]:
    """The run with the first change, with the first two, and so on."""
    run = made.run
    for change in made.changes:
        run = overrides.apply(run, change.setting.split())
        yield run


@pytest.fixture
def never_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every change saves a tenth, and none is enough: all that can be advised is."""
    huge: dict[str, Any] = {"llm": 10**15}
    calls: list[int] = []

    def needed(_run: RunConfig, _num_gpus: int) -> Any:
        calls.append(0)
        return SimpleNamespace(total=int(10**15 * 0.9 ** len(calls)))

    whole = Memory(weights=huge, gradients={}, optimizer={}, activations={}, workspace={})
    monkeypatch.setattr(planning, "memory", lambda *_: whole)
    monkeypatch.setattr(planning, "needed_memory", needed)


@pytest.mark.usefixtures("never_enough")
@pytest.mark.parametrize("name", OURS)
def test_every_advised_run_holds_the_largest_sample(name: str) -> None:
    """The most tiles and visual tokens of any page, and the longest text."""
    run = run_of(name)
    config: Any = planning.architecture(run.model)
    cut, per_tile, joining = Tiling(**config.tiling), config.tokens_per_tile, config.joining
    sides = [round(64 * 1.25**n) for n in range(20)]  # up to 4441 px
    grids = {choose_grid(width, height, cut) for width in sides for height in sides}
    tiles = max(grid.num_tiles for grid in grids)
    visual = max(num_visual_tokens(grid, per_tile, joining) for grid in grids)
    for num_gpus in (1, 8):
        made = make_plan(run, num_gpus, GB)
        assert made.changes, "whatever there is to try has been tried"
        for changed in followed(made):
            assert changed.batches.max_tiles >= tiles
            assert changed.batches.max_tokens >= visual + changed.batches.max_text_tokens
            assert changed.batches.num_samples == run.batches.num_samples
            assert changed.data == run.data and not left_out(config, changed)


@pytest.mark.usefixtures("never_enough")
def test_rows_are_shortened_as_far_as_that_goes() -> None:
    made = make_plan(run_of("llama-3.2-1b-stage2", "batches.max_tokens=40000"), 8, GB)
    rows = [c.setting for c in made.changes if "max_tokens" in c.setting]
    whole = -(-(10 * 729 + 2048) // 128) * 128
    assert rows == [f"batches.max_tokens={n}" for n in (20_000, 10_000, whole)]
    exact = make_plan(run_of("llama-3.2-1b-stage2", f"batches.max_tokens={whole}"), 8, GB)
    assert not any("max_tokens" in change.setting for change in exact.changes)


def test_what_saves_nothing_is_left_out() -> None:
    """Shorter rows do not help where the optimizer's step takes more than the backward pass."""
    run = run_of("llama-3.2-1b-stage2", "batches.max_tokens=40000", "batches.max_tiles=54")
    made = make_plan(run, 1, 25 * GB)
    sizes = [made.needed_bytes, *(change.bytes for change in made.changes)]
    for before, after in pairwise(sizes):
        assert after - RESERVE_BYTES < 0.99 * (before - RESERVE_BYTES)
    assert [change.setting for change in made.changes] == [
        "batches.max_tokens=20000", "batches.max_tokens=10000",
        "lora.rank=16 model.dtype=bfloat16",
    ]  # fmt: skip
    again = make_plan(list(followed(made))[-1], 1, 25 * GB)
    assert again.fits and again.needed_bytes == sizes[-1]


def test_half_precision_is_advised_with_what_it_needs() -> None:
    run = run_of("llama-3.2-1b-stage3", "precision=float32")
    made = make_plan(run, 1, 20 * GB)
    assert made.changes[0].setting == "model.dtype=bfloat16 precision=bfloat16"
    assert next(followed(made)).precision == "bfloat16"


def test_nothing_is_advised_that_a_cpu_cannot_do() -> None:
    run = run_of("llama-3.2-3b-lora")
    on_gpu, on_cpu = (make_plan(run, 1, 4 * GB, device=device) for device in ("cuda", "cpu"))
    assert on_gpu.reserve_bytes == RESERVE_BYTES > on_cpu.reserve_bytes > 0
    assert any("quantize" in change.setting for change in on_gpu.changes)
    assert on_cpu.changes
    for changed in followed(on_cpu):
        check_device(changed, "cpu")


@pytest.mark.parametrize(
    ("settings", "assumed", "said"),
    [
        (["batches.max_tokens=7600"], {}, "has 7,690 tokens and batches.max_tokens is 7,600: one "),
        (["batches.max_tokens=7600"], {}, "set batches.max_tokens to 7690 or more"),
        (["batches.max_tokens=7690"], {}, None),
        (["batches.max_tiles=9"], {}, "has 10 tiles and batches.max_tiles is 9: one like it is le"),
        (["batches.max_text_tokens=300"], {}, "has 400 text tokens and batches.max_text_tokens is"),
        (["batches.max_tokens=2600"], {"tiles": 3}, None),
        (["batches.max_tokens=2600"], {"tiles": 3.5}, "has 2,952 tokens and"),
        ([], {"text_tokens": 2049}, "has 2,049 text tokens and"),
        ([], {"tiles": 11, "text_tokens": 2048}, None),
        ([], {"tiles": 12}, None),
        ([], {"tiles": 15}, "has 15 tiles and"),
        (["batches.max_tiles=9", "batches.too_long=error"], {}, "one like it counts as broken"),
        (["batches.max_tiles=9", "batches.too_long=fewer_tiles"], {}, "one like it is shrunk, or"),
    ],
)
def test_a_sample_that_no_row_holds(
    settings: list[str], assumed: dict[str, float], said: str | None
) -> None:
    run = run_of("llama-3.2-1b-stage2", *settings)
    config = planning.architecture(run.model)
    assert isinstance(config, AlignVLMConfig)
    found = left_out(config, run, **assumed)
    if said is None:
        assert found == ()
    else:
        (sentence,) = found
        assert sentence.startswith("A sample of bigdocs, as assumed, ") and said in sentence


def test_each_source_is_looked_at() -> None:
    """The mean of a mixture may fit where most of its samples do not."""
    run = run_of("llama-3.2-3b-vcr", "batches.max_tokens=7300")
    made = make_plan(run, 8, 80 * GB)
    assert made.samples.visual_tokens + made.samples.text_tokens < 7300
    assert ["docdownstream" in warning for warning in made.warnings] == [True]
    assert made.to_dict()["warnings"] == list(made.warnings)


def test_another_maker_s_rows_have_a_limit_on_text_alone() -> None:
    run = run_of("base-vlm-stage2", "batches.max_tokens=2048", "batches.max_tiles=1")
    assert left_out(None, run) == ()
    short = run_of("base-vlm-stage2", "batches.max_text_tokens=300")
    assert "400 text tokens" in left_out(None, short)[0]
