"""Every recipe: it resolves, survives JSON, and each of its values says where it is from."""

from __future__ import annotations

import ast
import re
import runpy
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from alignvlm.data.sources import SOURCES
from alignvlm.errors import ConfigurationError
from alignvlm.model.presets import PRESETS
from alignvlm.training import configuration, overrides, recipes
from alignvlm.training.configuration import RunConfig

FOLDER = Path(recipes.__file__).parent
FILES = sorted(path for path in FOLDER.glob("*.py") if path.name != "__init__.py")
DEFAULTS = Path(configuration.__file__)
NAMES = recipes.names()

# Table 6, column by column: trains the encoder, batch, text length, epochs, rate.
TABLE_6 = {
    "llama-3.2-1b-stage1": (True, 512, 1024, 1, 0.00001),
    "llama-3.2-1b-stage2": (True, 512, 2048, 1, 0.00005),
    "llama-3.2-1b-stage3": (False, 512, 2048, 5, 0.00005),
    "llama-3.2-3b-stage1": (True, 512, 1024, 1, 0.00001),
    "llama-3.2-3b-stage2": (True, 256, 2048, 1, 0.00005),
    "llama-3.2-3b-stage3": (False, 256, 2048, 5, 0.00005),
    "llama-3.1-8b-stage1": (True, 512, 1024, 1, 0.00001),
    "llama-3.1-8b-stage2": (True, 256, 2048, 1, 0.00001),
    "llama-3.1-8b-stage3": (False, 256, 2048, 5, 0.00001),
}


def run_of(name: str) -> RunConfig:
    return recipes.find(name)()


@pytest.mark.parametrize("name", NAMES)
def test_battery(name: str) -> None:
    run = run_of(name)
    assert run.recipe == name
    assert run == run_of(name)
    assert overrides.from_json(overrides.to_json(run)) == run
    assert all(part.source in SOURCES for part in run.data)
    assert all((part.path is None) == (part.source == "synth") for part in run.data)
    assert run.model.preset is None or run.model.preset in PRESETS


@pytest.mark.parametrize("name", TABLE_6)
def test_table_6(name: str) -> None:
    run = run_of(name)
    vision, size, length, epochs, rate = TABLE_6[name]
    assert run.rates.vision == (rate if vision else None)
    assert (run.rates.connector, run.rates.llm) == (rate, rate)
    assert run.batches.num_samples == size
    assert run.batches.max_text_tokens == length
    assert run.epochs == epochs
    assert run.model.preset == f"alignvlm-{name.rpartition('-')[0]}"
    assert run.model.connector == {"name": "align"}


@pytest.mark.parametrize("llm", ["llama-3.2-1b", "llama-3.2-3b", "llama-3.1-8b"])
def test_each_stage_starts_where_the_one_before_ends(llm: str) -> None:
    one, two, three = (run_of(f"{llm}-stage{number}") for number in (1, 2, 3))
    assert [run.data[0].source for run in (one, two, three)] == [
        "cc12m", "bigdocs", "docdownstream",
    ]  # fmt: skip
    assert one.model.pretrained is None
    assert two.model.pretrained == f"runs/{one.recipe}/model"
    assert three.model.pretrained == f"runs/{two.recipe}/model"


def test_vcr_is_stage_3_on_a_blend() -> None:
    stage_3, vcr = run_of("llama-3.2-3b-stage3"), run_of("llama-3.2-3b-vcr")
    assert [(part.source, part.weight) for part in vcr.data] == [("docdownstream", 5), ("vcr", 1)]
    for name in ("model", "rates", "batches", "optimizer", "epochs"):
        assert getattr(vcr, name) == getattr(stage_3, name)


def test_low_resource() -> None:
    first, second = run_of("low-resource-pretrain"), run_of("low-resource-finetune")
    assert (first.rates.vision, first.rates.connector, first.rates.llm) == (None, 1e-3, None)
    assert (second.rates.vision, second.rates.connector, second.rates.llm) == (2e-6, 1e-5, 1e-5)
    assert (first.batches.num_samples, second.batches.num_samples) == (8 * 32, 8 * 8)
    assert (first.epochs, second.epochs) == (1, 1)
    assert second.model.pretrained == "runs/low-resource-pretrain/model"


def test_a_sample_of_the_greatest_length_fits_into_a_row() -> None:
    for name in NAMES:
        run = run_of(name)
        if run.model.preset is not None:
            tiles = run.model.tiling["max_tiles"] + run.model.tiling["thumbnail"]
            longest = tiles * 729 + run.batches.max_text_tokens
            assert longest <= run.batches.max_tokens, name
            assert run.batches.max_tiles * 729 <= run.batches.max_tokens, name


def test_one_card() -> None:
    lora, qlora = run_of("llama-3.2-3b-lora"), run_of("llama-3.2-3b-qlora")
    assert lora.lora is not None and qlora.lora is not None
    assert not lora.lora.quantize and qlora.lora.quantize
    assert lora.sharding == qlora.sharding == "none"


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("llama-3.2-1b-stag1", "llama-3.2-1b-stage1"), ("smoll", "smol"), ("LORA", None)],
)
def test_an_unknown_name_is_one_sentence(wrong: str, meant: str | None) -> None:
    with pytest.raises(ConfigurationError) as caught:
        recipes.find(wrong)
    text = str(caught.value)
    assert wrong in text and "smol" in text and "\n" not in text
    assert (f"did you mean {meant!r}?" in text) == (meant is not None)


def comments(path: Path) -> tuple[dict[int, str], dict[int, str]]:
    """Comments by line: behind code, and on lines of their own."""
    with path.open("rb") as file:
        tokens = list(tokenize.tokenize(file.readline))
    found = [token for token in tokens if token.type == tokenize.COMMENT]
    alone = {t.start[0]: t.string for t in found if t.line.lstrip().startswith("#")}
    return {t.start[0]: t.string for t in found if t.start[0] not in alone}, alone


def values(tree: ast.AST) -> Iterator[ast.expr]:
    """What is given by keyword to a call, or by key in a dictionary, and is no call itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            # Names are passed on, not chosen, and a call explains its own arguments.
            found = [(keyword.arg or "", keyword.value) for keyword in node.keywords]
        elif isinstance(node, ast.Dict):
            found = [
                (str(getattr(k, "value", "")), v)
                for k, v in zip(node.keys, node.values, strict=True)
            ]
        else:
            continue
        for name, value in found:
            passed_on = isinstance(value, ast.Name | ast.Attribute) and not isinstance(
                node, ast.Dict
            )
            inside = isinstance(value, ast.Call | ast.Dict | ast.Tuple) and any(
                isinstance(inner, ast.Call | ast.Dict) for inner in ast.walk(value)
            )
            if name in ("recipe", "name", "preset", "pretrained", "source", "path", "frozen",
                        "kw_only", "column") or passed_on or inside:  # fmt: skip
                continue
            yield value


def defaults(tree: ast.AST) -> Iterator[ast.expr]:
    """Of the fields of classes; None, () and the defaults of another class choose nothing."""
    for node in ast.walk(tree):
        for field in node.body if isinstance(node, ast.ClassDef) else ():
            if not isinstance(field, ast.AnnAssign) or field.value is None:
                continue
            value = field.value
            if isinstance(value, ast.Call):
                given = [keyword.value for keyword in value.keywords]
                yield from (one for one in given if not isinstance(one, ast.Name))
            elif ast.unparse(value) not in ("None", "()"):
                yield value


@pytest.mark.parametrize("path", [*FILES, DEFAULTS], ids=lambda path: path.name)
def test_every_value_is_followed_by_where_it_is_from(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    behind, alone = comments(path)
    found = list((defaults if path == DEFAULTS else values)(tree))
    assert len(found) >= (25 if path == DEFAULTS else 10)
    for value in found:
        line = value.end_lineno or 0
        text = behind.get(line, "")
        while line + 1 in alone:
            line += 1
            text += " " + alone[line]
        quoted = re.search(r'"[^"]{3,}"', text)
        reason = re.search(r"not stated: \w.{3,}", text)
        assert quoted or reason, f"{path.name}:{line}"


@pytest.mark.parametrize("path", [*FILES, DEFAULTS], ids=lambda path: path.name)
def test_what_is_not_stated_has_a_reason(path: Path) -> None:
    behind, alone = comments(path)
    bare = [
        line for line in (*behind.values(), *alone.values()) if re.search(r"not stated\W*$", line)
    ]
    assert not bare


def test_the_documentation_names_every_recipe() -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text("utf-8")
    for name in NAMES:
        named = f"`{name}`" in page or f"`-{name.rpartition('-')[2]}`" in page
        assert named or name.rpartition("-")[0] in page, name


def test_the_documentation_s_python_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        script = tmp_path / "page.py"
        script.write_text(block, "utf-8")
        runpy.run_path(str(script))
    assert capsys.readouterr().out == "64 5e-05\n"


def test_the_documentation_s_settings_apply() -> None:
    docs = Path(__file__).parents[2] / "docs"
    pages = "".join((docs / name).read_text("utf-8") for name in ("training.md", "data.md"))
    commands = re.findall(r"^\$ alignvlm (?:plan|train) ([a-z]\S+)(.*)$", pages, re.MULTILINE)
    assert len(commands) >= 6
    for name, options in commands:
        overrides.apply(run_of(name), re.findall(r"--set (\S+)", options))
