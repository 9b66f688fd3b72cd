from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alignvlm.analysis.compare import Comparison, Sigma, parse_budgets, parse_sigmas
from alignvlm.analysis.compare.plan import settle
from alignvlm.errors import ConfigurationError
from alignvlm.training.configuration import DataPart, ModelConfig, Rates
from alignvlm.training.overrides import to_json

Make = Callable[..., Comparison]


@pytest.mark.parametrize(
    ("text", "found"),
    [("1k,4k,16k", (1000, 4000, 16_000)), ("64", (64,)), ("1.5K, 500,500", (500, 1500)),
     ("2m", (2_000_000,))],
)  # fmt: skip
def test_budgets(text: str, found: tuple[int, ...]) -> None:
    assert parse_budgets(text) == found


@pytest.mark.parametrize("text", ["", "many", "1kk", "-4", "1e3", "4,,8"])
def test_no_budgets(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no number of samples: write 500,4k"):
        parse_budgets(text)


def test_sigmas() -> None:
    found = parse_sigmas("3, 0.5x")
    assert found == (Sigma(value=3.0), Sigma(value=0.5, relative=True))
    assert [str(sigma) for sigma in found] == ["3", "0.5x"]
    assert parse_sigmas("") == ()
    for wrong in ("x", "0", "-1", "3xx"):
        with pytest.raises(ConfigurationError, match="no positive number"):
            parse_sigmas(wrong)


def test_cells_differ_in_nothing_but_what_they_are_named_by(comparison: Make) -> None:
    made = comparison(variants=("align", "mlp", "perceiver"), rates=(1e-3, 2e-3))
    cells = [cell for variant in made.variants for cell in
             (*made.search(variant), *made.scored(variant, 2e-3))]  # fmt: skip
    assert len({cell.name for cell in cells}) == len(set(cells)) == 3 * (2 * 2 + 1)
    for cell in cells:
        config = made.config(cell)
        assert config.model.connector["name"] == cell.variant
        assert (config.rates.connector, config.seed) == (cell.rate, cell.seed)
        assert config.num_steps == cell.budget // 2
        same = replace(
            config, model=replace(config.model, connector=made.recipe.model.connector),
            rates=made.recipe.rates, seed=0, num_steps=None,
        )  # fmt: skip
        assert to_json(same) == to_json(replace(made.recipe, num_steps=None))


def test_the_recipe_s_options_are_its_own_connector_s(comparison: Make) -> None:
    made = comparison(variants=("align", "perceiver", "mlp"))
    connectors = [dict(made.config(made.search(v)[0]).model.connector) for v in made.variants]
    assert connectors == [
        {"name": "align", "gain": 4.0}, {"name": "perceiver", "depth": 2}, {"name": "mlp"},
    ]  # fmt: skip


def test_a_step_that_is_not_full_is_left_out(comparison: Make) -> None:
    assert comparison(budgets=(7,)).num_steps(7) == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"variants": ("mpl",)}, "did you mean 'mlp'?"),
        ({"variants": ("align+ground",)}, "did you mean 'align+grounded'?"),
        ({"variants": ("mlp+grounded",)}, "no connector 'mlp+grounded'"),
        ({"variants": ()}, "No connector is named"),
        ({"variants": ("mlp", "mlp")}, "'mlp' is named twice"),
        ({"budgets": (1, 4)}, "1 samples is less than one step of 2"),
        ({"budgets": (4, 2)}, "must rise"),
        ({"budgets": ()}, "must rise"),
        ({"rates": (0.0,)}, "not between 0 and 1"),
        ({"rates": ()}, "rate is missing"),
        ({"rates": (1e-3, 1e-3)}, "twice"),
    ],
)
def test_what_is_no_comparison_is_one_sentence(
    comparison: Make, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError) as error:
        comparison(**options)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_recipes_that_cannot_be_compared(comparison: Make) -> None:
    recipe = comparison().recipe
    drawn = recipe.data[0]
    wrong = {
        "set data.1.path=none": replace(recipe, data=(drawn, replace(drawn, path="x.json"))),
        "data.0.source=synth": replace(recipe, data=(DataPart(source="llava", path="x.json"),)),
        "a connector of its own": replace(recipe, model=ModelConfig(pretrained="somewhere")),
        "freezes the connector": replace(recipe, rates=Rates(llm=1e-3)),
    }
    for said, other in wrong.items():
        with pytest.raises(ConfigurationError, match=said):
            comparison(recipe=other)


def test_a_folder_belongs_to_one_comparison(comparison: Make, out: Path) -> None:
    settle(comparison(), out)
    settle(comparison(), out)
    # More of the same may be added: cells that are done stay what they are.
    settle(comparison(variants=("mlp",), budgets=(4, 8), num_seeds=5, rates=(1e-4,)), out)
    with pytest.raises(ConfigurationError, match="another pages: give the same settings"):
        settle(comparison(num_pages=4), out)
    changed = replace(comparison().recipe, num_workers=1, rates=Rates(connector=1e-3, llm=0.5))
    with pytest.raises(ConfigurationError) as error:
        settle(comparison(recipe=changed), out)
    assert "another rates.vision, rates.connector, rates.llm:" in str(error.value)


def test_a_folder_of_something_else_is_left_alone(comparison: Make, out: Path) -> None:
    out.mkdir()
    (out / "thesis.tex").write_text("x")
    with pytest.raises(ConfigurationError, match="holds files and no comparison"):
        settle(comparison(), out)
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_a_damaged_folder_is_named(comparison: Make, out: Path) -> None:
    settle(comparison(), out)
    whole = (out / "comparison.json").read_text("utf-8")
    assert json.loads(whole)["pages"] == 3
    (out / "comparison.json").write_text(whole[:40], "utf-8")
    with pytest.raises(ConfigurationError, match="damaged: choose another folder"):
        settle(comparison(), out)
