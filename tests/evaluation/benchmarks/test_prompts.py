"""Prompts word for word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignvlm.data.images import BytesImage
from alignvlm.errors import InputError, UsageError
from alignvlm.evaluation.benchmarks import BENCHMARKS, find_benchmark, put, rule_of
from alignvlm.evaluation.question import Question
from alignvlm.inference.ask import MAX_NEW_TOKENS

IMAGES = tuple(BytesImage(b"x", str(number)) for number in range(1, 4))
FOUR = {"A": "one", "B": "two"}
SHORT = "Answer the question using a single word or phrase."


def question(text: str = "Who SIGNED it? ", num_images: int = 1, **fields: Any) -> Question:
    given: Mapping[str, Any] = {"answers": ["x"], "measures": ("anls",), **fields}
    return Question(id="7", text=text, images=IMAGES[:num_images], **given)


def asked(name: str, dialect: str, *, one: Question | None = None) -> Any:
    return put(BENCHMARKS[name], one or question(), dialect)


VLM, NEW, LMMS = "vlmevalkit-2025.05", "vlmevalkit-2026.08", "lmms-eval"


@pytest.mark.parametrize(
    ("name", "dialect", "text", "max_new_tokens", "stop"),
    [
        ("docvqa", VLM, f"Who SIGNED it? \n{SHORT}", 128, ()),
        ("docvqa", NEW, f"Who SIGNED it? \n{SHORT}", 128, ()),
        ("docvqa", LMMS, f"Who SIGNED it? \n{SHORT}", 32, ("\n\n",)),
        ("infovqa", LMMS, f"Who SIGNED it? \n{SHORT}", 32, ("\n\n",)),
        ("chartqa", VLM, f"Who SIGNED it? \n{SHORT}", 128, ()),
        (
            "chartqa",
            LMMS,
            "Who SIGNED it? \nAnswer the question with a single word.",
            16,
            ("\n\n",),
        ),
        ("textvqa", VLM, f"Who SIGNED it? \n{SHORT}", 128, ()),
        ("textvqa", LMMS, f"Who signed it? \n{SHORT}", 1024, ("ASSISTANT:",)),
        ("gqa", LMMS, f"Who SIGNED it? \n{SHORT}", 16, ("\n\n",)),
        ("pope", VLM, "Who SIGNED it? ", 128, ()),
        ("pope", LMMS, f"Who SIGNED it?\n{SHORT}", 128, ("\n\n",)),
        ("mmvet", VLM, "Who SIGNED it? ", 512, ()),
        ("vcr_easy", VLM, "Who SIGNED it? ", 128, ()),
        (
            "vcr_hard",
            LMMS,
            "What is the covered texts in the image? Please restore the covered texts without "
            "outputting the explanations.",
            120,
            ("\n\n",),
        ),
        ("klc", VLM, "Who SIGNED it? ", 512, ()),
        ("tabfact", "docowl", "Who SIGNED it? ", 512, ()),
    ],
)
def test_word_for_word(
    name: str, dialect: str, text: str, max_new_tokens: int, stop: tuple[str, ...]
) -> None:
    prompt = asked(name, dialect)
    assert prompt.text == f"<image>\n{text}"
    assert (prompt.max_new_tokens, prompt.stop) == (max_new_tokens, stop)
    assert prompt.images == IMAGES[:1]


def test_choices() -> None:
    one = question("Which?", choices=FOUR, hint="Look up.")
    expected = (
        "<image>\nHint: Look up.\nQuestion: Which?\nOptions:\nA. one\nB. two\n"
        "Please select the correct answer from the options above. \n"
    )
    assert asked("seedbench", VLM, one=one).text == expected
    assert asked("mmmu", NEW, one=one).text == expected
    letter = "Answer with the option's letter from the given choices directly."
    assert asked("seedbench", LMMS, one=one).text == f"<image>\nWhich?\nA. one\nB. two\n{letter}"
    one = question("Which <image 1>?", choices=FOUR)
    assert [part.get("text") for part in asked("mmmu", LMMS, one=one).parts] == [
        "Which", None, f"?\nA. one\nB. two\n\n{letter}",
    ]  # fmt: skip


def test_an_open_question_of_mmmu() -> None:
    one = question("What is in <image 1>?")
    assert asked("mmmu", VLM, one=one).text == "Question: What is in <image>\n?\n"
    assert asked("mmmu", LMMS, one=one).text == f"What is in<image>\n?\n\n{SHORT}"


def arranged(text: str, dialect: str, num_images: int = 3) -> list[str]:
    """Texts and the names of the images in their places."""
    prompt = asked("mmmu", dialect, one=question(text, num_images))
    images = iter(image.name for image in prompt.images)
    return [part["text"] if part["type"] == "text" else f"#{next(images)}" for part in prompt.parts]


def test_images_of_mmmu_in_vlmevalkit() -> None:
    assert arranged("<image 2> or <image 1>", VLM) == ["Question: ", "#2", " or ", "#1", "\n"]
    assert arranged("<image 1> is <image 1>", VLM) == ["Question: ", "#1", " is ", "#1", "\n"]
    assert arranged("none", VLM, 2) == ["#1", "#2", "Question: none\n"]
    with pytest.raises(InputError, match="question '7' names its image 3 but has 2"):
        arranged("<image 3>", VLM, 2)


def test_images_of_mmmu_in_lmms_eval() -> None:
    end = f"\n\n{SHORT}"
    assert arranged("x <image 1> y <image 2> z", LMMS) == ["x", "#1", "y", "#2", f"z{end}"]
    # Sorted, so that they change places; and the text before a mark too many is lost.
    assert arranged("x <image 2> y <image 1> z", LMMS) == ["x", "#1", "y", "#2", f"z{end}"]
    assert arranged("x <image 1> y <image 1> z", LMMS) == ["x", "#1", f"z{end}"]
    assert arranged("none", LMMS) == [f"none{end}"]


@pytest.mark.parametrize(
    ("group", "holds"),
    [("vwtq", "||"), ("vwtq_syn", "||"), ("vtabfact", "only answer True or False"),
     ("fintabnetqa", "$, % or million")],
)  # fmt: skip
def test_tables(group: str, holds: str) -> None:
    one = question("how many?", group=group)
    text = asked("tablevqa", VLM, one=one).text
    assert holds in text
    assert text.endswith(
        f"\n{'Statement' if group == 'vtabfact' else 'Question'}: how many?\nAnswer:"
    )
    assert asked("tablevqa", LMMS, one=one).text == text  # lmms-eval lacks it
    official = asked("tablevqa", "official", one=one).text
    assert official == (text.replace("answer True or False", "answer true or false"))


@given(text=st.text(), hint=st.text(max_size=9))
def test_braces_stay(text: str, hint: str) -> None:
    text = f"{text}{{hint}}{{0}}{{"
    one = question(text, hint=hint)
    assert asked("docvqa", VLM, one=one).parts[1]["text"] == f"{text}\n{SHORT}"


def test_where_a_dialect_has_no_rule_the_first_holds() -> None:
    assert rule_of(BENCHMARKS["klc"], LMMS)[0] == "docowl"
    assert rule_of(BENCHMARKS["docvqa"], "strict")[0] == VLM
    assert rule_of(BENCHMARKS["docvqa"], LMMS)[0] == LMMS
    with pytest.raises(UsageError, match=r"no dialect 'vlmeval': use one of vlme"):
        rule_of(BENCHMARKS["docvqa"], "vlmeval")


def test_plain_questions_are_what_ask_asks() -> None:
    for name, benchmark in BENCHMARKS.items():
        assert rule_of(benchmark, "plain")[0] == "plain"
        prompt = asked(name, "plain")
        assert prompt.text == "<image>\nWho SIGNED it? "
        assert (prompt.max_new_tokens, prompt.stop) == (MAX_NEW_TOKENS, ())
    one = question("Which?", choices=FOUR, hint="Look up.")
    assert asked("mmmu", "plain", one=one).text == (
        "<image>\nHint: Look up.\nWhich?\nA. one\nB. two"
    )
    assert asked("tablevqa", "plain", one=question("Who?", group="vwtq")).text == "<image>\nWho?"


def test_names_of_benchmarks() -> None:
    assert find_benchmark("chartqa") is BENCHMARKS["chartqa"]
    with pytest.raises(UsageError, match=r"'docvqs' \(did you mean 'docvqa'\?\): use one of docv"):
        find_benchmark("docvqs")
    with pytest.raises(UsageError, match="'xxxxxxxx': use one of"):
        find_benchmark("xxxxxxxx")


def test_what_is_not_the_toolkits_own_is_said() -> None:
    for benchmark in BENCHMARKS.values():
        record = benchmark.to_record()
        assert record["name"] == benchmark.name
        for dialect, rule in benchmark.prompts.items():
            if dialect.startswith("vlmevalkit"):
                assert rule.unverified  # at least the limit
    assert not BENCHMARKS["docvqa"].prompts[LMMS].unverified
