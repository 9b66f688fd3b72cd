"""The measurement of a whole model, beside its baselines, on pages it was never trained on.

Pages come from the generator's held-out half (fonts and layouts) and are a function of the seed,
so that two models, or two commits, are measured on the same ones. Every prediction becomes a line
of JSONL; `alignvlm.evaluation.report` makes the numbers from those lines alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from alignvlm.evaluation.answers import CONDENSE_WAYS, Answer, Asker, EncodedPage, Reader
from alignvlm.evaluation.baselines import RapidOcr, text_tokens
from alignvlm.evaluation.encoder import PDF_KIND, LabelCells, Row, cell_rows, reading_row
from alignvlm.evaluation.metrics import anls, contains
from alignvlm.evaluation.process import run_process
from alignvlm.synth.generate import KINDS, generate
from alignvlm.synth.page import Page, Question
from alignvlm.synth.pdf_pages import pdf_stream
from alignvlm.weights.smollm2 import load_smollm2

OnProgress = Callable[[str, int, int], None]
"""Called with the stage, how many of its units are done, and how many there are."""

# How the benchmarks ask models for short answers (VLMEvalKit's default prompt).
_SHORT = "\nAnswer the question using a single word or phrase."


@dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    """How much is measured.

    Attributes:
        kinds: document kinds.
        num_easy_pages: pages of the kind "easy", each with all its questions.
        num_pages: pages of every other kind.
        questions_per_page: of those, the first so many questions.
        num_pdf_pages: pages of held-out PDFs, where there are any, clean and at 85-180 dpi.
        num_tiles: dense tiles for patch accuracy, for each text size clean and degraded.
        num_condense_pages: easy pages, one question each, on which the ways to condense compete.
        num_cold: fresh processes for one easy page, and as many for a page of another kind.
        seed: of the first page of each kind; the next ones follow.
        strength: of the pages' degradations, as in `alignvlm.synth.generate`.
        baselines: whether to measure the baselines too.
        limit_s: after so many seconds no further page is begun; None: no limit.
    """

    kinds: tuple[str, ...] = KINDS
    num_easy_pages: int = 20
    num_pages: int = 3
    questions_per_page: int = 3
    num_pdf_pages: int = 10
    num_tiles: int = 8
    num_condense_pages: int = 3
    num_cold: int = 3
    seed: int = 0
    strength: float = 0.5
    baselines: bool = True
    limit_s: float | None = None


class Recorder:
    """Collects rows and writes each to a JSONL file at once, so that a kill loses none."""

    def __init__(self, path: Path) -> None:
        self.rows: list[Row] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8")

    def add(self, row: Row) -> None:
        """Keep a row."""
        self.rows.append(row)
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def measure(
    folder: Path,
    config: MeasureConfig,
    label_cells: LabelCells,
    predictions: Path,
    *,
    dtype: torch.dtype,
    pdfs: Path | None = None,
    ask_command: Sequence[str] | None = None,
    on_progress: OnProgress | None = None,
) -> list[Row]:
    """Measure the model in a folder, on the CPU.

    Args:
        folder: as `AlignVLM.from_pretrained` takes it.
        config: how much.
        label_cells: see `alignvlm.evaluation.encoder`.
        predictions: the JSONL file to write.
        dtype: of all weights, the one that `ask_command` uses.
        pdfs: folder of PDFs, see `alignvlm.synth.pdf_pages.find_pdfs`. None: none are read.
        ask_command: the command that answers a question in a fresh process, on the CPU too, so
            that cold and warm seconds compare; the page's file and the question are put behind
            it. None: cold starts are not measured.
        on_progress: see `OnProgress`.

    Returns:
        Every row, for `alignvlm.evaluation.report`.

    Raises:
        ConfigurationError: the model does not read characters, or a kind does not exist.
        InputError: `pdfs` holds no held-out PDF, or the fresh process fails.
        PdfError: a file in `pdfs` is damaged.
        MissingDependencyError: a package of the extras `eval`, `synth` or `rapidocr` is absent.
    """
    told = on_progress or (lambda stage, done, total: None)
    deadline = time.monotonic() + config.limit_s if config.limit_s else float("inf")
    recorder = Recorder(predictions)
    try:
        if ask_command:
            _cold_starts(config, ask_command, recorder, told)
        run = _Run(config, Reader(folder, dtype), recorder, told, deadline)
        run.patches(label_cells)
        run.warm_up()
        run.condense_ways()
        run.pages(pdfs)
    finally:
        recorder.close()
    return recorder.rows


@dataclass(frozen=True, kw_only=True)
class _TextSystem:
    """A language model given a page's text: as the OCR package reads it, or (`ocr` None) as it is.

    Attributes:
        name: of the system in rows and tables.
        ocr: makes the text.
        asker: answers.
    """

    name: str
    ocr: RapidOcr | None
    asker: Asker


def _systems(reader: Reader) -> list[_TextSystem]:
    ocr = RapidOcr()
    tuned = Asker(reader.model, reader.processor)
    untuned = Asker(load_smollm2(reader.model.dtype)[0], reader.processor, suffix=_SHORT)
    return [
        _TextSystem(name="perfect text, tuned LLM", ocr=None, asker=tuned),
        _TextSystem(name="rapidocr, tuned LLM", ocr=ocr, asker=tuned),
        _TextSystem(name="rapidocr, untuned LLM", ocr=ocr, asker=untuned),
    ]


def _cold_starts(
    config: MeasureConfig, command: Sequence[str], recorder: Recorder, told: OnProgress
) -> None:
    """Fresh processes: for one tile, and for a whole document where there is another kind.

    They come first: this process is small then, and a command that fails does so at once.
    """
    kinds = list(dict.fromkeys(("easy", *config.kinds)))[:2]
    planned = [(kind, config.seed + n) for kind in kinds for n in range(config.num_cold)]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "page.png"
        for done, (kind, seed) in enumerate(planned, start=1):
            page = _draw(config, kind, seed)
            page.image.save(path)
            cost = run_process([*command, str(path), page.questions[0].question])
            recorder.add(
                {
                    "row": "cold",
                    "kind": kind,
                    "seed": page.seed,
                    "prediction": cost.output.strip(),
                    "answers": list(page.questions[0].answers),
                    "seconds": cost.seconds,
                    "peak_bytes": cost.peak_bytes,
                }
            )
            told("cold starts", done, len(planned))


def _draw(config: MeasureConfig, kind: str, seed: int) -> Page:
    return generate(kind, seed, "heldout", config.strength)


class _Run:
    """The stages of one measurement."""

    def __init__(
        self,
        config: MeasureConfig,
        reader: Reader,
        recorder: Recorder,
        told: OnProgress,
        deadline: float,
    ) -> None:
        self._config = config
        self._reader = reader
        self._asker = Asker(reader.model, reader.processor)
        self._recorder = recorder
        self._told = told
        self._deadline = deadline

    def patches(self, label_cells: LabelCells) -> None:
        """Which cells of dense tiles are read right."""
        encoder, connector = (
            self._reader.model.model.vision_model,
            self._reader.model.model.connector,
        )
        config = self._config
        rows = cell_rows(
            encoder, connector, self._reader.characters, label_cells, config.num_tiles, config.seed
        )
        for done, row in enumerate(rows, start=1):
            self._recorder.add(row)
            self._told("patches", done, 6 * config.num_tiles)

    def pages(self, pdfs: Path | None) -> None:
        """Readings and answers, of the model and of the baselines, kind by kind in turn."""
        systems = _systems(self._reader) if self._config.baselines else []
        planned = list(planned_pages(self._config, with_pdfs=pdfs is not None))
        real = pdf_stream(pdfs, self._config.seed, "heldout") if pdfs else iter(())
        for done, (kind, seed) in enumerate(planned, start=1):
            if time.monotonic() > self._deadline:
                break
            if kind == PDF_KIND:
                # A page's own number does not tell pages of two files apart.
                page = replace(next(real), kind=kind, seed=seed)
            else:
                page = _draw(self._config, kind, seed)
            encoded = self._reader.encode(page.image)
            self._recorder.add(
                {**reading_row("alignvlm", page, encoded.text), "seconds": encoded.seconds}
            )
            self._answers("alignvlm", self._asker, page, encoded)
            self._baselines(page, systems)
            self._told("pages", done, len(planned))

    def warm_up(self) -> None:
        """One answer that is not counted: the first of a process pays for what others reuse."""
        page = _draw(self._config, "easy", self._config.seed)
        self._asker.ask(self._reader.encode(page.image).tokens, "What is this?")

    def condense_ways(self) -> None:
        """The ways to shorten visual tokens, on the same easy pages, the fastest way first."""
        config, stored = self._config, dict(self._reader.model.config.condense)
        total = len(CONDENSE_WAYS) * config.num_condense_pages
        done = 0
        for way, options in CONDENSE_WAYS.items():
            self._reader.condense(options)
            for number in range(config.num_condense_pages):
                if time.monotonic() <= self._deadline:
                    page = _draw(config, "easy", config.seed + number)
                    encoded = self._reader.encode(page.image)
                    self._ask("condense", way, self._asker, page, page.questions[0], encoded)
                done += 1
                self._told("condense", done, total)
        self._reader.condense(stored)

    def _baselines(self, page: Page, systems: Sequence[_TextSystem]) -> None:
        read: EncodedPage | None = None
        for system in systems:
            text, seconds = page.text, 0.0
            if system.ocr is not None:
                if read is None:
                    read = self._ocr(page, system.ocr)
                text, seconds = read.text, read.seconds
            tokens = text_tokens(text, self._reader.tokenizer, system.asker.embeddings)
            self._answers(system.name, system.asker, page, EncodedPage(tokens, text, seconds))

    def _ocr(self, page: Page, ocr: RapidOcr) -> EncodedPage:
        start = time.perf_counter()
        text = ocr.read(page.image)
        seconds = time.perf_counter() - start
        self._recorder.add({**reading_row("rapidocr", page, text), "seconds": seconds})
        return EncodedPage(self._asker.embeddings[:0], text, seconds)

    def _answers(self, system: str, asker: Asker, page: Page, encoded: EncodedPage) -> None:
        limit = None if page.kind == "easy" else self._config.questions_per_page
        for question in page.questions[:limit]:
            self._ask("answer", system, asker, page, question, encoded)

    def _ask(
        self,
        row: str,
        system: str,
        asker: Asker,
        page: Page,
        question: Question,
        encoded: EncodedPage,
    ) -> None:
        answer: Answer = asker.ask(encoded.tokens, question.question)
        self._recorder.add(
            {
                "row": row,
                "system": system,
                "kind": page.kind,
                "seed": page.seed,
                "question": question.question,
                "question_kind": question.kind,
                "answers": list(question.answers),
                "prediction": answer.text,
                "anls": anls(answer.text, question.answers),
                "contains": contains(answer.text, question.answers),
                "num_tokens": len(encoded.tokens),
                "page_seconds": encoded.seconds,
                "answer_seconds": answer.seconds,
            }
        )


def planned_pages(config: MeasureConfig, *, with_pdfs: bool) -> Iterator[tuple[str, int]]:
    """(kind, seed) of every page, the kinds in turn, so that a time limit spares none."""
    counts = {
        kind: config.num_easy_pages if kind == "easy" else config.num_pages for kind in config.kinds
    }
    if with_pdfs:
        counts[PDF_KIND] = config.num_pdf_pages
    for number in range(max(counts.values())):
        for kind, count in counts.items():
            if number < count:
                yield kind, config.seed + number
