"""More results of the official code than were recorded for us.

`official.jsonl` was made by running the toolkits' own functions, at the commits that the golden
rows name, on random edge cases; `tokens.jsonl` by spaCy 3.8 (`spacy.blank("en")`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignvlm.evaluation import GOLDEN_NAMES, metric_names, score
from alignvlm.evaluation.scorers import MEASURES
from alignvlm.evaluation.scorers.letters import letter_classes
from alignvlm.evaluation.scorers.token_rules import RULES
from alignvlm.evaluation.scorers.tokens import is_url, tokenize

HERE = Path(__file__).parent


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (HERE / name).read_text(encoding="utf-8").split("\n")[:-1]]


BY_METRIC: dict[str, list[dict[str, Any]]] = defaultdict(list)
for _row in rows("official.jsonl"):
    BY_METRIC[_row["metric"]].append(_row)


@pytest.mark.parametrize("metric", sorted(BY_METRIC))
def test_metric_is_the_official_one(
    metric: str, scorers_near: Callable[[Any, Any, float], bool]
) -> None:
    for row in BY_METRIC[metric]:
        found = score(metric, row["prediction"], row["answers"], **row.get("options", {}))
        value = found.parts[row["part"]] if "part" in row else found.value
        assert scorers_near(value, row["expected"], 1e-9), row


def test_there_are_results_of_every_dialect_that_has_code() -> None:
    recorded = {*BY_METRIC, *(GOLDEN_NAMES[row["metric"]].metric for row in rows("golden.jsonl"))}
    ours = {name for name in metric_names() if not name.endswith(("@strict", "+pipeline"))}
    # A judge's replies are compared through mmvet_judge_parse, and its prompts by their hashes.
    assert ours - recorded == {f"mmvet@{dialect}" for dialect in MEASURES["mmvet"]}


def test_tokens_are_those_of_spacy() -> None:
    for row in rows("tokens.jsonl"):
        assert tokenize(row["text"]) == row["tokens"]


def test_tokens_of_much_text_are_those_of_an_installed_spacy() -> None:
    spacy = pytest.importorskip("spacy")
    reference = spacy.blank("en")
    for row in rows("tokens.jsonl") + rows("official.jsonl"):
        text = str(row.get("text", row.get("prediction")))
        assert tokenize(text) == [token.text for token in reference(text)]


NO_SURROGATES = (*range(0xD800), *range(0xE000, 0x110000))


def digest(found: Any) -> str:
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:32]


def test_rules_are_those_of_spacy() -> None:
    """The digests are of what spaCy makes of each of its exceptions."""
    assert len(RULES) == 1343
    assert digest(RULES) == "91198138f860d1a2dd2d96fe1396dfe2"


@pytest.mark.parametrize(
    ("number", "digest_of_spacy"),
    [
        (0, "d03a9fb6b0edbd4ff6ac47ead56b4c97"),
        (1, "071c2e570cf892bdc88a0fe4b2de78ec"),
        (2, "e12956b8dcfe8eceaebdabe888e5c441"),
    ],
)
def test_letters_are_those_of_spacy(number: int, digest_of_spacy: str) -> None:
    letter = re.compile(f"[{letter_classes()[number]}]")
    assert digest([code for code in NO_SURROGATES if letter.match(chr(code))]) == digest_of_spacy


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("a(:>", ["a", "(:", ">"]),
        ("a : ) b", ["a", ":", ")", "b"]),
        ("fX.Yz", ["fX.Yz"]),
        ("–Xx—", ["–", "Xx", "—"]),
        ("xX", ["xX"]),
        ("f'.'z", ["f'", ".", "'z"]),
        ("(a.m.", ["(", "a.m."]),
        ("((a.m.", ["(", "(", "a.m."]),
        ("a.m.)", ["a.m.", ")"]),
        ("(a.m.)", ["(", "a.m.", ")"]),
        ("……", ["…", "…"]),
        ("(……", ["(", "……"]),
        ("x……", ["x", "……"]),
        ("US$5", ["US$", "5"]),
        ("5US$", ["5", "US$"]),
        ("(US$", ["(", "US$"]),
        ("C$5", ["C$", "5"]),
        ("A$", ["A$"]),
        ("x :):", ["x", ":", "):"]),
        (":)):", [":))", ":"]),
        (":(:)", [":", "(:", ")"]),
        (">:(:", [">:(", ":"]),
        ("(:(:", ["(", ":(", ":"]),
        ("8-)))", ["8-)", ")", ")"]),
        (";_;_;", [";_;", "_", ";"]),
        ("o.o.O", ["o.o", ".", "O"]),
        ("v.v.v", ["v.v.v"]),
        ("a.m..", ["a.m", ".."]),
        ("5a.m.", ["5", "a.m."]),
        ("DOG'S", ["DOG", "'S"]),
        ("dog’s", ["dog", "’s"]),
        ("DOG’S", ["DOG", "’S"]),
        ("dog's", ["dog", "'s"]),
        ("he's", ["he", "'s"]),
        ("5°C.", ["5", "°", "C", "."]),
        ("Xkm", ["Xkm"]),
        (":(>_<)=", [":", "(>_<)", "="]),
        ("he'll've", ["he", "'ll", "'ve"]),
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
