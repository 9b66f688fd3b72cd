"""A tiny model, questions about drawn pages, and a way to start the real toolkits.

Collected only where both toolkits are installed: `make test-integrations` installs them.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent
NUM_PAGES = 6


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"integrations_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if all(importlib.util.find_spec(name) for name in ("lmms_eval", "vlmeval")):
    load(HERE / "launch.py").mend_torchvision()
else:
    collect_ignore_glob = ["test_*.py"]


@dataclass(frozen=True)
class Asked:
    """A question in the words of a toolkit, and what alignvlm makes of it without the toolkit."""

    image: Path
    question: str
    prompt: str
    answers: list[str]
    text: str
    score: float


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The model under test: random weights, or what ALIGNVLM_TEST_MODEL names."""
    if named := os.environ.get("ALIGNVLM_TEST_MODEL"):
        return named
    from alignvlm.model import AlignVLMProcessor

    tiny = load(HERE.parent / "training" / "tiny_vlm.py")
    folder = tmp_path_factory.mktemp("model") / "tiny"
    model = tiny.make_model()
    model.save_pretrained(folder)
    AlignVLMProcessor.build(tiny.make_tokenizer(), model.config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def ask(model_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Asked]]:
    """The pages' questions, put and scored in a dialect by alignvlm alone."""
    from alignvlm.evaluation import score
    from alignvlm.evaluation.benchmarks import open_questions, put, synthdoc
    from alignvlm.evaluation.models import open_model

    folder = tmp_path_factory.mktemp("pages")

    def asked(dialect: str) -> list[Asked]:
        benchmark = synthdoc(num_pages=NUM_PAGES)
        model = open_model(model_folder, device="cpu", dtype="float32")
        found = []
        for number, question in enumerate(open_questions(benchmark)):
            image = folder / f"{number}.png"
            question.images[0].load().save(image)
            prompt = put(benchmark, question, dialect)
            text = model.answer([prompt])[0].text
            # Random weights know no answer: what they say, nearly, is right every second time.
            answers = [f"{text[:-1]}+", *question.answers] if number % 2 else question.answers
            value = score(f"anls@{dialect}", text, answers).value
            found.append(
                Asked(image, question.text, prompt.parts[-1]["text"], answers, text, value)
            )
        assert len({one.text for one in found}) > 1 < len({one.score for one in found})
        return found

    return asked


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Runs a module or a script with arguments, offline; returns what it wrote to stdout."""
    home = tmp_path_factory.mktemp("home")

    def run(what: object, arguments: Sequence[object], **environment: str) -> str:
        result = subprocess.run(
            [sys.executable, str(HERE / "launch.py"), str(what), *map(str, arguments)],
            env={**os.environ, "HF_HOME": str(home), "HF_DATASETS_OFFLINE": "1", **environment},
            cwd=home, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return run
