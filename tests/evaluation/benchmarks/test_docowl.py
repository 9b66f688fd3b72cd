"""DocDownstream with DUE's metadata: what is asked about which document, and what is true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignvlm.errors import InputError
from alignvlm.evaluation import aggregate, score
from alignvlm.evaluation.benchmarks import BENCHMARKS, open_questions

ASK = "What is the value for the {}?".format


def opened(folder: Path, name: str = "deepform") -> Any:
    return open_questions(BENCHMARKS[name], folder)


@pytest.fixture
def bench_forms(tmp_path: Path, bench_write: Any) -> Path:
    """Two documents; the key of two pages of the first, a field that is absent."""
    write = bench_write
    return write.docowl(
        tmp_path,
        "DeepForm",
        [("a-1", ASK("advertiser"), "Acme"), ("a-1", ASK("advertiser"), "None"),
         ("a-1", ASK("gross_amount"), "$5"), ("b.x", ASK("flight_to"), "None")],
        [write.document("a-1", advertiser=["Acme"], gross_amount=["$5", "$7"]),
         write.document("b.x")],
    )  # fmt: skip


def test_fields(bench_forms: Path) -> None:
    questions = opened(bench_forms)
    assert [dict(q.options) for q in questions] == [
        {"key": "advertiser", "document": "a-1"}, {"key": "advertiser", "document": "a-1"},
        {"key": "gross_amount", "document": "a-1"}, {"key": "flight_to", "document": "b.x"},
    ]  # fmt: skip
    assert [q.answers for q in questions] == [["Acme"], ["Acme"], ["$5", "$7"], []]
    assert [q.group for q in questions] == ["advertiser"] * 2 + ["gross_amount", "flight_to"]
    assert [q.text for q in questions][:3:2] == [ASK("advertiser"), ASK("gross_amount")]


@pytest.mark.parametrize("name", ["test/DeepForm_test.jsonl", "meta/DeepForm/test/document.jsonl"])
def test_a_changed_answer_is_another_digest(name: str, bench_forms: Path) -> None:
    before = opened(bench_forms).digest
    path = bench_forms / "DocDownstream-1.0" / name
    path.write_text(path.read_text().replace("Acme", "Acne"))
    assert opened(bench_forms).digest != before


def test_values_that_may_be_written_in_several_ways(tmp_path: Path, bench_write: Any) -> None:
    value = {"value": "Acme", "value_variants": ["ACME Inc.", "Acme, Inc."]}
    documents = [bench_write.document("1", advertiser=[value, "Other"])]
    bench_write.docowl(tmp_path, "DeepForm", [("1", ASK("advertiser"), "Acme")], documents)
    assert opened(tmp_path)[0].answers == [value, "Other"]


def test_micro_f1_by_hand(bench_forms: Path) -> None:
    said = ["ACME", "None", "$5", "no"]
    scores = [
        score("due_f1", answer, q.answers, **q.options)
        for answer, q in zip(said, opened(bench_forms), strict=True)
    ]
    # Predicted: Acme, $5, "no"; true: Acme, $5, $7. Two of three, both ways.
    assert aggregate(scores).value == pytest.approx(2 / 3)


def test_the_first_key_in_the_list_counts(tmp_path: Path, bench_write: Any) -> None:
    asked = [("1", ASK("charity_number and the report_date"), "12")]
    documents = [bench_write.document("1", charity_number=["12"], report_date=["2010-01-01"])]
    bench_write.docowl(tmp_path, "KleisterCharity", asked, documents)
    assert opened(tmp_path, "klc")[0].options["key"] == "charity_number"


def test_an_image_that_is_not_there(bench_forms: Path) -> None:
    root = bench_forms / "DocDownstream-1.0"
    (root / "imgs/DUE_Benchmark/DeepForm/pngs/a-1_1.png").unlink()
    questions = opened(root)
    assert questions[0].images[0].size() == (40, 30)
    with pytest.raises(InputError, match=r"^Row 2 of '.*DeepForm_test.jsonl' names the image"):
        questions[1]


def test_a_file_alone(bench_forms: Path) -> None:
    file = bench_forms / "DocDownstream-1.0" / "test" / "DeepForm_test.jsonl"
    assert len(opened(file)) == 4
    with pytest.raises(InputError, match=r"holds no test split of Kleister Charity: put test/"):
        opened(file, "klc")


def edit(folder: Path, name: str, change: Any) -> Path:
    path = folder / "DocDownstream-1.0" / name
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


TEST, META = "test/DeepForm_test.jsonl", "meta/DeepForm/test/metadata.jsonl"
DOCUMENT = "meta/DeepForm/test/document.jsonl"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (META, lambda rows: rows.pop(), "has 3 rows and '.*DeepForm_test.jsonl' 4: get both"),
        (META, lambda rows: rows[1].update(file_name="c.pdf"), "Row 2 .* the document 'c', which"),
        (META, lambda rows: rows[2].update(ground_truth="{}"), "Row 3 .* has no question in gro"),
        (META, lambda rows: rows[2].update(ground_truth="x"), "Row 3 .* has no question in gro"),
        (
            META,
            lambda rows: rows[0].update(ground_truth='{"gt_parses": [{"question": "Who?"}]}'),
            "Row 1 of .* asks 'Who\\?', which is about none of the fields advertiser, flight_from",
        ),
        (DOCUMENT, lambda rows: rows[0].pop("annotations"), "Row 1 .* is no document with annot"),
        (DOCUMENT, lambda rows: rows.clear(), "Row 1 of .*metadata.jsonl' is about the document"),
        (TEST, lambda rows: rows.clear(), "holds no question"),
    ],
)
def test_broken_metadata(name: str, change: Any, message: str, bench_forms: Path) -> None:
    edit(bench_forms, name, change)
    with pytest.raises(InputError, match=message):
        opened(bench_forms)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.update(messages=row["messages"][:1]), "does not end with an answer"),
        (lambda row: row.update(messages=row["messages"] * 2, image=row["image"] * 2), "with one"),
        (lambda row: row.update(messages=[]), "has no list of messages"),
        (lambda row: row.update(image=[]), "has 1 image placeholder and 0 images"),
        (lambda row: row.update(image=[1]), "has an image that is no path"),
    ],
)
def test_a_broken_row(change: Any, message: str, bench_forms: Path) -> None:
    edit(bench_forms, TEST, lambda rows: change(rows[1]))
    questions = opened(bench_forms)
    assert questions[2].answers == ["$5", "$7"]
    with pytest.raises(InputError, match=rf"^Row 2 of '.*DeepForm_test.jsonl' .*{message}"):
        questions[1]


def test_without_metadata(bench_forms: Path) -> None:
    (bench_forms / "DocDownstream-1.0" / META).unlink()
    with pytest.raises(InputError, match=r"There is no '.*metadata.jsonl', which has the answers"):
        opened(bench_forms)


def test_a_question_without_an_answer(tmp_path: Path, bench_write: Any) -> None:
    documents = [{"name": "t", "annotations": []}]
    bench_write.docowl(tmp_path, "WikiTableQuestions", [("t", "how many?", "3")], documents)
    with pytest.raises(InputError, match=r"Row 1 of .* asks 'how many\?', to which .* no answer"):
        opened(tmp_path, "wtq")


def test_one_answer_is_not_several_values(tmp_path: Path, bench_write: Any) -> None:
    values = [{"value": "Ada"}, {"value": "Bertha"}]
    documents = [{"name": "t", "annotations": [{"key": "which?", "values": values}]}]
    bench_write.docowl(tmp_path, "WikiTableQuestions", [("t", "which?", "Ada | Bertha")], documents)
    (question,) = opened(tmp_path, "wtq")
    assert question.answers == ["Ada", "Bertha"]
    said = "Ada | Bertha"
    assert score("wtq_denotation@due", said, question.answers).value == 0.0
    assert score("wtq_denotation@due", said, question.answers, separator=" | ").value == 1.0
