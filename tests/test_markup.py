from __future__ import annotations

import pytest

from alignvlm.markup import as_html, clean, html_table, markdown_table


def test_text_is_made_fit_to_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/data/jane")
    assert clean(f"/data/jane/x https://me:pw@host hf_{'a' * 20}") == "~/x https://host ***"
    assert clean("a\x00b\r\nc\td\x7f") == "a␀b\nc\td␡"
    assert clean("\ud800") == "?" and clean(7) == "7"
    assert as_html("<&\"'") == "&lt;&amp;&quot;&#x27;"
    assert as_html("/data/jane<") == "~&lt;"


def test_a_table_has_columns_of_words_and_of_numbers() -> None:
    assert html_table(("<run>", "#score"), [["<b>a</b>", "1"], ["b", "2"]]) == (
        '<div class="card wide"><table><thead><tr><th scope="col">&lt;run&gt;</th>'
        '<th scope="col" class="number">score</th></tr></thead><tbody>'
        '<tr><td><b>a</b></td><td class="number">1</td></tr>'
        '<tr><td>b</td><td class="number">2</td></tr></tbody></table></div>'
    )


def test_a_table_without_rows_is_nothing() -> None:
    assert html_table(("run",), []) == ""


def test_a_table_in_markdown() -> None:
    assert markdown_table(("run", "#score"), [["**a**", "1"], ["b", "2"]]) == (
        "| run | score |\n| --- | ---: |\n| **a** | 1 |\n| b | 2 |"
    )


def test_rows_are_as_wide_as_the_head() -> None:
    with pytest.raises(ValueError, match="shorter"):
        html_table(("run", "#score"), [["a"]])
