"""Where a model runs."""

from __future__ import annotations

import pytest
import torch

from alignvlm.errors import UsageError
from alignvlm.inference.hardware import choose_device, choose_dtype, cpu_features, describe


def make_present(monkeypatch: pytest.MonkeyPatch, *, cuda: bool, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_the_fastest(
    cuda: bool, mps: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_present(monkeypatch, cuda=cuda, mps=mps)
    assert choose_device().type == expected
    assert choose_device("cpu").type == "cpu"


@pytest.mark.parametrize(
    ("name", "match"),
    [("tpu", "no device 'tpu'"), ("cuda", "has no device 'cuda': choose auto or cpu")],
)
def test_an_absent_device(name: str, match: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make_present(monkeypatch, cuda=False, mps=False)
    with pytest.raises(UsageError, match=match):
        choose_device(name)


def test_a_numbered_device(monkeypatch: pytest.MonkeyPatch) -> None:
    make_present(monkeypatch, cuda=True, mps=False)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(UsageError, match="like cuda or cuda:1"):
        choose_device("cuda:one")


@pytest.mark.parametrize(
    ("feature", "expected"),
    [("avx512_bf16", torch.bfloat16), ("amx_bf16", torch.bfloat16), ("bf16", torch.bfloat16),
     ("avx512_f", torch.float32), (None, torch.float32)],
)  # fmt: skip
def test_bfloat16_only_where_the_cpu_has_it(
    feature: str | None, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {feature: True, "avx512_fp16": True} if feature else {}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    assert choose_dtype(torch.device("cpu")) is expected
    assert choose_dtype(torch.device("mps")) is torch.float32
    assert cpu_features() == ([feature] if feature else [])


def test_description() -> None:
    threads = torch.get_num_threads()
    unit = "thread" if threads == 1 else "threads"
    assert describe(torch.device("cpu"), torch.float32) == f"cpu ({threads} {unit}, float32)"
    assert describe(torch.device("mps"), torch.float32) == "mps (float32)"
