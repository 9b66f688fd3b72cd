"""What processes and workers make of a step together, without starting any but in one test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import tiny_vlm as tiny
import torch
import warm
from hypothesis import given, settings
from hypothesis import strategies as st

from alignvlm.data.mixture import Mixture
from alignvlm.data.sample import DataSource, Sample
from alignvlm.errors import ConfigurationError, InputError, MissingDependencyError, TrainingError
from alignvlm.training import batches as batches_module
from alignvlm.training.batches import MixtureBatches
from alignvlm.training.configuration import BatchConfig
from alignvlm.training.encoding import Encoder
from alignvlm.training.task import MicroBatch, Share

LIMITS = {"num_samples": 7, "max_tokens": 256, "max_tiles": 12, "max_text_tokens": 100}


@pytest.fixture(scope="module")
def processor() -> Any:
    return tiny.AlignVLMProcessor.build(tiny.make_tokenizer(), tiny.make_model().config)


def make(processor: Any, samples: Any = None, **limits: Any) -> MixtureBatches:
    config = BatchConfig(**LIMITS | limits)
    return MixtureBatches(samples or tiny.DrawnSamples(), Encoder(processor, config), config, 10.0)


def steps_of(
    batches: MixtureBatches, num_steps: int, first: int = 0, share: Share | None = None,
    num_workers: int = 0,
) -> list[list[MicroBatch]]:  # fmt: skip
    """Micro-batches by step."""
    steps: list[list[MicroBatch]] = [[]]
    for micro in batches(num_steps, first, share or Share(), num_workers):
        steps[-1].append(micro)
        if micro.is_last:
            steps.append([])
    assert not steps.pop()
    return steps


def together(
    processor: Any, num_processes: int, samples: Any = None, num_steps: int = 2, **limits: Any
) -> list[list[list[MicroBatch]]]:
    """[process][step][row]."""
    return [
        steps_of(make(processor, samples, **limits), num_steps,
                 share=Share(rank=rank, num_processes=num_processes))
        for rank in range(num_processes)
    ]  # fmt: skip


def keys_of(step: Sequence[MicroBatch]) -> list[str]:
    return [key for micro in step for key in micro.keys]


def num_labels(micro: MicroBatch) -> int:
    return int((micro.tensors["labels"][:, 1:] != -100).sum())


@settings(max_examples=15)
@given(
    num_processes=st.integers(1, 5),
    num_samples=st.integers(1, 9),
    max_tokens=st.sampled_from([128, 200, 600]),
    broken=st.frozensets(st.integers(0, 17), max_size=3),
)
def test_processes_share_a_step(
    processor: Any, num_processes: int, num_samples: int, max_tokens: int, broken: frozenset[int]
) -> None:
    """Each sample once, equally many rows, one end, and the weight of everything to all."""
    samples = tiny.DrawnSamples(broken=broken)
    limits = {"num_samples": num_samples, "max_tokens": max_tokens, "too_long": "fewer_tiles"}
    found = together(processor, num_processes, samples, **limits)
    for step in range(2):
        rows = [process[step] for process in found]
        assert len({len(mine) for mine in rows}) == 1
        assert [[row.is_last for row in mine] for mine in rows] == [
            [False] * (len(rows[0]) - 1) + [True]
        ] * num_processes
        positions = range(step * num_samples, (step + 1) * num_samples)
        keys = [key for mine in rows for key in keys_of(mine)]
        assert sorted(keys) == sorted(
            f"drawn/row {position}.{int(position in broken)}" for position in positions
        )
        weights = {row.step_weight for mine in rows for row in mine}
        assert weights == {sum(num_labels(row) for mine in rows for row in mine)}
        for mine in rows:  # all of them know what is broken, the loop counts it once
            bad = {record["key"] for row in mine for record in row.quarantined}
            assert bad == {f"row {p}.0" for p in broken if p in positions}


def by_sample(found: list[list[list[MicroBatch]]]) -> dict[str, Any]:
    """Ids and labels of each sample, wherever it stands."""
    contents = {}
    for process in found:
        for step in process:
            for row in step:
                starts = (row.tensors["position_ids"][0] == 0).nonzero().flatten().tolist()
                ids = row.tensors["input_ids"][0].tensor_split(starts[1:])
                for key, part in zip(row.keys, ids, strict=False):
                    contents[key] = part.tolist()
    return contents


@pytest.mark.parametrize("num_processes", [2, 3])
def test_replacements_are_the_same_for_any_number_of_processes(
    processor: Any, num_processes: int
) -> None:
    samples = tiny.DrawnSamples(broken=frozenset({1, 8}), damaged=frozenset({3, 5, 9, 12}))
    alone = by_sample(together(processor, 1, samples))
    shared = by_sample(together(processor, num_processes, samples))
    assert alone == shared
    assert {key for key in alone if not key.endswith(".0")} > {"drawn/row 1.1", "drawn/row 8.1"}


def test_a_damaged_image_is_replaced_by_a_sample_that_fits(processor: Any) -> None:
    """Its header promised a size and the rows are planned; the next that has room stands in."""
    with_images = [
        p for p in range(14) if tiny.DrawnSamples().read(p).images
    ]  # fmt: skip
    samples = tiny.DrawnSamples(damaged=frozenset(with_images))
    (steps,) = together(processor, 1, samples)
    for step in steps:
        for row in step:
            length = sum(row.counts[f"{kind}_tokens"] for kind in ("text", "visual", "padding"))
            assert length == row.tensors["input_ids"].shape[1] <= 256 + 128
            assert row.counts["text_tokens"] + row.counts["visual_tokens"] <= 256
            assert len(row.tensors.get("pixel_values", ())) == row.counts["tiles"] <= 12
            assert len(row.keys) == row.counts["samples"]
    bad = [record for step in steps for row in step for record in row.quarantined]
    assert {record["key"] for record in bad} == {f"row {p}.0" for p in with_images}
    assert {record["kind"] for record in bad} == {"broken"}
    assert all("is damaged: replace it" in record["reason"] for record in bad)


@pytest.mark.parametrize("num_processes", [1, 3])
def test_a_damaged_sample_keeps_the_weight_it_promised(processor: Any, num_processes: int) -> None:
    """It is known by the process that decodes it alone, and all must divide by the same."""
    clean = together(processor, 1, tiny.DrawnSamples(), num_steps=1)
    damaged = tiny.DrawnSamples(damaged=frozenset(range(7)))
    found = together(processor, num_processes, damaged, num_steps=1)
    promised = {row.step_weight for row in clean[0][0]}
    assert {row.step_weight for process in found for row in process[0]} == promised


class Sizes:
    """Texts of given lengths; one with an image that turns out damaged, and so do the others."""

    def __init__(self, *lengths: int) -> None:
        self.lengths = lengths

    def where(self, position: int, attempt: int = 0) -> tuple[str, str]:
        return "sizes", f"{position}.{attempt}"

    def read(self, position: int, attempt: int = 0) -> Sample:
        length = self.lengths[min(attempt, len(self.lengths) - 1)]
        image = tiny.Drawn(20, 20, 1, damaged=attempt == 0)
        content = [{"type": "image"}, {"type": "text", "text": "q" * length}]
        messages = [
            {"role": "user", "content": content},
            {"role": "assistant", "content": [{"type": "text", "text": "a"}]},
        ]
        return Sample(key=f"k{position}", messages=messages, images=(image,))


def nearly_full(processor: Any) -> dict[str, int]:
    """Room for a question of ten letters and five more."""
    coder = Encoder(processor, BatchConfig(**LIMITS))
    room = coder.measure(Sizes(10).read(0, 1)).num_tokens + 5
    return {"num_samples": 1, "max_tokens": room, "max_text_tokens": room}


def test_what_finds_no_room_is_passed_over(processor: Any) -> None:
    """Of questions of 16 and of 15 letters the first is a letter too long."""
    batches = make(processor, Sizes(10, 16, 15), **nearly_full(processor))
    (row,) = steps_of(batches, 1)[0]
    assert row.keys == ("sizes/0.2",)


def test_a_row_may_lose_a_sample_that_nothing_replaces(processor: Any) -> None:
    batches = make(processor, Sizes(10, 16), **nearly_full(processor))
    (row,) = steps_of(batches, 1)[0]
    assert row.keys == () and num_labels(row) == 0 and row.counts["samples"] == 0
    assert "0.0" in {record["key"] for record in row.quarantined}


@pytest.mark.parametrize("pack", [True, False])
def test_resuming_is_the_tail_of_the_whole(processor: Any, pack: bool) -> None:
    samples = tiny.DrawnSamples(broken=frozenset({9}), damaged=frozenset({16}))
    whole = steps_of(make(processor, samples, pack=pack), 4)
    for first in (1, 3):
        assert_equal(steps_of(make(processor, samples, pack=pack), 4, first), whole[first:])
    assert steps_of(make(processor, samples, pack=pack), 4, 4) == []


def assert_equal(ours: list[list[MicroBatch]], theirs: list[list[MicroBatch]]) -> None:
    assert [len(step) for step in ours] == [len(step) for step in theirs]
    for step, other in zip(ours, theirs, strict=True):
        for a, b in zip(step, other, strict=True):
            assert a.tensors.keys() == b.tensors.keys()
            assert all(torch.equal(value, b.tensors[name]) for name, value in a.tensors.items())
            assert (a.keys, a.counts, a.quarantined, a.is_last, a.step_weight) == (
                b.keys, b.counts, b.quarantined, b.is_last, b.step_weight,
            )  # fmt: skip


@pytest.mark.timeout(200)
def test_workers_change_nothing(processor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """None, one and two, beside the planner's; what they raise is said as if there were none."""
    samples = tiny.DrawnSamples(broken=frozenset({9}), damaged=frozenset({16}))
    none = steps_of(make(processor, samples), 4)
    options = batches_module.worker_options

    def warmer(num_workers: int) -> dict[str, Any]:
        contexts = {"spawn": warm.CONTEXT, None: None}
        asked = options(num_workers)
        return asked | {"multiprocessing_context": contexts[asked["multiprocessing_context"]]}

    monkeypatch.setattr(batches_module, "worker_options", warmer)
    for num_workers in (1, 2):
        assert_equal(steps_of(make(processor, samples), 4, num_workers=num_workers), none)
    broken = make(processor, tiny.DrawnSamples(), max_text_tokens=1, num_samples=1)
    with pytest.raises(TrainingError, match=r"^50 samples one after the other cannot be used"):
        steps_of(broken, 2, num_workers=2)


class Failing:
    """Reading raises what it is told to."""

    def __init__(self, error: Exception, only_first: bool = False) -> None:
        self.error, self.only_first = error, only_first

    def where(self, position: int, attempt: int = 0) -> tuple[str, str]:
        if isinstance(self.error, OSError):
            raise self.error
        return "failing", f"{position}.{attempt}"

    def read(self, position: int, attempt: int = 0) -> Sample:
        if self.only_first and attempt:
            return tiny.DrawnSamples().read(position, attempt)
        raise self.error


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ValueError("absolute aspect ratio"), "ValueError: absolute aspect ratio"),
     (OSError(5, "Input/output error"), r"OSError: [Errno 5] Input/output error"),
     (MemoryError(), "MemoryError: "), (InputError("Row 3 is bad"), "Row 3 is bad")],
)  # fmt: skip
def test_no_sample_ends_a_run(processor: Any, error: Exception, reason: str) -> None:
    """Strangers' data meets strangers' code: whatever it raises, the next one takes its place."""
    (step,) = steps_of(make(processor, Failing(error, only_first=True), num_samples=2), 1)
    bad = [record for row in step for record in row.quarantined]
    assert [record["reason"] for record in bad] == [reason] * 2
    assert sum(row.counts["samples"] for row in step) == 2


@pytest.mark.parametrize(
    "error", [MissingDependencyError("faker", "draw pages"), ConfigurationError("No such kind: x")]
)
def test_what_no_other_sample_would_mend_ends_it(processor: Any, error: Exception) -> None:
    with pytest.raises(TrainingError) as raised:
        steps_of(make(processor, Failing(error)), 1)
    assert str(raised.value) == str(error)


def test_nothing_but_broken_samples(processor: Any) -> None:
    with pytest.raises(TrainingError) as raised:
        steps_of(make(processor, Failing(InputError("Row 3 of 'x' is bad: repair it"))), 1)
    assert str(raised.value) == (
        "50 samples one after the other cannot be used (last: Row 3 of 'x' is bad: repair it): "
        "repair the data, see alignvlm data check"
    )


class Rows(DataSource):
    """Questions with a page or without, some rows broken."""

    def __init__(self, name: str, size: int, broken: frozenset[int] = frozenset()) -> None:
        self.name, self._size, self._broken = name, size, broken

    def __len__(self) -> int:
        return self._size

    def read(self, index: int) -> Sample:
        if index in self._broken:
            raise InputError(f"Row {index + 1} of {self.name} is broken: repair it")
        found = tiny.DrawnSamples().read(index)
        return Sample(key=f"{self.name}:{index + 1}", messages=found.messages, images=found.images)


def test_a_mixture_of_sources(processor: Any) -> None:
    """Over a real mixture: shares, an epoch's every row, replacements from the same source."""
    sources = [(Rows("a", 9, frozenset({2})), 3.0), (Rows("b", 4), 1.0)]
    steps = steps_of(make(processor, Mixture(sources, 1), num_samples=4), 6)
    keys = [key for step in steps for key in keys_of(step)]
    assert sum(key.startswith("a/") for key in keys) == 18
    seen = [int(key.partition(":")[2]) for key in keys if key.startswith("a/")]
    assert set(seen) == set(range(1, 10)) - {3}
    assert all(seen.count(row) in (2, 3, 4) for row in set(seen))
    bad = {(r["source"], r["key"]) for step in steps for row in step for r in row.quarantined}
    assert bad == {("a", "row 3")}


def test_a_source_whose_rows_are_all_broken(processor: Any) -> None:
    source = Rows("a", 3, frozenset({0, 1, 2}))
    with pytest.raises(TrainingError, match="no row left to take the place of a broken one"):
        steps_of(make(processor, Mixture([(source, None)], 1), num_samples=1), 1)
