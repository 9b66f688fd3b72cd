"""From a `ModelConfig` to a model: what is loaded, what is drawn, and what is refused."""

from __future__ import annotations

import builtins
import shutil
from pathlib import Path
from typing import Any

import foreign_vlm as foreign
import pytest
import tiny_vlm as tiny
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, SiglipVisionConfig

from alignvlm.errors import AlignVLMError, ConfigurationError, MissingDependencyError, WeightsError
from alignvlm.model import presets
from alignvlm.model.processing import AlignVLMProcessor
from alignvlm.training import models
from alignvlm.training.configuration import LoraConfig, ModelConfig, Rates
from alignvlm.training.loop import train
from alignvlm.training.models import build_model, merged_state
from alignvlm.training.task import Share
from alignvlm.training.vlm import part_of


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model with its processor."""
    folder = tmp_path_factory.mktemp("saved")
    model = tiny.make_model()
    model.save_pretrained(folder)
    AlignVLMProcessor.build(tiny.make_tokenizer(), model.config).save_pretrained(folder)
    return folder


def states_equal(ours: Any, theirs: Any) -> bool:
    ours, theirs = ours.state_dict(), theirs.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


class TinyPreset(presets.Preset):
    """The shapes of a preset, made small; ids as Llama 3 has them."""

    def config(self) -> Any:
        return presets.AlignVLMConfig(
            vision_config=SiglipVisionConfig(
                hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                image_size=28, patch_size=14, vision_use_head=False,
            ),
            text_config=LlamaConfig(
                **presets._LLAMA_3 | {"num_key_value_heads": 1, "hidden_size": 4,
                                      "intermediate_size": 8, "num_hidden_layers": 1,
                                      "num_attention_heads": 1, "tie_word_embeddings": True},
            ),
            image_token_id=presets._LLAMA_3_IMAGE_TOKEN_ID,
        )  # fmt: skip


@pytest.fixture
def tiny_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    preset = TinyPreset(llm="meta-llama/none", text_options={})
    monkeypatch.setattr(models, "find_preset", lambda name: preset)


@pytest.mark.usefixtures("tiny_preset")
def test_a_preset_of_random_weights() -> None:
    """Real ids and template, so that speed can be measured without a hub; seeds decide."""
    config = ModelConfig(preset="tiny", random_weights=True, tiling={"max_tiles": 2})
    model, processor = build_model(config, seed=1)
    assert model.config.tiling["max_tiles"] == 2
    again, _ = build_model(config, seed=1)
    other, _ = build_model(config, seed=2)
    assert states_equal(model, again)
    assert not states_equal(model, other)
    question = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "ü?"}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "ja"}]}
    ids, labels = processor.training_text([question, answer])
    assert ids.count(processor.image_token_id) == 1
    learned = [label for label in labels if label != -100]
    assert processor.tokenizer.decode(learned) == "ja<|eot_id|>"
    assert ids[0] == 128_000 and learned[-1] == 128_009


@pytest.mark.usefixtures("tiny_preset")
def test_weights_in_bfloat16() -> None:
    model, _ = build_model(ModelConfig(preset="tiny", random_weights=True, dtype="bfloat16"))
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_stage_two_starts_from_stage_one(saved: Path, tmp_path: Path) -> None:
    """What a run leaves is what the next one starts from, tensor by tensor."""
    first = tiny.make_task(model=build_model(ModelConfig(pretrained=str(saved)))[0])
    train(first, tiny.config(num_steps=2), tmp_path)
    second, processor = build_model(ModelConfig(pretrained=str(tmp_path / "model")))
    assert states_equal(second, first.module)
    assert isinstance(processor, AlignVLMProcessor) and processor.placeholders_per_tile == 4
    assert second.lm_head.weight is second.get_input_embeddings().weight


def test_another_model_is_loaded_too(tmp_path: Path) -> None:
    model, processor = foreign.llava()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, its = build_model(ModelConfig(pretrained=str(tmp_path)))
    assert states_equal(loaded, model)
    assert its.chat_template == processor.chat_template


def test_a_model_that_lacks_weights_is_no_start(saved: Path, tmp_path: Path) -> None:
    """transformers would draw them at random."""
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["model.connector.w1.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError) as raised:
        build_model(ModelConfig(pretrained=str(folder)))
    assert one_line(raised) == (
        f"The weights in {str(folder)!r} lack 1 tensors of the model (first: "
        "model.connector.w1.weight): save or download it again"
    )


def one_line(raised: Any) -> str:
    said = str(raised.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize("missing", ["everything", "config.json", "model.safetensors"])
def test_a_folder_that_holds_no_model(saved: Path, tmp_path: Path, missing: str) -> None:
    folder = tmp_path / "model"
    if missing != "everything":
        shutil.copytree(saved, folder)
        (folder / missing).unlink()
    with pytest.raises(WeightsError, match="No image-text-to-text model can be loaded from") as e:
        build_model(ModelConfig(pretrained=str(folder)))
    one_line(e)


def test_damaged_weights(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="No image-text-to-text model can be loaded from") as e:
        build_model(ModelConfig(pretrained=str(folder)))
    one_line(e)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"connector": {"name": "mlp"}}, 'has model.connector.name="align" and the run asks for "mlp'),
     ({"connector": {"name": "align", "gain": 2.0}}, "has model.connector.gain=4.0 and the run as"),
     ({"tiling": {"max_tiles": 9}}, "has model.tiling.max_tiles=4 and the run asks for 9: set wh"),
     ({"vision_feature_layer": -2}, "has model.vision_feature_layer=-1 and the run asks for -2")],
)  # fmt: skip
def test_a_saved_model_is_what_it_is(saved: Path, settings: dict[str, Any], said: str) -> None:
    """Training another connector than the one that was asked for would waste a week."""
    with pytest.raises(ConfigurationError) as raised:
        build_model(ModelConfig(pretrained=str(saved), **settings))
    assert said in one_line(raised)


def test_what_the_saved_model_has_may_be_said(saved: Path) -> None:
    config = ModelConfig(
        pretrained=str(saved), preset="alignvlm-llama-3.2-1b", tiling={"max_tiles": 4},
        connector={"name": "align", "gain": 4.0},
    )  # fmt: skip
    assert build_model(config)[0].config.connector["name"] == "align"


def test_adapters_are_drawn_by_the_seed(saved: Path) -> None:
    pytest.importorskip("peft")
    config, lora = ModelConfig(pretrained=str(saved)), LoraConfig(rank=2, alpha=6)
    one, again, other = (build_model(config, lora, seed)[0] for seed in (1, 1, 2))
    assert states_equal(one, again) and not states_equal(one, other)


def test_merged_weights_say_what_adapters_said(saved: Path) -> None:
    """W + (alpha / r) B A: the same logits, and names as without adapters."""
    pytest.importorskip("peft")
    config = ModelConfig(pretrained=str(saved))
    model, _ = build_model(config, LoraConfig(rank=2, alpha=6, dropout=0.5))
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    plain, _ = build_model(config)
    ids = torch.arange(10, 30)[None]
    with torch.no_grad():
        before = plain(input_ids=ids).logits
        plain.load_state_dict(merged_state(model, model.state_dict()))
        merged, adapted = plain(input_ids=ids).logits, model.eval()(input_ids=ids).logits
    torch.testing.assert_close(merged, adapted, rtol=1e-4, atol=1e-5)
    assert (merged - before).abs().max() > 0.01


def test_a_layer_that_is_not_there_gets_no_adapter(saved: Path) -> None:
    """Of several names one would be passed over without a word."""
    pytest.importorskip("peft")
    lora = LoraConfig(targets=("q_proj", "v_porj"))
    with pytest.raises(ConfigurationError) as raised:
        build_model(ModelConfig(pretrained=str(saved)), lora)
    assert one_line(raised) == (
        "lora.targets names 'v_porj' (did you mean 'v_proj'?) and no layer of the language model "
        "is called so: choose among down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    )


@pytest.mark.parametrize(
    ("package", "lora", "said"),
    [("bitsandbytes", LoraConfig(quantize=True), "bitsandbytes is needed to hold weights in four"),
     ("peft", LoraConfig(), "peft is needed to train an adapter and is not installed: run `pip")],
)  # fmt: skip
def test_a_package_that_is_missing(
    saved: Path, monkeypatch: pytest.MonkeyPatch, package: str, lora: LoraConfig, said: str
) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **options: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingDependencyError) as raised:
        build_model(ModelConfig(pretrained=str(saved)), lora)
    assert said in one_line(raised)


def test_four_bits_are_read_from_a_saved_model() -> None:
    config = ModelConfig(vision="document-encoder", llm="smollm2-135m")
    with pytest.raises(
        ConfigurationError, match=r"saved model in four bits: set model\.pretrained"
    ):
        build_model(config, LoraConfig(quantize=True))


@pytest.mark.parametrize("attention", ["flash_attention_2", "flash_attention_3"])
def test_an_attention_that_is_not_installed(saved: Path, attention: Any) -> None:
    with pytest.raises(AlignVLMError, match=rf"no model\.attention={attention} with") as raised:
        build_model(ModelConfig(pretrained=str(saved), attention=attention))
    one_line(raised)


def gradients(model: Any, **options: Any) -> dict[str, torch.Tensor]:
    task = tiny.make_task(model=model, **options)
    task.module.train()
    rows = list(task.micro_batches(tiny.config(num_steps=1), 0, Share()))
    return tiny.gradients(task, rows)[1]


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2, dropout=0.3)])
@pytest.mark.parametrize("frozen", [False, True])
def test_recomputing_activations_changes_no_gradient(
    saved: Path, lora: LoraConfig | None, frozen: bool
) -> None:
    """Under dropout too, and through a frozen language model into the connector."""
    if lora is not None:
        pytest.importorskip("peft")
    rates = Rates(connector=1e-3, llm=None if frozen and lora is None else 1e-3)
    found, recomputed = [], []
    for checkpointing in (False, True):
        config = ModelConfig(pretrained=str(saved), gradient_checkpointing=checkpointing)
        model, _ = build_model(config, lora)
        for name, module in model.named_modules():
            real = getattr(module, "_gradient_checkpointing_func", None)
            if real is not None:
                assert real.keywords["use_reentrant"] is False
                module._gradient_checkpointing_func = noting(real, recomputed, name)
        torch.manual_seed(3)
        found.append(gradients(model, rates=rates))
    assert {part_of(name) for name in recomputed} == {"vision", "llm"}
    assert found[0].keys() == found[1].keys()
    assert {part_of(name) for name in found[0]} >= {"connector"}
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-5, atol=1e-7)


def noting(real: Any, noted: list[str], name: str) -> Any:
    def noted_and_done(*args: Any, **options: Any) -> Any:
        noted.append(name)
        return real(*args, **options)

    return noted_and_done


def test_parts_from_the_package_index_without_network() -> None:
    """`smol`'s: the recogniser's trunk and SmolLM2, with the connector's W2 from its head."""
    config = ModelConfig(
        vision="document-encoder", llm="smollm2-135m", vision_options={"tile_px": 64},
        tiling={"max_tiles": 1, "thumbnail": False, "layout": "canvas"},
        connector={"name": "align", "gain": 2.0},
    )  # fmt: skip
    model, processor = build_model(config)
    head = model.lm_head.weight
    assert torch.equal(model.model.connector.w2.weight, head)
    assert processor.placeholders_per_tile == 64 // 8 * 64 // 4
    assert model.config.vision_config.tile_px == 64


def test_options_of_the_encoder_are_checked() -> None:
    """A mistyped one would be taken and never looked at."""
    config = ModelConfig(
        vision="document-encoder", llm="smollm2-135m", vision_options={"tile_pix": 64}
    )
    with pytest.raises(ConfigurationError) as raised:
        build_model(config)
    assert "'tile_pix' (did you mean 'tile_px'?)" in one_line(raised)


def test_options_of_an_encoder_that_has_none(saved: Path) -> None:
    config = ModelConfig(pretrained=str(saved), vision_options={"tile_px": 64})
    with pytest.raises(ConfigurationError, match=r"model\.vision_options are for document-encoder"):
        build_model(config)


def test_random_weights_of_no_preset() -> None:
    config = ModelConfig(vision="a", llm="b", random_weights=True)
    with pytest.raises(ConfigurationError, match=r"model\.random_weights needs model\.preset"):
        build_model(config)
