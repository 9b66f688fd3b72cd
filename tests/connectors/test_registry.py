from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints

import pytest

from alignvlm.connectors import MLP, Align, Connector, Linear, available, build, register, registry
from alignvlm.errors import ConfigurationError

SIZES = {"vision_dim": 4, "text_dim": 6, "vocab_size": 10}


@pytest.fixture(autouse=True)
def own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(registry, "_classes", dict(registry._classes))


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch):
    def install(**values: str) -> None:
        points = [EntryPoint(name, value, "alignvlm.connectors") for name, value in values.items()]
        monkeypatch.setattr(registry, "entry_points", lambda group: EntryPoints(points))

    return install


class Wide(Linear):
    """A stranger's connector, with an option it cannot do without."""

    def __init__(self, vision_dim: int, text_dim: int, *, factor: int) -> None:
        super().__init__(vision_dim, text_dim * factor)


def test_own_names() -> None:
    assert {"align", "linear", "mlp"} <= set(available())
    assert list(available()) == sorted(available())
    for name, cls in {"align": Align, "linear": Linear, "mlp": MLP}.items():
        assert type(build(name, **SIZES)) is cls


def test_options_arrive() -> None:
    align = build("align", **SIZES, gain=3.0, vocabulary=[1, 2])
    assert isinstance(align, Align)
    assert align.num_words == 2
    assert (align.norm_v.weight == 3).all()


@pytest.mark.parametrize("name", ["Align", "aling", "align ", ""])
def test_names_are_exact(name: str) -> None:
    with pytest.raises(
        ConfigurationError, match="use one of align, c_abstractor, h_reducer, linear, mlp"
    ) as caught:
        build(name, **SIZES)
    assert ("did you mean 'align'" in str(caught.value)) == bool(name)


def test_unknown_options_are_named() -> None:
    with pytest.raises(ConfigurationError, match=r"no option 'gian' \(did you mean 'gain'\?\)"):
        build("align", **SIZES, gian=2.0)
    with pytest.raises(ConfigurationError, match="no option 'gain': it takes no options"):
        build("mlp", **SIZES, gain=2.0)


def test_a_missing_vocabulary_is_named() -> None:
    with pytest.raises(ConfigurationError, match="'align' needs vocab_size"):
        build("align", vision_dim=4, text_dim=6)
    assert isinstance(build("mlp", vision_dim=4, text_dim=6), MLP)


def test_a_registered_class_is_built() -> None:
    register("wide", Wide)
    register("wide", Wide)
    assert "wide" in available()
    assert build("wide", **SIZES, factor=2).text_dim == 12
    with pytest.raises(ConfigurationError, match="needs factor"):
        build("wide", **SIZES)


@pytest.mark.parametrize("name", ["align", "mlp"])
def test_taken_names_stay(name: str) -> None:
    with pytest.raises(ConfigurationError, match="taken"):
        register(name, Wide)


@pytest.mark.parametrize("name", ["Wide", "my-connector", "", "two words"])
def test_names_are_lower_case_identifiers(name: str) -> None:
    with pytest.raises(ConfigurationError, match="lower-case identifier"):
        register(name, Wide)


@pytest.mark.parametrize("cls", [Connector, dict, "alignvlm.connectors:Linear"])
def test_only_complete_connectors_are_registered(cls: type) -> None:
    with pytest.raises(ConfigurationError, match="no complete connector"):
        register("other", cls)


def test_entry_points_are_found_and_loaded_when_asked_for(plugins) -> None:
    plugins(theirs="alignvlm.connectors.mlp:MLP", broken="no_such_module_anywhere:X")
    assert {"theirs", "broken", "align"} <= set(available())
    assert isinstance(build("theirs", **SIZES), MLP)
    with pytest.raises(ConfigurationError, match="no_such_module_anywhere:X cannot be loaded"):
        build("broken", **SIZES)
    with pytest.raises(ConfigurationError, match="taken"):
        register("theirs", Wide)


def test_entry_points_cannot_replace_or_be_anything_else(plugins) -> None:
    plugins(align="alignvlm.connectors.mlp:MLP", odd="collections:OrderedDict")
    assert isinstance(build("align", **SIZES), Align)
    with pytest.raises(ConfigurationError, match="no complete connector"):
        build("odd", **SIZES)
