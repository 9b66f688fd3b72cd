"""A stand-in for VLMEvalKit, as thin as what the driver calls of it.

The driver is tested against the real one in tests/integrations.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FILES = {
    "__init__.py": "import ssl\nssl._create_default_https_context = ssl._create_unverified_context",
    "dataset.py": """
class Frame(list):
    iloc = property(lambda self: self)
    def __getitem__(self, key):
        return Frame(super().__getitem__(key))

class Data:
    MODALITY, TYPE = "IMAGE", "VQA"
    def __init__(self, name):
        self.name = name
        self.data = Frame([("a.png", "one?"), ("b.png", "two?"), ("c.png", "three?")])
        self.MODALITY = "VIDEO" if "Video" in name else "IMAGE"
        self.TYPE = "MT" if "Turns" in name else "VQA"
    def evaluate(self, path, **judge):
        with open(path) as file:
            return {"answers": file.read().split(), **judge}

def build_dataset(name):
    return None if name == "Nothing" else Data(name)
""",
    "smp.py": """
def get_pred_file_path(folder, model, data):
    return f"{folder}/{model}_{data}.txt"
""",
    "inference.py": """
from vlmeval.smp import get_pred_file_path

def infer_data_job(model, folder, name, dataset):
    with open(get_pred_file_path(folder, name, dataset.name), "w") as file:
        for image, text in dataset.data:
            message = [dict(type="image", value=image), dict(type="text", value=text)]
            print(model.generate(message, dataset.name), file=file)
""",
    "vlm/__init__.py": "",
    "vlm/base.py": """
class BaseModel:
    def generate(self, message, dataset=None):
        assert all(part["type"] in self.allowed_types for part in message)
        return self.generate_inner(message, dataset)
""",
}


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "vlmeval"]:
        del sys.modules[name]


@pytest.fixture
def fake_vlmeval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, text in FILES.items():
        path = tmp_path / "site" / "vlmeval" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("PRED_FORMAT", "tsv")
    forget()
    yield
    forget()
