"""`--set` and JSON: typed by the dataclasses, one sentence for everything that does not fit."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignvlm.errors import ConfigurationError
from alignvlm.training import recipes
from alignvlm.training.configuration import DataPart, RunConfig, check_device
from alignvlm.training.overrides import apply, describe, from_json, to_json

SMOL = recipes.find("smol")()
STAGE_3 = recipes.find("llama-3.2-3b-stage3")()


def get(config: RunConfig, key: str) -> Any:
    found: Any = config
    for name in key.split("."):
        if isinstance(found, tuple):
            found = found[int(name)]
        else:
            found = found[name] if isinstance(found, dict) else getattr(found, name)
    return found


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("rates.llm=1e-5", 1e-5),
        ("rates.vision=none", None),
        ("data.0.path=/x", "/x"),
        ("data.0.path=none", None),
        ("data.0.weight=2", 2.0),
        ("model.connector.name=mlp", "mlp"),
        ("model.connector.gain=3", 3),
        ("model.tiling.max_tiles=4", 4),
        ("model.vision_options.flag=true", True),
        ('model.vision_options={"tile_px": 96}', {"tile_px": 96}),
        ("lora.rank=8", 8),
        ("batches.num_samples=64", 64),
        ("batches.pack=False", False),
        ("optimizer.betas=0.9, 0.99", (0.9, 0.99)),
        ("optimizer.betas=[0.9, 0.99]", (0.9, 0.99)),
        ("trackers=trackio,wandb", ("trackio", "wandb")),
        ("trackers=", ()),
        ("precision=float32", "float32"),
        ("epochs=.5", 0.5),
        ("epochs=2", 2.0),
        ("num_steps=none", None),
        ("recipe=a=b", "a=b"),
    ],
)
def test_values(setting: str, value: Any) -> None:
    found = get(apply(SMOL, [setting]), setting.partition("=")[0])
    assert found == value
    assert type(found) is type(value)


def test_nothing_else_changes() -> None:
    before = dict(describe(SMOL))
    after = dict(describe(apply(SMOL, ["rates.llm=1e-5", "batches.num_samples=64"])))
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {"rates.llm", "batches.num_samples"}
    assert before.keys() == after.keys()


def test_a_group_that_is_not_there_is_made() -> None:
    assert STAGE_3.lora is None
    made = apply(STAGE_3, ["lora.rank=4"])
    assert made.lora is not None and (made.lora.rank, made.lora.alpha) == (4, 32)
    assert apply(made, ["lora=none"]).lora is None


def test_parts_of_the_data_are_added() -> None:
    made = apply(
        STAGE_3, ["data.1.source=vcr", "data.1.path=v", "data.1.weight=1", "data.0.weight=5"]
    )
    assert [(part.source, part.weight) for part in made.data] == [("docdownstream", 5), ("vcr", 1)]


def test_another_connector_drops_the_options_of_the_one_before() -> None:
    assert SMOL.model.connector == {"name": "align", "gain": 4.0}
    made = apply(SMOL, ["model.connector.name=perceiver", "model.connector.depth=2"])
    assert made.model.connector == {"name": "perceiver", "depth": 2}
    data = apply(SMOL, ["data.0.source=messages", "data.0.path=x.jsonl", "data.0.options.split=a"])
    assert data.data[0] == DataPart(source="messages", path="x.jsonl", options={"split": "a"})
    assert apply(SMOL, ["data.0.source=synth"]).data == SMOL.data
    same = apply(SMOL, ["model.connector.name=align"])
    assert same.model.connector == SMOL.model.connector


def test_settings_that_only_fit_together() -> None:
    wanted = ["model.vision=none", "model.llm=none", "model.preset=alignvlm-llama-3.2-1b"]
    for order in (wanted, wanted[::-1]):
        assert apply(SMOL, order).model.preset == "alignvlm-llama-3.2-1b"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["rates.lm=1"], r"setting rates\.lm \(did you mean 'rates\.llm'\?\): rates has vision,"),
        (["num_stepz=1"], r"did you mean 'num_steps'\?\): a run has recipe, model,"),
        (["lora.rank=8.5"], r"lora\.rank is a whole number, not '8\.5'"),
        (["batches.num_samples=many"], "a whole number, not 'many'"),
        (["batches.num_samples=true"], "a whole number, not 'true'"),
        (["batches.pack=yes"], "true or false, not 'yes'"),
        (["epochs=nan"], "epochs is a number, not"),
        (["rates.llm=fast"], "a number or none, not 'fast'"),
        (["precision=float16"], "float32, bfloat16, not 'float16' \\(did you mean 'bfloat16'"),
        (["optimizer.betas=0.9"], "a list of 2 numbers"),
        (["trackers=wandbb"], "trackers must be one of trackio"),
        (["data.3.path=x"], r"no '3': set data\.0, or data\.1 to add one"),
        (["data.x=1"], "data has 1 parts"),
        (["data.1.path=x"], r"data\.1 lacks source"),
        (["seed"], "sets nothing"),
        (["=3"], "sets nothing"),
        (["rates=3"], "a group of settings"),
        (["model.dtype.x=1"], r"model\.dtype is one of float32, bfloat16 and has nothing called"),
        (["model.tiling.max_tiles.z=4"], r"model\.tiling\.max_tiles is 1 and has nothing called"),
        (["data=[]"], "has no data"),
        (["model.preset=x"], r"model\.preset and model\.vision contradict"),
        (["model.pretrained=x"], r"model\.pretrained and model\.vision contradict"),
        (["model.vision=none"], r"model\.llm is set and model\.vision is not"),
        (["model.vision=none", "model.llm=none"], "no model to start from"),
        (["model.connector={}"], "model.connector has no name"),
        (["rates.llm=none"], "rates.llm is none"),
        (["lora=none", "rates.llm=none", "rates.vision=none", "rates.connector=none"],
         "Nothing would train"),
        (["rates.llm=0"], "above 0 and below 1"),
        (["rates.llm=10"], "above 0 and below 1"),
        (["rates.llm=-1e-5"], "above 0 and below 1"),
        (["batches.num_samples=0"], "at least 1"),
        (["batches.max_tokens=100"], "batches.max_text_tokens is 256 and a row holds 100"),
        (["optimizer.betas=0.9,1"], "from 0 to below 1"),
        (["optimizer.warmup_ratio=1"], "from 0 to below 1"),
        (["optimizer.weight_decay=-1"], "0 or above"),
        (["optimizer.clip_norm=inf"], "above 0"),
        (["optimizer.eps=0"], "above 0"),
        (["lora.rank=0"], "lora.rank must be at least 1"),
        (["lora.dropout=1"], "from 0 to below 1"),
        (["lora.targets="], "at least one name"),
        (["lora.quantize=true", "sharding=fsdp2"], "which sharding=fsdp2 cannot spread"),
        (["epochs=0"], "above 0"),
        (["num_steps=0"], "at least 1"),
        (["num_workers=-1"], "at least 0"),
        (["max_bad_share=2"], "from 0 to 1"),
        (["data.0.weight=0"], "above 0"),
        (["data.0.source="], "the name of a source"),
        (["data.0.weight=1", "data.1.source=vcr"], "weight"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence(settings: list[str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        apply(SMOL, settings)
    text = str(caught.value)
    assert "\n" not in text and not text.endswith(".") and "Traceback" not in text


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_taken_or_refused_in_one_sentence(key: str, value: str) -> None:
    try:
        made = apply(SMOL, [f"{key}={value}"])
    except ConfigurationError:
        return
    assert from_json(to_json(made)) == made


KEYS = [key for key, _ in describe(SMOL)]


@given(st.sampled_from(KEYS), st.text(max_size=12) | st.floats().map(str) | st.integers().map(str))
def test_any_value_is_taken_or_refused_in_one_sentence(key: str, value: str) -> None:
    try:
        made = apply(SMOL, [f"{key}={value}"])
    except ConfigurationError as error:
        assert str(error)
        return
    assert from_json(to_json(made)) == made


@pytest.mark.parametrize("name", recipes.names())
def test_what_is_described_can_be_set(name: str) -> None:
    run = recipes.find(name)()
    lines = describe(run)
    assert apply(SMOL, ['model.connector={"name": "align"}']) is not SMOL
    assert apply(run, [f"{key}={value}" for key, value in lines if "connector" not in key]) == run
    assert len(dict(lines)) == len(lines)


def test_json_of_another_shape_is_refused() -> None:
    whole = json.loads(to_json(SMOL))
    for text, said in [
        ("{", "no JSON"),
        ("[]", "no JSON object"),
        (json.dumps(whole | {"extra": 1}), "no setting extra"),
        (json.dumps({k: v for k, v in whole.items() if k != "rates"}), "lacks rates"),
        (json.dumps(whole | {"seed": "0"}), "seed is a whole number"),
        (json.dumps(whole | {"rates": [1]}), "rates is a group of settings"),
        (json.dumps(whole | {"data": {}}), "data is a list"),
        (json.dumps(whole | {"epochs": math.nan}), "epochs is a number"),
    ]:
        with pytest.raises(ConfigurationError, match=said):
            from_json(text)


@pytest.mark.parametrize(
    "settings",
    [["sharding=zero3"], ["lora.quantize=true"], ["model.attention=flash_attention_2"]],
)
def test_what_a_cpu_cannot_do(settings: list[str]) -> None:
    run = apply(SMOL, settings)
    check_device(run, "cuda")
    check_device(SMOL, "cpu")
    with pytest.raises(ConfigurationError, match="GPU"):
        check_device(run, "cpu")
