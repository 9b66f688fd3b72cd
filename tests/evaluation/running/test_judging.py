from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from stub_run import StubModel

from alignvlm.errors import AlignVLMError, InputError, UsageError
from alignvlm.evaluation import score
from alignvlm.evaluation.question import Prompt, Reply
from alignvlm.evaluation.running.judging import ModelJudge, open_judge


class Grader(StubModel):
    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        self.batches.append([prompt.text for prompt in prompts])
        return [Reply(text="good" if "x = 3" in prompts[0].text[-20:] else "0.5")]


def test_a_model_grades_and_is_asked_once() -> None:
    model = Grader()
    judge = ModelJudge(model)
    found = score("mmvet", "x = -1", ["-1<AND>-5"], question="What is x?", judge=judge)
    assert found.value == 0.5 and len(model.batches) == 1
    assert model.batches[0][0].endswith("What is x? | -1 <AND> -5 | x = -1 | ")
    unclear = score("mmvet", "x = 3", ["-1"], question="What is x?", judge=judge)
    assert unclear.value == 0.0 and unclear.parts["replies"] == ["good"] * 5
    assert len(model.batches) == 2


@pytest.mark.parametrize(
    ("raised", "kind", "said"),
    [(InputError("It is\nlong: cut it"), InputError, "The judge gave no grade: It is"),
     (UsageError("No key: set it"), AlignVLMError, "The judge cannot be asked: No key: set it")],
)  # fmt: skip
def test_a_judge_that_fails(raised: Exception, kind: type[Exception], said: str) -> None:
    """What is wrong with its address or key is wrong for all answers and ends the run."""

    class Failing(StubModel):
        def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
            raise raised

    with pytest.raises(kind, match=said) as told:
        ModelJudge(Failing())("prompt", 0.0)
    assert type(told.value) is kind


def test_judges_by_name(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    path.write_text(json.dumps({"prompt_sha256": "0", "reply": "1.0"}) + "\n")
    with pytest.raises(InputError, match="No reply was recorded"):
        open_judge(str(path))("prompt", 0.0)
    assert isinstance(open_judge("http://localhost:1/v1#judge"), ModelJudge)
    with pytest.raises(UsageError):
        open_judge("http://localhost:1/v1")
    with pytest.raises(InputError, match="There is no judge at"):
        open_judge(str(tmp_path / "away.jsonl"))
