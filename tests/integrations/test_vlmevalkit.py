"""VLMEvalKit, as installed, asks a model of ours about a data set of ours and scores it."""

from __future__ import annotations

import base64
import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

DIALECT = "vlmevalkit-2026.08"
DATA = "DocVQA_PAGES"  # VLMEvalKit takes the metric from the name

# The driver as `python -m` starts it, after a data set was added as VLMEvalKit's page on
# development says, and with a look at what importing vlmeval leaves behind.
SCRIPT = f"""
import ssl, sys
from alignvlm.evaluation.harness import vlmevalkit

checking = ssl._create_default_https_context
with vlmevalkit.tls_as_it_was():
    from vlmeval.dataset import ImageVQADataset
    assert ssl._create_default_https_context is not checking
ImageVQADataset.DATASET_URL["{DATA}"] = ""
status = vlmevalkit.main(sys.argv[1:])
assert ssl._create_default_https_context is checking
sys.exit(status)
"""


@pytest.fixture(scope="module")
def expected(ask: Callable[..., list[Any]]) -> list[Any]:
    return ask(DIALECT)


@pytest.fixture(scope="module")
def data_home(expected: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What LMUData names: one TSV file with the images inside."""
    folder = tmp_path_factory.mktemp("lmu")
    with (folder / f"{DATA}.tsv").open("w", newline="") as file:
        table = csv.writer(file, delimiter="\t")
        table.writerow(["index", "image", "question", "answer"])
        for number, one in enumerate(expected):
            image = base64.b64encode(one.image.read_bytes()).decode()
            table.writerow([number, image, one.question, str(one.answers)])
    return folder


def test_predictions_and_scores_are_ours(
    data_home: Path, expected: list[Any], model_folder: str, start: Callable[..., str],
    tmp_path: Path,
) -> None:  # fmt: skip
    script = tmp_path / "drive.py"
    script.write_text(SCRIPT)
    arguments = [model_folder, "--data", DATA, "--work-dir", tmp_path, "--name", "ours",
                 "--device", "cpu", "--dtype", "float32"]  # fmt: skip
    # Not xlsx, its default: there a control character comes back as "_x0012_".
    printed = start(script, arguments, LMUData=str(data_home), PRED_FORMAT="tsv")
    folder = tmp_path / "ours"
    table = pd.read_csv(folder / f"ours_{DATA}.tsv", sep="\t", dtype=str, keep_default_na=False)
    assert list(table["prediction"]) == [one.text for one in expected]
    assert "Overall" in printed
    with (folder / f"ours_{DATA}_acc.csv").open() as file:
        overall = float(next(csv.DictReader(file))["Overall"])
    assert overall == pytest.approx(100 * sum(one.score for one in expected) / len(expected))
