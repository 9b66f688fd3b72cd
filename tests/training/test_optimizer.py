from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import tiny_vlm as tiny
import torch
from torch.utils._foreach_utils import _get_fused_kernels_supported_devices

from alignvlm.connectors import registry
from alignvlm.model.document_encoder import DocumentEncoder, DocumentEncoderConfig
from alignvlm.training import optimizer
from alignvlm.training.configuration import LoraConfig, Rates
from alignvlm.training.loop import train
from alignvlm.training.models import _add_lora
from alignvlm.training.optimizer import make_optimizer, trained_parts
from alignvlm.training.tracking import read_log
from alignvlm.training.vlm import part_of

RATES = Rates(vision=1e-5, connector=1e-3, llm=1e-4)


def groups_of(task: Any, **options: Any) -> dict[str, dict[str, Any]]:
    """The optimizer's group of every trained parameter, by its name."""
    names = {p: name for name, p in task.module.named_parameters() if p.requires_grad}
    settings = tiny.config(learning_rate=1e-3, weight_decay=0.1, **options)
    optimizer = make_optimizer(task, names, settings)
    found = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert names[parameter] not in found
            found[names[parameter]] = group
    assert found.keys() == set(names.values())
    return found


@pytest.mark.parametrize("connector", registry.available())
def test_norms_biases_and_gains_are_not_decayed(connector: str) -> None:
    task = tiny.make_task(model=tiny.make_model(connector), rates=RATES, max_tokens=4096)
    for name, group in groups_of(task).items():
        owner = task.module.get_submodule(name.rpartition(".")[0])
        is_gain = name.endswith(".bias") or "Norm" in type(owner).__name__
        assert group["weight_decay"] == (0.0 if is_gain else 0.1), name


def test_aligns_gain_and_bias() -> None:
    """Decay would pull the gain back to where the softmax is flat."""
    found = groups_of(tiny.make_task(rates=RATES))
    assert found["model.connector.norm_v.weight"]["weight_decay"] == 0.0
    assert found["model.connector.norm_v.bias"]["weight_decay"] == 0.0
    assert found["model.connector.w2.weight"]["weight_decay"] == 0.1


def test_the_document_encoders_own() -> None:
    """Convolutions hold no gain of more than one dimension that would be taken for a matrix."""
    encoder = DocumentEncoder(DocumentEncoderConfig(tile_px=64))
    for name, parameter in encoder.named_parameters():
        assert (parameter.ndim > 1) == (name.endswith(".weight") and "norm" not in name), name


def test_each_part_has_its_rate() -> None:
    found = groups_of(tiny.make_task(rates=RATES))
    rates = {(part_of(name), round(group["factor"] * 1e-3, 9)) for name, group in found.items()}
    assert rates == {("vision", 1e-5), ("connector", 1e-3), ("llm", 1e-4)}
    assert found["model.vision_model.post_layernorm.bias"]["betas"] == (0.9, 0.98)


def test_the_table_of_what_trains() -> None:
    task = tiny.make_task(rates=Rates(connector=1e-3, llm=1e-4))
    table = {part.part: part for part in trained_parts(task, tiny.config(learning_rate=1e-3))}
    sizes = {part: 0 for part in ("vision", "connector", "llm")}
    for name, parameter in task.module.named_parameters():
        sizes[part_of(name)] += parameter.numel()
    assert {part: row.num_parameters for part, row in table.items()} == sizes
    assert [table[p].num_trained for p in sizes] == [0, sizes["connector"], sizes["llm"]]
    assert [table[p].learning_rate for p in sizes] == [None, 1e-3, pytest.approx(1e-4)]
    gains = sum(
        p.numel() for n, p in task.module.named_parameters() if "connector" in n and p.ndim < 2
    )
    assert table["connector"].num_decayed == sizes["connector"] - gains


def test_adapters_alone_train_in_the_language_model() -> None:
    pytest.importorskip("peft")
    model = tiny.make_model()
    _add_lora(model, LoraConfig(rank=2, alpha=4))
    task = tiny.make_task(model=model, rates=Rates(connector=1e-3, llm=1e-4))
    table = {part.part: part for part in trained_parts(task, tiny.config())}
    adapters = sum(p.numel() for name, p in model.named_parameters() if "lora_" in name)
    assert table["llm"].num_trained == adapters == table["llm"].num_decayed


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_trains_is_float32(dtype: torch.dtype) -> None:
    """A step of 1e-5 of a weight vanishes in bfloat16; what is frozen keeps its type."""
    model = tiny.make_model().to(dtype)
    head = model.lm_head.weight
    task = tiny.make_task(model=model, rates=Rates(connector=1e-3))
    kinds = {(part_of(name), p.dtype) for name, p in task.module.named_parameters()}
    assert kinds == {("vision", dtype), ("llm", dtype), ("connector", torch.float32)}
    again = tiny.make_task(model=model, rates=Rates(connector=1e-3, llm=1e-4))
    assert again.module.lm_head.weight is again.module.get_input_embeddings().weight is head


@pytest.mark.parametrize(
    ("name", "part"),
    [("model.vision_model.embeddings.patch_embeddings.projection.weight", "vision"),
     ("vision_tower.embeddings.patch_embeddings.projection.bias", "vision"),
     ("language_projection.weight", "connector"), ("qformer.layer.0.weight", "connector"),
     ("model.connector.modality_projection.proj.weight", "connector"),
     ("model.visual.deepstack_merger_list.0.norm.weight", "connector"),
     ("model.vision_tower.transformer.layers.0.attention.o_proj.weight", "vision"),
     ("model.language_model.layers.3.cross_attn.q_proj.weight", "llm")],
)  # fmt: skip
def test_parts_of_other_models(name: str, part: str) -> None:
    """A ViT's patches go through a "projection" that is no connector."""
    assert part_of(name) == part


def test_one_kernel_on_a_gpu_alone() -> None:
    """What is checked on a CPU is bit-equal with its plain AdamW."""
    parameters = {torch.nn.Parameter(torch.ones(2)): "x"}
    assert make_optimizer(tiny.make_task(), parameters, tiny.config()).defaults["fused"] is None
    on_meta = {torch.nn.Parameter(torch.ones(2, device="meta")): "x"}
    assert make_optimizer(tiny.make_task(), on_meta, tiny.config()).defaults["fused"] is None


def test_a_run_goes_on_with_the_other_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch has AdamW in one kernel for CPUs too: begun with one of the two, ended with the other.

    A first gradient near zero is a step of full size under either sign: losses tell, weights not.
    """
    assert torch.device("cpu").type in _get_fused_kernels_supported_devices()
    train(tiny.make_task(), tiny.config(), tmp_path / "whole")
    plain = [record["loss"] for record in read_log(tmp_path / "whole")]
    for first in (set(), {"cpu"}):
        run = tmp_path / f"first-{len(first)}"
        for kinds, stop in ((first, 3), ({"cpu"} - first, None)):
            monkeypatch.setattr(optimizer, "_FUSED", kinds)

            def on_step(step: int, stop: int | None = stop) -> None:
                if step == stop:
                    signal.raise_signal(signal.SIGTERM)

            train(tiny.make_task(), tiny.config(), run, on_step=on_step)
        losses = [record["loss"] for record in read_log(run)]
        assert losses == pytest.approx(plain, rel=1e-4) and len(losses) == 6
