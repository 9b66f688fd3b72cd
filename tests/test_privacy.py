from __future__ import annotations

import pytest

from alignvlm.privacy import without_private


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/jane/data/x, /Users/jane's", "~/data/x, ~'s"),
        ("data=/home/jane:/homes/jane", "data=~:/homes/jane"),
        ("hf_AbCdEfGhIjKlMnOpQrSt sk-1234567890abcdef", "*** ***"),
        ("ghp_1234567890abcdef github_pat_1234567890abcdef", "*** ***"),
        ("hf_short task-1234567890abcdef", "hf_short task-1234567890abcdef"),
        ("https://me:pw@host/d me@host", "https://host/d me@host"),
    ],
)
def test_what_is_private_is_not_shown(text: str, shown: str) -> None:
    assert without_private(text) == shown


def test_the_own_home_is_a_home_wherever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/data/people/jane")
    assert without_private("a/data/people/jane/x, /data/people/janet") == (
        "a~/x, /data/people/janet"
    )
    monkeypatch.setenv("HOME", "/")
    assert without_private("/a/b") == "/a/b"
