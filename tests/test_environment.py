from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from alignvlm import environment as module
from alignvlm.environment import commit, environment


def test_facts_are_there_and_can_be_stored() -> None:
    facts = json.loads(json.dumps(environment()))
    assert facts["machine"]["cores"] == os.cpu_count()
    assert facts["machine"]["threads"] == 1
    assert {"alignvlm", "python", "torch", "transformers"} <= set(facts["versions"])


def test_commit_says_when_the_tree_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"ls-files": "environment.py", "rev-parse": "abc", "status": ""}
    monkeypatch.setattr(module, "_git", lambda folder, *arguments: answers[arguments[0]])
    assert commit() == "abc"
    answers["status"] = " M src/alignvlm/errors.py"
    assert commit() == "abc-dirty"


def test_a_repository_around_an_installation_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / ".venv" / "alignvlm"
    package.mkdir(parents=True)
    installed = package / "environment.py"
    installed.write_text("")
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "theirs"], check=True)
    monkeypatch.setattr(module, "__file__", str(installed))
    assert commit() == "none"
    subprocess.run([*git, "add", str(installed)], check=True)
    assert len(commit().removesuffix("-dirty")) == 40


def test_outside_of_a_checkout_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> str:
        raise subprocess.CalledProcessError(128, "git")

    monkeypatch.setattr(module, "_git", fail)
    assert commit() == "none"
