"""What is imported when, and that lmms-eval finds the model by what the package declares."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[3]


def test_nothing_of_ours_imports_a_toolkit() -> None:
    code = (
        "import sys, alignvlm, alignvlm.cli, alignvlm.evaluation.harness.entry\n"
        "import alignvlm.evaluation.harness.vlmevalkit, alignvlm.evaluation.running\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert not set(result.stdout.split()) & {"lmms_eval", "vlmeval", "torch", "transformers"}


def test_the_entry_point_leads_to_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = project["entry-points"]["lmms_eval.models"]
    assert set(declared) == {"alignvlm"}
    point = EntryPoint("alignvlm", declared["alignvlm"], "lmms_eval.models")
    fake = SimpleNamespace(ModelManifest=SimpleNamespace)
    for name in ("lmms_eval", "lmms_eval.models", "lmms_eval.models.registry_v2"):
        monkeypatch.setitem(sys.modules, name, fake)  # type: ignore[arg-type]
    found = point.load()()
    assert found.model_id == "alignvlm"
    module, _, name = found.chat_class_path.rpartition(".")
    path = ROOT / "src" / Path(*module.split(".")).with_suffix(".py")
    assert f"class {name}(" in path.read_text(encoding="utf-8")
