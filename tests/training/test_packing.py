from __future__ import annotations

import pytest
import tiny_vlm as tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignvlm.training.encoding import Measured
from alignvlm.training.packing import LENGTH_STEP, pack, share_out
from alignvlm.training.task import Share


def size(num_tokens: int, num_tiles: int) -> Measured:
    return Measured(
        ids=(), labels=(), max_tiles=None, num_tokens=num_tokens, num_tiles=num_tiles,
        num_visual_tokens=0, num_supervised=1,
    )  # fmt: skip


SIZES = st.lists(st.builds(size, st.integers(1, 100), st.integers(0, 9)), max_size=40)


@given(SIZES)
def test_every_sample_is_in_one_row_that_holds_it(sizes: list[Measured]) -> None:
    rows = pack(sizes, max_tokens=100, max_tiles=9)
    assert sorted(index for row in rows for index in row) == list(range(len(sizes)))
    for row in rows:
        assert row
        assert sum(sizes[i].num_tokens for i in row) <= 100
        assert sum(sizes[i].num_tiles for i in row) <= 9


@given(SIZES)
def test_no_two_rows_would_fit_into_one(sizes: list[Measured]) -> None:
    """Any-fit packing: the least full rows never fit together, which bounds the waste."""
    rows = pack(sizes, max_tokens=100, max_tiles=9)
    totals = [
        (sum(sizes[i].num_tokens for i in row), sum(sizes[i].num_tiles for i in row))
        for row in rows
    ]
    for number, (tokens, tiles) in enumerate(totals):
        for later in rows[number + 1 :]:
            # The first sample of a later row did not fit into this one as it was then.
            first = sizes[later[0]]
            assert tokens + first.num_tokens > 100 or tiles + first.num_tiles > 9


def test_the_fullest_row_that_has_room_is_taken() -> None:
    sizes = [size(60, 0), size(70, 0), size(30, 0), size(40, 0)]
    assert pack(sizes, 100, 9) == [[1, 2], [0, 3]]


@given(st.lists(st.floats(0.1, 100), max_size=30), st.integers(1, 8))
def test_processes_get_equally_many_rows(costs: list[float], num_processes: int) -> None:
    shares = share_out(costs, num_processes)
    assert len(shares) == num_processes
    assert len({len(share) for share in shares}) == 1
    given_rows = sorted(index for share in shares for index in share if index >= 0)
    assert given_rows == list(range(len(costs)))
    loads = [sum(costs[i] for i in share if i >= 0) for share in shares]
    if costs:
        assert max(loads) - min(loads) <= max(costs) * max(1, len(shares[0]))


def test_costs_are_balanced() -> None:
    shares = share_out([9, 1, 5, 5], 2)
    assert sorted(sum([9, 1, 5, 5][i] for i in share) for share in shares) == [10, 10]


def rows_of(task: object, num_samples: int) -> list:
    config = tiny.config(num_steps=1, batch_size=num_samples)
    return list(task.micro_batches(config, 0, Share()))


@pytest.fixture(scope="module")
def unpacked() -> tuple[float, dict[str, torch.Tensor]]:
    single = tiny.make_task(num_samples=8, pack=False)
    rows = rows_of(single, 8)
    assert len(rows) == 8
    return tiny.gradients(single, rows)


@pytest.mark.parametrize("room", [{"max_tokens": 256}, {"max_tokens": 1024, "max_tiles": 99}])
def test_a_packed_row_is_its_samples_alone(
    room: dict[str, int], unpacked: tuple[float, dict[str, torch.Tensor]]
) -> None:
    """Loss and every gradient, the connector's and encoder's too, whatever the packing."""
    packed = tiny.make_task(num_samples=8, **room)
    rows = rows_of(packed, 8)
    assert len(rows) < 8
    loss, gradients = tiny.gradients(packed, rows)
    assert loss == pytest.approx(unpacked[0], rel=1e-6)
    assert gradients.keys() == unpacked[1].keys()
    largest = max(g.abs().max() for g in unpacked[1].values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            gradient, unpacked[1][name], rtol=1e-4, atol=3e-6 * float(largest)
        )


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_states_are_those_of_each_sample(attention: str) -> None:
    """Last hidden states, position by position, against each sample on its own."""
    task, alone = tiny.make_task(num_samples=6, max_tokens=1024, max_tiles=99), None
    task.module.set_attn_implementation(attention)
    (row,) = rows_of(task, 6)
    alone = tiny.make_task(num_samples=6, pack=False)
    with torch.no_grad():
        together, _ = task._hidden_states(row.tensors)
        starts = (row.tensors["position_ids"][0] == 0).nonzero().flatten().tolist()
        parts = together[0].tensor_split(starts[1:])
        lengths = {}
        for single in rows_of(alone, 6):
            hidden, _ = alone._hidden_states(single.tensors)
            lengths.setdefault(hidden.shape[1], []).append(hidden[0])
    samples = parts[:-1] if row.counts["padding_tokens"] else parts
    assert len(samples) == 6
    for part in samples:
        errors = [(part - hidden).abs().max() for hidden in lengths[len(part)]]
        assert min(errors) < 1e-4


def test_rows_have_few_lengths() -> None:
    rows = rows_of(tiny.make_task(num_samples=8), 8)
    assert {row.tensors["input_ids"].shape[1] % LENGTH_STEP for row in rows} == {0}
    for row in rows:
        counts = row.counts
        positions = counts["text_tokens"] + counts["visual_tokens"] + counts["padding_tokens"]
        assert positions == row.tensors["input_ids"].shape[1]
        assert counts["tiles"] == len(row.tensors.get("pixel_values", ()))


def test_samples_a_step_do_not_depend_on_the_rows() -> None:
    for processes in (1, 2, 3):
        keys = []
        for rank in range(processes):
            task = tiny.make_task(num_samples=5)
            rows = list(
                task.micro_batches(
                    tiny.config(num_steps=2), 1, Share(rank=rank, num_processes=processes)
                )
            )
            assert [row.is_last for row in rows] == [False] * (len(rows) - 1) + [True]
            keys += [key for row in rows for key in row.keys]
        assert sorted(keys) == [f"drawn/row {position}.0" for position in range(5, 10)]
