"""Cases on the page: the same question, every run's answer, right and wrong marked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from alignvlm.evaluation.reporting.markup import percent, section
from alignvlm.evaluation.reporting.pictures import Pictures
from alignvlm.evaluation.reporting.text import shortened
from alignvlm.markup import as_html

__all__ = ["cases_section"]

_KINDS = {"disagreeing": "The runs disagree", "worst": "The worst answered"}
_SIGNS = {"right": "✓", "partly": "~", "wrong": "✗"}
_MOST_QUESTION = 1500
_MOST_ANSWER = 700
_MOST_PARTS = 3000
_MOST_ACCEPTED = 12


def cases_section(
    cases: Sequence[Mapping[str, Any]], pictures: Sequence[Pictures], titles: Mapping[str, str]
) -> str:
    """All cases, by benchmark and kind."""
    made, last = "", ("", "")
    for case, shown in zip(cases, pictures, strict=True):
        at = (case["benchmark"], case["kind"])
        if at[0] != last[0]:
            made += f"<h3>{as_html(titles[at[0]])}</h3>"
        if at != last:
            made += f"<h4>{_KINDS[case['kind']]}</h4>"
        made += _case(case, shown)
        last = at
    return section(
        "cases", "Cases", made,
        "As in the paper's Figures 6 to 9: ✓ right, ~ partly right, ✗ wrong. Which of many equal "
        "cases is shown does not depend on the runs' order.",
    )  # fmt: skip


def _case(case: Mapping[str, Any], shown: Pictures) -> str:
    images = "".join(
        f'<img src="{uri}" alt="Image {place} of the question" loading="lazy">'
        for place, uri in enumerate(shown.uris, start=1)
    )
    remark = f'<p class="soft">{as_html(shown.remark)}</p>' if shown.remark else ""
    group = f" · {as_html(case['group'])}" if case["group"] else ""
    return (
        f'<article class="card case"><div class="images">{images}{remark}</div><div>'
        f'<p class="soft id">{as_html(shortened(case["id"], 120))}{group}</p>'
        f'<p class="question"><bdi>{as_html(shortened(case["question"], _MOST_QUESTION))}</bdi></p>'
        f'<p class="accepted"><span class="soft">Accepted</span> {_accepted(case["answers"])}</p>'
        f"<ul>{''.join(_said(one) for one in case['said'])}</ul></div></article>"
    )


def _accepted(answers: Any) -> str:
    """The accepted answers; how often where one is there several times."""
    if not isinstance(answers, list):
        answers = [answers]
    counts = Counter(one if isinstance(one, str) else _as_json(one) for one in answers)
    shown = [
        f"<q><bdi>{as_html(shortened(text, 300))}</bdi></q>{f' ×{times}' if times > 1 else ''}"
        for text, times in list(counts.items())[:_MOST_ACCEPTED]
    ]
    left = len(counts) - _MOST_ACCEPTED
    return ", ".join(shown) + (f" and {left} more" if left > 0 else "")


def _said(one: Mapping[str, Any]) -> str:
    kind = one["verdict"]
    if one["error"] is not None:
        answer = f'<span class="bad">failed: {as_html(shortened(one["error"], 300))}</span>'
    elif not one["answer"]:
        answer = '<span class="soft">(empty)</span>'
    else:
        answer = f"<bdi>{as_html(shortened(one['answer'], _MOST_ANSWER))}</bdi>"
    cut = "" if one["complete"] or one["error"] is not None else ' <span class="soft">(cut)</span>'
    parts = as_html(shortened(_as_json(one["parts"]), _MOST_PARTS))
    return (
        f'<li class="{kind}"><span class="sign" title="{kind}">{_SIGNS[kind]}</span>'
        f'<span class="who"><bdi>{as_html(one["run"])}</bdi></span>'
        f'<div class="said">{answer}{cut}</div><details><summary>{percent(one["value"])}</summary>'
        f"<pre>{as_html(one['metric'])}\n{parts}</pre></details></li>"
    )


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
