"""synthdoc: the pages that `alignvlm measure` draws, asked one question each."""

from __future__ import annotations

import pytest

from alignvlm.errors import UsageError
from alignvlm.evaluation import score
from alignvlm.evaluation.benchmarks import BENCHMARKS, open_questions, put, synthdoc
from alignvlm.evaluation.measure import MeasureConfig, planned_pages
from alignvlm.evaluation.scorers import MEASURES
from alignvlm.synth import ALL_KINDS, KINDS, generate


@pytest.fixture(scope="module")
def bench_drawn() -> list:
    return list(open_questions(synthdoc(num_pages=len(ALL_KINDS), seed=3)))


def test_the_digest_is_the_settings() -> None:
    digests = [
        open_questions(synthdoc(**options)).digest
        for options in ({}, {"seed": 1}, {"strength": 0.6}, {"num_pages": 7})
    ]
    assert len(set(digests)) == 3
    assert digests[3] == digests[0]  # fewer of the same pages
    assert all(kind in digests[0] for kind in ALL_KINDS)


def test_every_kind_has_its_turn(bench_drawn: list) -> None:
    assert [question.group for question in bench_drawn] == list(ALL_KINDS)
    assert len({question.id for question in bench_drawn}) == len(ALL_KINDS)


def test_questions_are_the_pages_own(bench_drawn: list) -> None:
    for question in bench_drawn[-4:]:
        page = generate(question.group, 3, "heldout", 0.5)
        asked = {(one.question, one.answers) for one in page.questions}
        assert (question.text, tuple(question.answers)) in asked
        (image,) = question.images
        assert image.size() == page.image.size
        assert image.load().tobytes() == page.image.tobytes()


def test_it_is_put_and_scored(bench_drawn: list) -> None:
    for question in bench_drawn:
        prompt = put(BENCHMARKS["synthdoc"], question, "vlmevalkit-2025.05")
        assert prompt.text.startswith(f"<image>\n{question.text}\n")
        assert put(BENCHMARKS["synthdoc"], question, "lmms-eval").max_new_tokens == 32
        for dialect in MEASURES["anls"]:
            assert score(f"anls@{dialect}", question.answers[-1], question.answers).value == 1.0
            assert score(f"anls@{dialect}", "zqxj 8471 zqxj", question.answers).value == 0.0


def test_pages_are_those_of_measure() -> None:
    config = MeasureConfig(num_easy_pages=2, num_pages=2, seed=7)
    measured = set(planned_pages(config, with_pdfs=False))
    images = [
        open_questions(synthdoc(num_pages=2 * len(ALL_KINDS), seed=7))[i].images[0]
        for i in (1, len(ALL_KINDS) + 1)
    ]
    assert {(image.kind, image.seed) for image in images} == {("invoice", 7), ("invoice", 8)}
    assert {(image.kind, image.seed) for image in images} <= measured
    assert set(KINDS) <= set(ALL_KINDS)
    assert images[0].strength == config.strength


def test_a_seed_decides_alone() -> None:
    third, again, other = (
        open_questions(synthdoc(num_pages=n, seed=seed))[9]
        for n, seed in ((10, 1), (50, 1), (10, 2))
    )
    assert third == again != other


@pytest.mark.parametrize("options", [{"num_pages": 0}, {"strength": 1.5}])
def test_numbers_out_of_range(options: dict) -> None:
    with pytest.raises(UsageError, match=r"ask for at least one|from 0 to 1"):
        synthdoc(**options)


def test_nothing_is_read() -> None:
    with pytest.raises(UsageError, match="leave the path out"):
        open_questions(synthdoc(), "pages")


def test_an_index_out_of_range() -> None:
    questions = open_questions(synthdoc(num_pages=2))
    with pytest.raises(IndexError):
        questions[2]
    assert questions.where == ""
