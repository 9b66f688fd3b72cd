"""A model that answers by rule and a benchmark out of numbers; as a script, runs of both.

The script imports what is heavy once. Then it takes one JSON object a line on stdin:
{"start": [arguments of `main`], "env": {...}, "out": folder} forks a run and prints its process
id, {"wait": process id} prints with which status it ended.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignvlm.errors import AlignVLMError, InputError
from alignvlm.evaluation.benchmarks.record import Benchmark, Home, PromptRule, QuestionSet
from alignvlm.evaluation.models.base import EvaluatedModel
from alignvlm.evaluation.question import Prompt, Question, Reply


class StubSet(QuestionSet):
    """As many questions as the file says, of very different lengths.

    Some rows may be broken, or have other answers or options, by their numbers.
    """

    home = "stub"

    def __init__(self, benchmark: Benchmark, place: Path) -> None:
        self.benchmark, self.where = benchmark, str(place)
        self.facts = json.loads(place.read_text())

    @property
    def digest(self) -> str:
        return self.facts.get("digest", "")

    def __len__(self) -> int:
        return self.facts["num"]

    def question(self, index: int) -> Question:
        if index in self.facts.get("broken", []):
            raise InputError(f"Row {index + 1} of {self.where} is broken: repair it")
        words = "word " * (index * 7 % 23)
        return Question(
            id=f"q{index}",
            text=f"{words}{self.facts.get('text', 'number')} {index}",
            images=(),
            answers=self.facts.get("answers", {}).get(str(index), [str(index * index)]),
            measures=self.benchmark.measures,
            options=self.facts.get("options", {}).get(str(index), {}),
            group="ab"[index % 2] if self.facts.get("groups") else "",
        )


class StubHome(Home):
    kind = "stub"
    remedy = "nowhere"

    def find(self, place: Path) -> Path | None:
        return place if place.is_file() else None

    def open(self, benchmark: Benchmark, place: Path) -> QuestionSet:
        return StubSet(benchmark, place)


def make_benchmark(name: str = "squares", **changes: Any) -> Benchmark:
    rules = {
        "vlmevalkit-2025.05": PromptRule(template="{question}", max_new_tokens=8),
        "lmms-eval": PromptRule(template="{question}\nBriefly.", max_new_tokens=8),
    }
    fields = {
        "name": name, "title": "Squares", "split": "test", "measures": ("exact_match", "anls"),
        "prompts": rules, "homes": (StubHome(),),
    }  # fmt: skip
    return Benchmark(**{**fields, **changes})


class StubModel(EvaluatedModel):
    """Squares the number a question ends with; wrong where it is divisible by three."""

    name = "stub"

    def __init__(
        self,
        batch: int = 4,
        delay: float = 0.0,
        fail: Sequence[str] = (),
        error: type[Exception] = InputError,
    ) -> None:
        self._batch, self.delay, self.fail, self.error = batch, delay, set(fail), error
        self.batches: list[list[str]] = []
        self.device = "cpu"

    @property
    def batch_size(self) -> int:
        return self._batch

    @property
    def asked(self) -> list[str]:
        return [name for batch in self.batches for name in batch]

    def describe(self) -> dict[str, str]:
        return {"kind": "stub", "dtype": "float32", "device": self.device}

    def length(self, prompt: Prompt) -> int:
        return len(prompt.text)

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        self.batches.append([prompt.question_id for prompt in prompts])
        time.sleep(self.delay)
        for prompt in prompts:
            if prompt.question_id in self.fail:
                raise self.error(f"The question {prompt.question_id} is too\nlong: shorten it")
        numbers = [int(prompt.text.replace("\nBriefly.", "").split()[-1]) for prompt in prompts]
        return [
            Reply(text=str(n * n + (n % 3 == 0)), num_tokens=len(str(n)), complete=n % 5 != 0)
            for n in numbers
        ]


def write_data(folder: Path, **facts: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "squares.json"
    path.write_text(json.dumps({"num": 10, **facts}))
    return path


def files(run: Path) -> dict[str, Any]:
    """Everything that a run leaves, without what a repetition changes."""
    found: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        if path.is_dir() or path.name == ".lock":
            continue
        name = str(path.relative_to(run))
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = [{**row, "seconds": 0} for row in rows]
        elif name == "run.json":
            times = {"started": 0, "ended": 0, "num_processes": 0}
            found[name] = {**json.loads(path.read_text()), **times}
        else:
            found[name] = path.read_bytes()
    return found


def main(folder: str, options: dict[str, Any]) -> None:
    """One run.

    Args:
        folder: of the run.
        options: "data": the benchmark's file; "delay": seconds for a batch; "fail": ids; "batch":
            its size; "dies": rank to the number of answers after which that process ends. Or
            "model": folder for one that is asked about "pages" drawn pages, "batch" at a time.
    """
    from alignvlm.evaluation.running import Settings, evaluate_model, open_processes

    if "model" in options:
        return ask_a_model(folder, options)
    dies = options.get("dies", {}).get(os.environ.get("RANK", "0"))

    class Model(StubModel):
        def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
            if dies is not None and len(self.asked) >= dies:
                os._exit(9)
            return super().answer(prompts)

    model = Model(options.get("batch", 4), options.get("delay", 0.0), options.get("fail", []))
    settings = Settings(data={"squares": Path(options["data"])})
    try:
        processes = open_processes("cpu")
        found = evaluate_model(
            model, [make_benchmark()], Path(folder), settings, processes=processes
        )
    except AlignVLMError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
    print(json.dumps({"asked": model.asked, "scores": found}))


def make_model(folder: Path) -> None:
    """A model with weights in a new folder, and in memory what asking it takes."""
    import alignvlm.evaluation.models.own
    import alignvlm.synth.dataset  # noqa: F401

    if folder.exists():
        return
    path = Path(__file__).parents[1] / "conftest.py"
    spec = importlib.util.spec_from_file_location("models_of_the_tests", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.save_model(folder)


def ask_a_model(folder: str, options: dict[str, Any]) -> None:
    """One run of a model with weights over drawn pages."""
    import torch

    from alignvlm.evaluation.benchmarks import synthdoc
    from alignvlm.evaluation.models import open_model
    from alignvlm.evaluation.running import Settings, evaluate_model, open_processes

    torch.set_num_threads(1)
    model = open_model(options["model"], device="cpu", dtype="float32", batch_size=options["batch"])
    drawn = synthdoc(num_pages=options["pages"])
    settings, processes = Settings(max_failed=0), open_processes("cpu")
    found = evaluate_model(model, [drawn], Path(folder), settings, processes=processes)
    print(json.dumps(found))


def fork(arguments: Sequence[Any], env: dict[str, str], out: Path) -> int:
    """A process that does one run, its output in files; it does not outlive 100 seconds."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        signal.alarm(100)
        os.environ.update(env)
        for number, name in ((1, "out"), (2, "err")):
            with (out / name).open("w") as file:
                os.dup2(file.fileno(), number)
        main(*arguments)
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def serve() -> None:
    """Starts runs until stdin ends."""
    import accelerate  # noqa: F401, half a second in every run otherwise
    import torch  # noqa: F401

    for line in sys.stdin:
        asked = json.loads(line)
        if "start" in asked:
            if "model" in asked["start"][1]:
                make_model(Path(asked["start"][1]["model"]))
            said = fork(asked["start"], asked["env"], Path(asked["out"]))
        else:
            said = os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1])
        print(said, flush=True)
    os._exit(0)  # tidying up after torch takes seconds


if __name__ == "__main__":
    serve()
