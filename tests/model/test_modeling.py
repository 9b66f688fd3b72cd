from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig, GPT2Config

from alignvlm.errors import ConfigurationError, UsageError
from alignvlm.imaging.tiling import TileGrid
from alignvlm.model import AlignVLMForConditionalGeneration, AlignVLMProcessor

Make = Callable[..., AlignVLMForConditionalGeneration]
GREEDY = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}


def batch_of(
    processor: AlignVLMProcessor, conversations: list[Any], padding_side: str = "left"
) -> Any:
    return processor.apply_chat_template(
        conversations,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": padding_side},
    )


@pytest.fixture
def conversations(tiny: SimpleNamespace) -> list[Any]:
    """Five prompts with 0, 1 and 2 images, of different lengths."""
    return [
        tiny.ask("What is the total?", tiny.page(60, 40, 1)),
        tiny.ask("Hi"),
        tiny.ask("Compare both, please.", tiny.page(28, 28, 2), tiny.page(100, 30, 3)),
        tiny.ask("Date?", tiny.page(28, 90, 4)),
        tiny.ask("And who signed this letter at the end?", tiny.page(30, 30, 5)),
    ]


@pytest.mark.parametrize("tied", [True, False])
def test_w2_is_a_copy_of_the_head(make: Make, tied: bool) -> None:
    model = make(tied=tied)
    w2, head = model.model.connector.w2.weight, model.lm_head.weight
    assert torch.equal(w2, head)
    assert w2.data_ptr() != head.data_ptr()
    assert (head is model.get_input_embeddings().weight) is tied


def test_w2_is_made_late_on_the_meta_device(tiny: SimpleNamespace, make: Make) -> None:
    with torch.device("meta"):
        model = AlignVLMForConditionalGeneration(tiny.config())
    assert all(parameter.is_meta for parameter in model.parameters())
    loaded = make()
    model.model.vision_model = loaded.model.vision_model
    model.model.language_model = loaded.model.language_model
    model.tie_weights()
    model.init_connector()
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
    assert torch.equal(model.model.connector.w2.weight, model.lm_head.weight)
    assert torch.equal(model.model.connector.norm_v.weight, torch.full((264,), 4.0))


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_do_not_depend_on_the_batch(
    make: Make,
    processor: AlignVLMProcessor,
    conversations: list[Any],
    size: int,
    side: str,
) -> None:
    model = make()
    alone = [model(**batch_of(processor, [one])).logits[0] for one in conversations]
    for start in range(0, len(conversations), size):
        part = conversations[start : start + size]
        batch = batch_of(processor, part, side)
        logits = model(**batch).logits
        for row, expected in zip(range(len(part)), alone[start:], strict=False):
            kept = logits[row][batch["attention_mask"][row].bool()]
            torch.testing.assert_close(kept, expected, atol=2e-4, rtol=2e-4)


def test_batch_generation_equals_one_by_one(
    make: Make, processor: AlignVLMProcessor, conversations: list[Any]
) -> None:
    model = make()
    batch = batch_of(processor, conversations)
    together = model.generate(**batch, **GREEDY)
    length = batch["input_ids"].shape[1]
    assert torch.equal(together[:, :length], batch["input_ids"])
    for row, one in enumerate(conversations):
        single = batch_of(processor, [one])
        alone = model.generate(**single, **GREEDY)[0, single["input_ids"].shape[1] :]
        assert torch.equal(together[row, length:], alone)


def test_generation_is_the_greedy_choice_of_forward(
    make: Make, processor: AlignVLMProcessor, conversations: list[Any]
) -> None:
    """The cache, and images seen at the first step only, change nothing."""
    model = make()
    inputs = batch_of(processor, conversations[2:3])
    generated = model.generate(**inputs, **GREEDY)
    length = inputs["input_ids"].shape[1]
    images = {name: inputs[name] for name in ("pixel_values", "tile_grids")}
    logits = model(generated, **images).logits[0, length - 1 : -1].detach()
    logits[:, 2] = -torch.inf  # min_new_tokens forbids the end of the turn
    assert torch.equal(logits.argmax(-1), generated[0, length:])


def test_beams_repeat_prompts_not_tiles(
    make: Make, processor: AlignVLMProcessor, conversations: list[Any]
) -> None:
    model = make()
    batch = batch_of(processor, conversations[2:4])
    options = {"num_beams": 3, "num_return_sequences": 3, **GREEDY}
    together = model.generate(**batch, **options)
    assert together.shape[0] == 6
    single = batch_of(processor, conversations[3:4])
    alone = model.generate(**single, **options)
    new = slice(-GREEDY["max_new_tokens"], None)
    assert torch.equal(together[3:, new], alone[:, new])


def test_an_image_changes_the_answer(
    make: Make, processor: AlignVLMProcessor, tiny: SimpleNamespace
) -> None:
    model = make()
    logits = [
        model(**batch_of(processor, [tiny.ask("?", tiny.page(28, 28, seed))])).logits[0, -1]
        for seed in (1, 2)
    ]
    assert (logits[0] - logits[1]).abs().max() > 1e-3


def test_placeholders_without_their_tokens_are_refused(
    make: Make, processor: AlignVLMProcessor, conversations: list[Any]
) -> None:
    inputs = batch_of(processor, conversations[:1])
    inputs["input_ids"] = inputs["input_ids"][:, :10]
    inputs["attention_mask"] = inputs["attention_mask"][:, :10]
    with pytest.raises(UsageError, match="image placeholders and the images need"):
        make()(**inputs)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("connector", ["align", "mlp"])
def test_save_and_load_are_bit_equal(
    make: Make,
    processor: AlignVLMProcessor,
    conversations: list[Any],
    tmp_path: Path,
    tied: bool,
    connector: str,
) -> None:
    model = make(tied=tied, connector={"name": connector})
    with torch.no_grad():  # W2 moves away from the head in training, and must come back as it was
        for parameter in model.model.connector.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    first, second = tmp_path / "first", tmp_path / "second"
    model.save_pretrained(first)
    again, info = AlignVLMForConditionalGeneration.from_pretrained(first, output_loading_info=True)
    assert not any(info.values())
    assert again.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    inputs = batch_of(processor, conversations)
    assert torch.equal(again(**inputs).logits, model(**inputs).logits)
    again.save_pretrained(second)
    for path in first.iterdir():
        assert (second / path.name).read_bytes() == path.read_bytes(), path.name


def test_align_options_survive_saving(make: Make, tmp_path: Path) -> None:
    options = {"name": "align", "gain": 3.0, "vocabulary": list(range(5, 60)), "excluded": [7]}
    model = make(connector=options)
    model.save_pretrained(tmp_path)
    again = AlignVLMForConditionalGeneration.from_pretrained(tmp_path)
    assert again.model.connector.kept_ids.tolist() == list(range(5, 60))
    pixels = torch.randn(1, 3, 28, 28)
    output = [m.get_image_features(pixels, return_intermediates=True) for m in (model, again)]
    probs = [one.intermediates["vocab_probs"] for one in output]
    assert torch.equal(probs[0], probs[1]) and probs[0][..., 2].abs().max() == 0


def test_gradients_reach_every_part(
    make: Make, processor: AlignVLMProcessor, conversations: list[Any]
) -> None:
    model = make(tied=False).train()
    inputs = batch_of(processor, conversations)
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    unused = {"model.vision_model.post_layernorm.weight", "model.vision_model.post_layernorm.bias"}
    without = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    # A key's bias shifts all scores of a query alike: its gradient is zero up to rounding.
    assert {name for name in without if "k_proj.bias" not in name} == unused


def test_gradient_checkpointing_changes_nothing(
    make: Make, processor: AlignVLMProcessor, conversations: list[Any]
) -> None:
    inputs = batch_of(processor, conversations)
    grads = []
    for checkpointing in (False, True):
        model = make().train()
        if checkpointing:
            # Its name from transformers 5.23 on, which warns of the older one.
            new = getattr(model, "activation_checkpointing_enable", None)
            (new or model.gradient_checkpointing_enable)()
            assert model.model.language_model.layers[0].gradient_checkpointing
        model(**inputs, labels=inputs["input_ids"], use_cache=False).loss.backward()
        grads.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-5, rtol=1e-4)


def test_loss_is_the_mean_over_labels(
    make: Make, processor: AlignVLMProcessor, conversations: list[Any]
) -> None:
    model = make()
    inputs = batch_of(processor, conversations[:2])
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    output = model(**inputs, labels=labels)
    rows = output.logits[:, :-1].double().log_softmax(-1)
    targets = labels[:, 1:]
    picked = rows.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)[targets != -100]
    assert output.loss.item() == pytest.approx(-picked.mean().item(), rel=1e-5)
    summed = model(**inputs, labels=labels, num_items_in_batch=torch.tensor(10)).loss
    assert summed.item() == pytest.approx(-picked.sum().item() / 10, rel=1e-5)


def test_logits_to_keep(make: Make, processor: AlignVLMProcessor, conversations: list[Any]) -> None:
    model = make()
    inputs = batch_of(processor, conversations)
    full = model(**inputs).logits
    torch.testing.assert_close(model(**inputs, logits_to_keep=3).logits, full[:, -3:])


def test_bfloat16_stays_close(
    make: Make, processor: AlignVLMProcessor, conversations: list[Any], tiny: SimpleNamespace
) -> None:
    model = make(text_config=tiny.text(initializer_range=0.1))
    inputs = batch_of(processor, conversations)
    expected = model(**inputs).logits
    logits = model.to(torch.bfloat16)(**inputs).logits
    assert logits.dtype == torch.bfloat16
    kept = inputs["attention_mask"].bool()
    error = (logits.float() - expected)[kept].norm() / expected[kept].norm()
    assert error < 0.05
    assert model.generate(**inputs, **GREEDY).shape[0] == 5


def halve(tokens: Tensor, probs: Tensor, grid: TileGrid, embeddings: Tensor) -> Tensor:
    """As many visual tokens as the image has tiles."""
    return tokens[:: len(tokens) // grid.num_tiles]


@pytest.fixture
def condensed(
    make: Make, tiny: SimpleNamespace
) -> tuple[AlignVLMForConditionalGeneration, AlignVLMProcessor]:
    vocabulary = list(range(5, 60))
    config = {"connector": {"name": "align", "gain": 4.0, "vocabulary": vocabulary}}
    model = make(**config, condense={"prune": True})
    model.model.condenser = halve
    return model, AlignVLMProcessor.build(tiny.tokenizer(), model.config)


def test_condensed_rows_have_their_own_lengths(
    condensed: tuple[AlignVLMForConditionalGeneration, AlignVLMProcessor],
    conversations: list[Any],
) -> None:
    model, processor = condensed
    batch = batch_of(processor, conversations)
    assert (batch["input_ids"] == model.config.image_token_id).sum() == len(batch["tile_grids"])
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    output = model(**batch, labels=labels)
    alone = [batch_of(processor, [one]) for one in conversations]
    for row, inputs in enumerate(alone):
        logits = model(**inputs).logits[0]
        torch.testing.assert_close(output.logits[row, -len(logits) :], logits, atol=2e-4, rtol=2e-4)
    sums = [
        model(**inputs, labels=inputs["input_ids"], num_items_in_batch=torch.tensor(1)).loss
        for inputs in alone[1:2]
    ]
    assert torch.isfinite(output.loss) and all(torch.isfinite(one) for one in sums)


def test_condensed_generation_returns_prompt_and_answer(
    condensed: tuple[AlignVLMForConditionalGeneration, AlignVLMProcessor],
    conversations: list[Any],
) -> None:
    model, processor = condensed
    batch = batch_of(processor, conversations)
    together = model.generate(**batch, **GREEDY)
    length = batch["input_ids"].shape[1]
    assert torch.equal(together[:, :length], batch["input_ids"])
    for row, one in enumerate(conversations):
        alone = model.generate(**batch_of(processor, [one]), **GREEDY)
        assert torch.equal(together[row, length:], alone[0, -GREEDY["max_new_tokens"] :])
    output = model.generate(**batch, **GREEDY, num_beams=2, return_dict_in_generate=True)
    assert torch.equal(output.sequences[:, :length], batch["input_ids"])


def test_the_largest_length_counts_the_prompt_s_ids(
    condensed: tuple[AlignVLMForConditionalGeneration, AlignVLMProcessor],
    conversations: list[Any],
) -> None:
    """As without condensing, however many visual tokens come in between."""
    model, processor = condensed
    model.generation_config.eos_token_id = None
    batch = batch_of(processor, conversations[2:3])
    most = batch["input_ids"].shape[1] + 3
    config = GenerationConfig(max_length=most, pad_token_id=0)
    for options in ({"max_length": most}, {"generation_config": config}):
        assert model.generate(**batch, do_sample=False, **options).shape[1] == most
    assert model.generate(**batch, max_length=most, max_new_tokens=1).shape[1] == most - 2
    with pytest.raises(UsageError, match="max_length is 5 and the prompt alone has"):
        model.generate(**batch, max_length=5)


def test_positions_of_placeholders_are_refused_where_images_are_condensed(
    condensed: tuple[AlignVLMForConditionalGeneration, AlignVLMProcessor],
    conversations: list[Any],
) -> None:
    model, processor = condensed
    batch = batch_of(processor, conversations[:1])
    positions = torch.arange(batch["input_ids"].shape[1])[None]
    for call in (model, model.model, model.generate):
        with pytest.raises(UsageError, match="leave position_ids out"):
            call(**batch, position_ids=positions)


def test_tied_tables_of_any_name_are_found(tiny: SimpleNamespace, tmp_path: Path) -> None:
    text = GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=264, n_positions=256)
    model = AlignVLMForConditionalGeneration(tiny.config(text_config=text))
    assert model.lm_head.weight is model.get_input_embeddings().weight
    model.save_pretrained(tmp_path)
    again = AlignVLMForConditionalGeneration.from_pretrained(tmp_path)
    assert again.lm_head.weight is again.get_input_embeddings().weight


def test_heads_that_change_logits_are_refused(tiny: SimpleNamespace) -> None:
    text = tiny.text()
    text.final_logit_softcapping = 30.0
    with pytest.raises(ConfigurationError, match="final_logit_softcapping"):
        AlignVLMForConditionalGeneration(tiny.config(text_config=text))


def test_servers_may_use_any_attention() -> None:
    assert AlignVLMForConditionalGeneration._supports_attention_backend
    assert not AlignVLMForConditionalGeneration._can_compile_fullgraph
    assert AlignVLMForConditionalGeneration._can_set_attn_implementation()
