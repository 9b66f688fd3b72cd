"""VLMEvalKit's data sets and scorers on any model that `alignvlm eval` takes.

    python -m alignvlm.evaluation.harness.vlmevalkit MODEL --data DocVQA_VAL ChartQA_TEST

VLMEvalKit cannot be told of a model from outside, so this command takes the two steps of its own
command, the answers and their evaluation, with a model of ours. Prompts, files, scores and going on
after an interruption are VLMEvalKit's; so is what `PRED_FORMAT`, `LMUData` and its other
environment variables do.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import ssl
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from alignvlm.data.images import FileImage
from alignvlm.errors import AlignVLMError, MissingDependencyError, UsageError
from alignvlm.evaluation.benchmarks import BENCHMARKS, rule_of
from alignvlm.evaluation.benchmarks.tsv_home import TsvHome
from alignvlm.evaluation.models import EvaluatedModel, open_model
from alignvlm.evaluation.question import Prompt
from alignvlm.files import write_atomically

__all__ = ["evaluate", "main", "tls_as_it_was", "to_prompt"]

_DIALECT: Final = "vlmevalkit-2026.08"
_MAX_NEW_TOKENS: Final = 128
_RECORD: Final = "alignvlm.json"


def evaluate(
    model: EvaluatedModel,
    data: str,
    folder: Path,
    *,
    name: str,
    max_new_tokens: int | None = None,
    limit: int | None = None,
    judge: str = "exact_matching",
) -> Any:
    """Answer a data set of VLMEvalKit and score the answers, both by VLMEvalKit.

    Args:
        model: is asked one question at a time, as VLMEvalKit does.
        data: VLMEvalKit's name of a data set.
        folder: for VLMEvalKit's files; with answers of the same model in it, those are kept.
        name: of the model, for the files' names.
        max_new_tokens: most tokens of an answer; None: as many as `alignvlm eval` allows for the
            same data set, 128 for one that it does not know.
        limit: the first so many questions; None: all.
        judge: VLMEvalKit's name of the model that judges answers, where the data set has one judge.

    Returns:
        What VLMEvalKit's `evaluate` of the data set returns: a table or a mapping.

    Raises:
        MissingDependencyError: VLMEvalKit, or what it needs to write answers, is not installed.
        UsageError: there is no such data set, it is one of videos or of several turns, the folder
            holds answers of another model, PRED_FORMAT is "json", or there are several processes.
        AlignVLMError: the model cannot answer a question; started again, the command goes on.
    """
    _check_surroundings()
    with tls_as_it_was():
        from vlmeval.dataset import build_dataset
        from vlmeval.inference import infer_data_job
        from vlmeval.smp import get_pred_file_path
    dataset = build_dataset(data)
    if dataset is None:
        raise UsageError(
            f"VLMEvalKit has no data set {data!r}: look for its name in `vlmutil dlist all`"
        )
    if dataset.MODALITY == "VIDEO" or dataset.TYPE == "MT":
        raise UsageError(f"{data} asks about videos or in several turns: choose another data set")
    most = max_new_tokens or _usual_limit(data)
    _keep_apart(folder, data, {**model.describe(), "max_new_tokens": str(most)})
    dataset.data = dataset.data.iloc[:limit]
    infer_data_job(_asked_by_vlmeval(model, most), str(folder), name, dataset)
    return dataset.evaluate(get_pred_file_path(str(folder), name, data), model=judge)


def to_prompt(message: Sequence[Mapping[str, str]], data: str, max_new_tokens: int) -> Prompt:
    """What VLMEvalKit asks, as evaluation here has it.

    Args:
        message: parts of type "text" and "image"; the value of an image is its path.
        data: name of the data set.
        max_new_tokens: most tokens of the answer.
    """
    images = tuple(FileImage(part["value"]) for part in message if part["type"] == "image")
    return Prompt(
        question_id="/".join([data, *(Path(image.path).stem for image in images[:1])]),
        parts=tuple(
            {"type": "image"}
            if part["type"] == "image"
            else {"type": "text", "text": part["value"]}
            for part in message
        ),
        images=images,
        max_new_tokens=max_new_tokens,
    )


def _asked_by_vlmeval(model: EvaluatedModel, max_new_tokens: int) -> Any:
    """The model as VLMEvalKit calls one."""
    from vlmeval.vlm.base import BaseModel

    class Asked(BaseModel):
        INTERLEAVE = True
        allowed_types = ("text", "image")

        def generate_inner(
            self, message: Sequence[Mapping[str, str]], dataset: str | None = None
        ) -> str:
            return model.answer([to_prompt(message, dataset or "", max_new_tokens)])[0].text

    return Asked()


@contextmanager
def tls_as_it_was() -> Iterator[None]:
    """Importing vlmeval turns the checking of certificates off for the whole process."""
    create = ssl._create_default_https_context
    try:
        yield
    finally:
        ssl._create_default_https_context = create


def _check_surroundings() -> None:
    purpose = "answer VLMEvalKit's data sets"
    if find_spec("vlmeval") is None:
        raise MissingDependencyError("vlmeval", purpose, command="pip install ms-vlmeval")
    written_as = os.environ.get("PRED_FORMAT", "").lower() or "xlsx"
    # Without it VLMEvalKit writes a pickle and then looks for the table that it did not write.
    if written_as == "xlsx" and find_spec("xlsxwriter") is None:
        raise MissingDependencyError("xlsxwriter", purpose)
    if written_as == "json":
        raise UsageError(
            "PRED_FORMAT is json, which VLMEvalKit writes but cannot score: set it to tsv or xlsx"
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("This command is for one process: use `alignvlm eval` for several")


def _usual_limit(data: str) -> int:
    """Tokens that `alignvlm eval` allows for an answer to the same file's questions."""
    for benchmark in BENCHMARKS.values():
        for home in benchmark.homes:
            if isinstance(home, TsvHome) and f"{data}.tsv" in home.md5:
                return rule_of(benchmark, _DIALECT)[1].max_new_tokens
    return _MAX_NEW_TOKENS


def _keep_apart(folder: Path, data: str, asked: Mapping[str, str]) -> None:
    """VLMEvalKit keeps answers that it finds, whoever gave them, so whose they are is written."""
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / f"{data}-{_RECORD}"
    text = json.dumps(asked, indent=2, sort_keys=True) + "\n"
    if record.is_file() and record.read_text(encoding="utf-8") != text:
        raise UsageError(
            f"{folder} holds answers to {data} of another model or length: choose another "
            "--work-dir or --name"
        )
    write_atomically(record, text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m alignvlm.evaluation.harness.vlmevalkit",
        description="Answer and score data sets with VLMEvalKit.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "model", help='what `alignvlm eval` takes: a folder, a Hub id, "default" ...'
    )
    parser.add_argument("--data", nargs="+", required=True, help="VLMEvalKit's names of data sets")
    parser.add_argument("--work-dir", type=Path, default=Path("outputs"), help="for the results")
    parser.add_argument("--name", help="of the model, for the files; its last part unless given")
    parser.add_argument("--limit", type=int, help="the first so many questions of each data set")
    parser.add_argument(
        "--max-new-tokens", type=int, help="of an answer; as `alignvlm eval` allows"
    )
    parser.add_argument("--judge", default="exact_matching", help="VLMEvalKit's name of a judge")
    parser.add_argument("--device", help="cpu, cuda, ...; the fastest unless given")
    parser.add_argument("--dtype", help="float32, bfloat16 or float16")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status: 0, 1 an item that failed, 2 misuse."""
    options = _parser().parse_args(arguments)
    name: str = options.name or re.split(r"[/#]", options.model.rstrip("/"))[-1]
    try:
        _check_surroundings()
        model = open_model(options.model, device=options.device, dtype=options.dtype)
        for data in options.data:
            found = evaluate(
                model, data, options.work_dir / name, name=name, judge=options.judge,
                max_new_tokens=options.max_new_tokens, limit=options.limit,
            )  # fmt: skip
            print(f"{data}\n{found}", flush=True)
    except AlignVLMError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
