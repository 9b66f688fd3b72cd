"""The page and the Markdown: hostile text stays text, and the same input gives the same bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from alignvlm.errors import InputError
from alignvlm.evaluation.question import Question
from alignvlm.evaluation.reporting import Draws, read_runs, write_report
from alignvlm.evaluation.reporting.text import as_markdown, shortened

WriteRun = Callable[..., Path]
Ask = Callable[[Sequence[Any]], list[Question]]
DRAWS = Draws(num=200)

HOSTILE = (
    "<script>alert(1)</script>", "</div></main></body><img src=x onerror=alert(1)>",
    "\"><svg onload=alert(1)>", "' onmouseover='alert(1)", "<!-- ", "]]>", "</style><style>*{}",
    "\u202eevil\u2066", "\x00\x1b[31m\x07", "\ud800", "| a | b |\n# x", "[a](javascript:alert(1))",
    "&lt;b&gt;", "`code`", "a" * 5000, "javascript:alert(1)", "",
)  # fmt: skip

ALLOWED = {
    "a", "article", "b", "bdi", "body", "circle", "code", "details", "div", "h1", "h2", "h3", "h4",
    "head", "header", "html", "img", "li", "main", "meta", "nav", "ol", "p", "path", "pre", "q",
    "section", "small", "span", "style", "summary", "sup", "svg", "table", "tbody", "td", "th",
    "thead", "title", "tr", "ul",
}  # fmt: skip
VOID = {"meta", "img", "br", "hr", "input", "link"}


class Checked(HTMLParser):
    """Tags are balanced, and nothing runs or is fetched."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), name
            assert name not in ("style", "srcdoc", "action", "formaction")
            if name == "src":
                assert value and re.fullmatch(r"data:image/(png|jpeg);base64,[\w+/=]+", value)
            if name == "href":
                assert value and value.startswith("#")
                self.links.append(value[1:])
            if name == "id":
                self.ids.append(str(value))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError("the page has no comment of its own")


def check(page: str) -> Checked:
    parser = Checked()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    assert set(parser.tags) <= ALLOWED
    assert sorted(parser.ids) == sorted(set(parser.ids)) and set(parser.links) <= set(parser.ids)
    return parser


def hostile_rows(swap: bool) -> list[dict[str, Any]]:
    return [
        {"id": f"{i}{text[:30]}", "answers": [text, "word"], "question": text, "group": text[:40],
         "raw": "word" if swap == bool(i % 2) else text, "complete": False,
         "error": f"it broke {text}" if i == 3 and swap else None,
         "scores": {"anls@due": {"value": float(swap == bool(i % 2)), "parts": {text[:9]: text}}}}
        for i, text in enumerate(HOSTILE)
    ]  # fmt: skip


@pytest.fixture
def hostile(reporting_write: WriteRun) -> list[Path]:
    name = "<b onclick=x>&\"'|`\n[x](y)"
    records = {"docvqa": {"title": "<i>Title</i> | x"}, "x": {"title": "\"'>"}}
    folders = [
        reporting_write(folder, {"docvqa": hostile_rows(swap), "x": hostile_rows(swap)},
                        model=name, dialect="due", records=records, description={"a": "<u>"},
                        prompt_dialect=HOSTILE[swap])
        for folder, swap in (("one", False), ("two", True))
    ]  # fmt: skip
    (folders[1] / "x" / "predictions.jsonl").unlink()
    return folders


def no_data(_: object) -> Any:
    raise InputError("</p><script>gone</script>: put it back")


def test_strangers_text_stays_text(hostile: list[Path], tmp_path: Path) -> None:
    write_report(read_runs(hostile), tmp_path / "out", DRAWS, num_cases=99, open_again=no_data)
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    found = check(page)
    text = "".join(found.text)
    for part in (
        "<script>alert(1)</script>", "onerror=alert(1)", "' onmouseover='", "\u202eevil",
        "␀␛[31m␇", "&lt;b&gt;", "<script>gone</script>", "<u>", "<i>Title</i>",
    ):  # fmt: skip
        assert part in text, part
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", page)
    assert "a" * 1000 not in text.replace("\n", "") or "more characters" in text


def test_the_page_forbids_scripts_and_requests(hostile: list[Path], tmp_path: Path) -> None:
    write_report(read_runs(hostile), tmp_path / "out", DRAWS, open_again=no_data)
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    head = page[: page.index("</head>")]
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', head)
    assert policy
    assert policy[1] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    style = head[head.index("<style>") : head.index("</style>")]
    assert "url(" not in style and "@import" not in style and "<" not in style[7:]
    assert "prefers-color-scheme: dark" in style


def test_markdown_tables_keep_their_columns(hostile: list[Path], tmp_path: Path) -> None:
    write_report(read_runs(hostile), tmp_path / "out", DRAWS, open_again=no_data)
    text = (tmp_path / "out" / "report.md").read_text("utf-8")
    lines = text.splitlines()
    for place, line in enumerate(lines):
        if re.fullmatch(r"\|( -+:? \|)+", line):
            width = line.count("|")
            rows = lines[place - 1 :]
            end = next((n for n, row in enumerate(rows) if not row.startswith("|")), len(rows))
            assert end > 2
            assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows[:end]} == {width}
    assert "<script" not in text.replace("\\<", "")
    assert "](" not in text.replace("\\]", "").replace("](y)", "")


def test_json_is_valid_and_holds_the_answers(hostile: list[Path], tmp_path: Path) -> None:
    write_report(read_runs(hostile), tmp_path / "out", DRAWS, num_cases=99, open_again=no_data)
    content = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    answers = {said["answer"] for case in content["cases"] for said in case["said"]}
    assert {"<!-- ", "[a](javascript:alert(1))", "\ud800"} <= answers
    assert any(answer and answer.endswith(" more characters)") for answer in answers)


def plain_rows(right: int) -> list[dict[str, Any]]:
    return [
        {"id": f"q{i}", "answers": ["word"], "raw": "word" if i % right else "no",
         "group": "even" if i % 2 == 0 else "odd"}
        for i in range(24)
    ]  # fmt: skip


def two_runs(write: WriteRun) -> tuple[list[dict[str, Any]], list[Path]]:
    """The questions of both, and their folders."""
    rows = plain_rows(3)
    return rows, [write("a", {"docvqa": rows}), write("b", {"docvqa": plain_rows(4)})]


def test_the_same_input_gives_the_same_bytes(
    reporting_write: WriteRun, reporting_questions: Ask, tmp_path: Path
) -> None:
    rows, folders = two_runs(reporting_write)
    written = []
    for name in ("first", "second"):
        paths = write_report(
            read_runs(folders), tmp_path / name, DRAWS,
            open_again=lambda _: reporting_questions(rows),
        )  # fmt: skip
        assert [path.name for path in paths] == ["report.json", "report.md", "report.html"]
        written.append([path.read_bytes() for path in paths])
    assert written[0] == written[1]
    seeded = write_report(read_runs(folders), tmp_path / "third", Draws(num=200, seed=1))
    assert seeded[0].read_bytes() != written[0][0]


def test_cases_show_images_answers_and_verdicts(
    reporting_write: WriteRun, reporting_questions: Ask, tmp_path: Path
) -> None:
    rows, folders = two_runs(reporting_write)
    write_report(read_runs(folders), tmp_path / "out", DRAWS, num_cases=3,
                 open_again=lambda _: reporting_questions(rows))  # fmt: skip
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    found = check(page)
    shown = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))["cases"]
    assert found.tags.count("article") == found.tags.count("img") == len(shown) == 6
    assert page.count('<li class="right">') == sum(
        said["verdict"] == "right" for case in shown for said in case["said"]
    )
    assert "✓" in page and "✗" in page and "The runs disagree" in page
    write_report(read_runs(folders), tmp_path / "bare", DRAWS, with_images=False)
    assert "<img" not in (tmp_path / "bare" / "report.html").read_text("utf-8")


def test_a_single_run_has_a_report(reporting_write: WriteRun, tmp_path: Path) -> None:
    folder = reporting_write("only", {"docvqa": plain_rows(3)})
    write_report(read_runs([folder]), tmp_path / "out", DRAWS, num_cases=0)
    found = check((tmp_path / "out" / "report.html").read_text("utf-8"))
    assert "differences" not in found.ids and "cases" not in found.ids
    assert {"table-1", "results", "groups", "method", "runs"} <= set(found.ids)


def test_text_is_made_fit_to_be_shown() -> None:
    assert as_markdown("a|b\nc*d") == "a\\|b c\\*d"
    assert shortened("abcdef", 4) == "abcd … (2 more characters)" and shortened("ab", 2) == "ab"
