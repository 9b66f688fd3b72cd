"""What an import may load; each check runs in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

# Run before the code under test: these packages then behave as if they were not installed.
BLOCKER = """
import sys

class Blocker:
    def __init__(self, names):
        self.names = names

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"{fullname} is blocked", name=fullname)

sys.meta_path.insert(0, Blocker(%r))
"""


def run_python(code: str) -> str:
    """Standard output of `code` in a fresh interpreter in which warnings are errors."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def loaded_by(code: str) -> set[str]:
    """Names of the top-level packages that are loaded after `code` ran."""
    report = "import sys; print('|', *{name.partition('.')[0] for name in sys.modules})"
    return set(run_python(f"{code}\n{report}").rpartition("|")[2].split())


def test_the_blocker_blocks() -> None:
    code = BLOCKER % ({"PIL"},)
    assert run_python(code + "\ntry:\n import PIL\nexcept ImportError:\n print('no')") == "no\n"


def test_import_alignvlm_loads_neither_torch_nor_transformers() -> None:
    loaded = loaded_by("import alignvlm; dir(alignvlm)")
    assert "alignvlm" in loaded
    assert not loaded & {"torch", "transformers", "PIL", "numpy", "typer", "rich"}


def test_connectors_need_torch_alone() -> None:
    blocked = {
        "transformers", "PIL", "datasets", "safetensors", "tokenizers", "huggingface_hub",
        "accelerate", "pypdfium2", "typer", "rich", "pydantic",
    }  # fmt: skip
    code = (
        "from alignvlm.connectors import available, build\n"
        "for name in available():\n"
        "    build(name, vision_dim=4, text_dim=4, vocab_size=4)\n"
        "import sys; assert 'alignvlm.model' not in sys.modules"
    )
    loaded = loaded_by(BLOCKER % (blocked,) + f"\n{code}")
    assert "torch" in loaded
    assert not loaded & blocked


@pytest.mark.parametrize("package", ["imaging", "synth"])
def test_pages_are_made_and_read_without_torch(package: str) -> None:
    code = BLOCKER % ({"torch", "transformers"},)
    assert "torch" not in loaded_by(f"{code}\nimport alignvlm.{package}")


@pytest.mark.parametrize("arguments", [["--help"], ["ask", "--help"], ["--version"]])
def test_help_loads_no_torch(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['alignvlm', *{arguments!r}]\n"
        "from alignvlm.cli import main\n"
        "try:\n main()\nexcept SystemExit as stop:\n assert not stop.code, stop.code"
    )
    assert not loaded_by(code) & {"torch", "transformers", "PIL", "numpy"}


def test_every_public_name_has_a_home() -> None:
    import alignvlm

    assert set(alignvlm._HOMES) | {"__version__"} == set(alignvlm.__all__)
    assert set(alignvlm.__all__) <= set(dir(alignvlm))
    for name, home in alignvlm._HOMES.items():
        assert find_spec(home) is not None, home
        assert callable(getattr(alignvlm, name)), name


def test_an_unknown_name_is_an_attribute_error() -> None:
    import alignvlm

    with pytest.raises(AttributeError, match="no attribute 'Alignvlm'"):
        alignvlm.Alignvlm  # noqa: B018
