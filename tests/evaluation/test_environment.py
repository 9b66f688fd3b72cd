from __future__ import annotations

import json
import os
import subprocess

import pytest

from alignvlm.evaluation import environment as module
from alignvlm.evaluation.environment import commit, environment


def test_facts_are_there_and_can_be_stored() -> None:
    facts = json.loads(json.dumps(environment()))
    assert facts["machine"]["cores"] == os.cpu_count()
    assert facts["machine"]["threads"] == 1
    assert {"alignvlm", "python", "torch", "transformers"} <= set(facts["versions"])


def test_commit_says_when_the_tree_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"rev-parse": "abc", "status": ""}
    monkeypatch.setattr(module, "_git", lambda folder, *arguments: answers[arguments[0]])
    assert commit() == "abc"
    answers["status"] = " M src/alignvlm/errors.py"
    assert commit() == "abc-dirty"


def test_outside_of_a_checkout_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> str:
        raise subprocess.CalledProcessError(128, "git")

    monkeypatch.setattr(module, "_git", fail)
    assert commit() == "none"
