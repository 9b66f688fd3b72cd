from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    GPTJConfig,
    LlamaForCausalLM,
    SiglipConfig,
    SiglipModel,
    SiglipVisionModel,
)

from alignvlm.errors import ConfigurationError, WeightsError
from alignvlm.model import AlignVLM, AlignVLMForConditionalGeneration, DocumentEncoderConfig


def same(left: torch.nn.Module, right: torch.nn.Module) -> bool:
    ours, theirs = left.state_dict(), right.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.fixture
def llm_folder(tiny: SimpleNamespace, tmp_path: Path) -> Path:
    """A language model with its tokenizer."""
    torch.manual_seed(1)
    model = LlamaForCausalLM(tiny.text())
    model.generation_config.eos_token_id = [2, 0]
    model.save_pretrained(tmp_path / "llm")
    tiny.tokenizer().save_pretrained(tmp_path / "llm")
    return tmp_path / "llm"


@pytest.fixture
def siglip_folder(tiny: SimpleNamespace, tmp_path: Path) -> Path:
    """A dual encoder with a pooling head, as on the Hub."""
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "vocab_size": 20}
    text |= {"num_attention_heads": 2, "projection_size": 16}
    vision = tiny.vision(vision_use_head=True).to_dict()
    SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(
        tmp_path / "siglip"
    )
    return tmp_path / "siglip"


def test_from_folders(llm_folder: Path, siglip_folder: Path) -> None:
    model = AlignVLM.build(vision=str(siglip_folder), llm=llm_folder, connector={"gain": 2.0})
    llm = AutoModelForCausalLM.from_pretrained(llm_folder)
    vision = SiglipVisionModel.from_pretrained(siglip_folder)
    assert same(model.model.language_model, llm.model)
    assert torch.equal(model.lm_head.weight, llm.lm_head.weight)
    assert same(model.model.vision_model, vision)
    assert not hasattr(model.model.vision_model, "head")
    connector = model.model.connector
    assert torch.equal(connector.w2.weight, llm.lm_head.weight)
    assert connector.norm_v.weight.unique().tolist() == [2.0]
    assert model.config.image_token_id == 3
    assert model.generation_config.eos_token_id == [2, 0]
    assert not model.training


@pytest.mark.parametrize("tied", [True, False])
def test_built_models_are_whole_and_save(tiny: SimpleNamespace, tmp_path: Path, tied: bool) -> None:
    """R6: nothing stays on meta, W2 is the head, and no key is missing or left over."""
    llm = LlamaForCausalLM(tiny.text(tie_word_embeddings=tied))
    model = AlignVLM.build(vision=tiny.vision(), llm=llm, image_token_id=3)
    assert model.model.language_model is llm.model
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
    w2 = model.model.connector.w2.weight
    assert torch.equal(w2, model.lm_head.weight) and w2 is not model.lm_head.weight
    assert (model.lm_head.weight is model.get_input_embeddings().weight) is tied
    model.save_pretrained(tmp_path)
    again = AlignVLM.from_pretrained(tmp_path)
    assert isinstance(again, AlignVLMForConditionalGeneration)
    assert same(model, again)


def test_on_the_meta_device_w2_waits(tiny: SimpleNamespace) -> None:
    with torch.device("meta"):
        model = AlignVLM.build(vision=tiny.vision(), llm=tiny.text(), image_token_id=3)
    assert all(parameter.is_meta for parameter in model.parameters())


def test_dtype_and_connector_by_name(tiny: SimpleNamespace) -> None:
    model = AlignVLM.build(
        vision=tiny.vision(),
        llm=tiny.text(),
        connector="mlp",
        image_token_id=3,
        dtype=torch.bfloat16,
    )
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert type(model.model.connector).__name__ == "MLP"


def test_other_backbones(tiny: SimpleNamespace) -> None:
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    options = {"vision_feature_layer": -2, "tiling": {"max_tiles": 4}}
    model = AlignVLM.build(vision=vision, llm=tiny.text(), image_token_id=3, **options)
    ids = torch.tensor([[3, 3, 3, 3, 20]])
    assert model(ids, pixel_values=torch.randn(1, 3, 28, 28)).logits.shape == (1, 5, 264)
    assert (model.config.vision_feature_layer, model.config.tiling["max_tiles"]) == (-2, 4)


def test_a_new_image_token_gets_a_row(tiny: SimpleNamespace) -> None:
    llm = LlamaForCausalLM(tiny.text())
    model = AlignVLM.build(vision=tiny.vision(), llm=llm, image_token_id=264)
    assert model.config.text_config.vocab_size == 265
    assert model.model.connector.w2.weight.shape[0] == model.lm_head.weight.shape[0] == 265


def test_a_preset_needs_its_parts(tiny: SimpleNamespace) -> None:
    """The preset's ids are replaced one by one; both given here, nothing is fetched."""
    model = AlignVLM.build(
        "alignvlm-llama-3.2-1b", vision=tiny.vision(), llm=tiny.text(), image_token_id=3
    )
    assert model.config.text_config.hidden_size == 32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "a preset, or both"),
        ({"preset": "nope"}, "no preset 'nope'"),
        ({"vision": None, "llm": "x", "image_token_id": 3}, "a preset, or both"),
    ],
)
def test_misuse_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        AlignVLM.build(**options)


def test_configurations_need_an_image_token(tiny: SimpleNamespace) -> None:
    with pytest.raises(ConfigurationError, match="image_token_id"):
        AlignVLM.build(vision=tiny.vision(), llm=tiny.text())
    model = AlignVLM.build(vision=tiny.vision(), llm=tiny.text(), tokenizer=tiny.tokenizer())
    assert model.config.image_token_id == 3


def test_heads_with_a_bias_are_refused(tiny: SimpleNamespace) -> None:
    llm = GPTJConfig(vocab_size=50, n_embd=32, n_layer=1, n_head=2, rotary_dim=8)
    with pytest.raises(ConfigurationError, match="'gptj' has no linear LM head without bias"):
        AlignVLM.build(vision=tiny.vision(), llm=llm, image_token_id=3)


def test_it_is_no_model_itself() -> None:
    with pytest.raises(ConfigurationError, match=r"AlignVLM\.build"):
        AlignVLM()


@pytest.fixture
def folder(tiny: SimpleNamespace, tmp_path: Path) -> Path:
    model = AlignVLM.build(vision=tiny.vision(), llm=tiny.text(), image_token_id=3)
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors.update(changes)
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, path, metadata={"format": "pt"})


def one_sentence(message: str) -> bool:
    return "\n" not in message and len(message) < 400


W1 = "model.connector.w1.weight"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({W1: None}, f"1 tensors are missing, e.g. {W1}"),
        ({"model.extra": torch.zeros(2)}, "1 tensors are unknown, e.g. model.extra"),
        ({W1: torch.zeros(3, 4)}, "matching shapes"),
    ],
)
def test_weights_must_fit(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit(folder, **changes)
    with pytest.raises(WeightsError, match=message) as caught:
        AlignVLM.from_pretrained(folder)
    assert one_sentence(str(caught.value))


@pytest.mark.parametrize("damage", ["no folder", "no weights", "no config", "cut", "garbage"])
def test_broken_folders_give_one_sentence(folder: Path, damage: str) -> None:
    weights = folder / "model.safetensors"
    if damage == "no weights":
        weights.unlink()
    elif damage == "no config":
        (folder / "config.json").unlink()
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "garbage":
        weights.write_bytes(b"not a model")
    target = folder / "nowhere" if damage == "no folder" else folder
    with pytest.raises(WeightsError, match="No model can be loaded from") as caught:
        AlignVLM.from_pretrained(target)
    assert one_sentence(str(caught.value))


def test_pickles_are_not_read(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError):
        AlignVLM.from_pretrained(folder)


def test_another_kind_of_model_is_named(llm_folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="type 'llama', not an AlignVLM model"):
        AlignVLM.from_pretrained(llm_folder)


def test_backbones_must_be_complete(tiny: SimpleNamespace, llm_folder: Path) -> None:
    edit(llm_folder, **{"model.norm.weight": None})
    with pytest.raises(WeightsError, match=r"missing, e\.g\. model\.norm\.weight"):
        AlignVLM.build(vision=tiny.vision(), llm=llm_folder)
    (llm_folder / "config.json").write_text(json.dumps({"model_type": "unheard-of"}))
    with pytest.raises(WeightsError, match="No model can be loaded"):
        AlignVLM.build(vision=tiny.vision(), llm=llm_folder, image_token_id=3)
    with pytest.raises(WeightsError, match="No model can be loaded"):
        AlignVLM.build(vision=str(llm_folder), llm=tiny.text(), image_token_id=3)


SPELLING: dict[str, Any] = {
    "connector": {"name": "align", "vocabulary": list(range(5, 60))},
    "condense": {"prune": True, "merge": "spell"},
}


def test_a_built_model_that_spells_has_its_tokenizer(
    tiny: SimpleNamespace, llm_folder: Path
) -> None:
    known = AlignVLM.build(vision=tiny.vision(), llm=llm_folder, image_token_id=3, **SPELLING)
    given = AlignVLM.build(
        vision=tiny.vision(), llm=tiny.text(), tokenizer=tiny.tokenizer(), **SPELLING
    )
    for model in (known, given):
        tokenizer = model.model.condenser.tokenizer
        assert tokenizer.decode(tokenizer.encode("a<|im_end|>").ids) == "a<|im_end|>"
        assert 2 not in tokenizer.encode("a<|im_end|>").ids
    unknown = AlignVLM.build(vision=tiny.vision(), llm=tiny.text(), image_token_id=3, **SPELLING)
    assert unknown.model.condenser.tokenizer is None


@pytest.fixture
def spelling_folder(tiny: SimpleNamespace, tmp_path: Path) -> Path:
    model = AlignVLM.build(vision=tiny.vision(), llm=tiny.text(), image_token_id=3, **SPELLING)
    model.save_pretrained(tmp_path / "spelling")
    tiny.tokenizer().save_pretrained(tmp_path / "spelling")
    return tmp_path / "spelling"


def test_every_way_of_loading_brings_the_tokenizer(spelling_folder: Path) -> None:
    whole = AutoModelForImageTextToText.from_pretrained(spelling_folder)
    headless = AutoModel.from_pretrained(spelling_folder)
    ours = AlignVLM.from_pretrained(spelling_folder)
    for condenser in (whole.model.condenser, headless.condenser, ours.model.condenser):
        assert condenser.characters()[:2] == ["!", '"']


def test_the_tokenizer_is_looked_for_where_the_weights_are(
    spelling_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = AlignVLM.from_pretrained(spelling_folder.parent, subfolder=spelling_folder.name)
    assert below.model.condenser.tokenizer is not None
    # As on the Hub, in a cache that the caller names and in a revision that is not the main one.
    repository = spelling_folder.parent / "hub" / "models--someone--something"
    shutil.copytree(spelling_folder, repository / "snapshots" / ("1" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "v2").write_text("1" * 40)
    where = {"cache_dir": repository.parent, "revision": "v2", "local_files_only": True}
    fetched = AlignVLM.from_pretrained("someone/something", **where)
    assert fetched.model.condenser.tokenizer is not None
    (repository / "snapshots" / ("1" * 40) / "tokenizer.json").unlink()
    with pytest.raises(WeightsError, match=r"tokenizer\.json is missing or damaged") as caught:
        AlignVLM.from_pretrained("someone/something", **where)
    assert one_sentence(str(caught.value))


def test_a_document_encoder_takes_any_attention(tiny: SimpleNamespace, tmp_path: Path) -> None:
    vision = DocumentEncoderConfig(tile_px=32, hidden_size=16, num_context_layers=1)
    AlignVLM.build(vision=vision, llm=tiny.text(), image_token_id=3).save_pretrained(tmp_path)
    for name in ("sdpa", "eager"):
        model = AlignVLM.from_pretrained(tmp_path, attn_implementation=name)
        assert model.config.text_config._attn_implementation == name
