from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alignvlm.errors import (
    AlignVLMError,
    InputError,
    LimitError,
    PdfError,
    UnsupportedImageError,
    UsageError,
)
from alignvlm.imaging import client
from alignvlm.imaging.client import DecodingWorker
from alignvlm.imaging.decode import load_pages
from alignvlm.limits import DEFAULT_LIMITS, Limits


@pytest.fixture
def processes(monkeypatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Every process that is started; all of them have to be gone at the end."""
    started = []
    start = subprocess.Popen

    def record(*args: object, **kwargs: object) -> subprocess.Popen[bytes]:
        started.append(start(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", record)
    yield started
    assert all(process.returncode is not None for process in started)


@pytest.fixture
def open_worker(encode) -> Callable[..., DecodingWorker]:
    def start(data: bytes | None = None, limits: Limits = DEFAULT_LIMITS) -> DecodingWorker:
        data = encode(Image.new("L", (4, 4))) if data is None else data
        return DecodingWorker(data, "page.png", limits, pdf_dpi=150, pdf_max_side_px=2000)

    return start


def test_pages_of_a_tiff(tmp_path: Path, encode, processes) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 255, (30 + n, 20, 3), dtype=np.uint8) for n in range(3)]
    frames = [Image.fromarray(array) for array in arrays]
    path = tmp_path / "scan.tif"
    path.write_bytes(encode(frames[0], "TIFF", save_all=True, append_images=frames[1:]))
    pages = list(load_pages(path))
    assert [page.number for page in pages] == [1, 2, 3]
    assert {page.source for page in pages} == {str(path)}
    for page, array in zip(pages, arrays, strict=True):
        assert page.image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(page.image), array)
    assert [page.number for page in load_pages(path, "3,1-2")] == [3, 1, 2]
    assert len(processes) == 2


def test_pages_of_a_pdf(tmp_path: Path, make_pdf, processes) -> None:
    path = tmp_path / "a.dat"  # the name does not matter
    path.write_bytes(make_pdf(((144, 288),) * 3))
    (page,) = load_pages(path, "2", pdf_dpi=72, pdf_max_side_px=144)
    assert page.number == 2 and page.image.size == (72, 144)
    assert page.image.getpixel((30, 30)) == (0, 0, 0)


def test_a_page_of_many_strips(tmp_path: Path, encode, processes) -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(0, 2, (4100, 2000), dtype=np.uint8) * 255
    (tmp_path / "a.png").write_bytes(encode(Image.fromarray(array), compress_level=1))
    (page,) = load_pages(tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(page.image)[..., 2], array)


def test_pages_are_decoded_when_asked_for(tmp_path: Path, encode, processes) -> None:
    frames = [Image.new("L", (8, 8)), Image.new("I", (8, 8)), Image.new("L", (8, 8))]
    path = tmp_path / "scan.tif"
    path.write_bytes(encode(frames[0], "TIFF", save_all=True, append_images=frames[1:]))
    pages = load_pages(path)
    assert processes == []
    assert next(pages).number == 1
    assert processes[0].poll() is None
    with pytest.raises(UnsupportedImageError, match="32 bits"):
        next(pages)
    assert processes[0].returncode is not None


def test_an_abandoned_iterator_ends_its_process(tmp_path: Path, encode, processes) -> None:
    (tmp_path / "a.png").write_bytes(encode(Image.new("L", (4, 4))))
    pages = load_pages(tmp_path / "a.png")
    next(pages)
    pages.close()
    assert processes[0].returncode is not None


def test_errors_before_any_process(tmp_path: Path, encode, processes, refused) -> None:
    (tmp_path / "a.txt").write_text("hello")
    (tmp_path / "a.png").write_bytes(encode(Image.new("L", (4, 4))))
    with refused(UnsupportedImageError, "a text file"):
        next(load_pages(tmp_path / "a.txt"))
    with refused(InputError, "There is no file"):
        next(load_pages(tmp_path / "none.png"))
    with refused(UsageError, "not a list of pages"):
        next(load_pages(tmp_path / "a.png", "3-1"))
    assert processes == []


def test_page_out_of_range(tmp_path: Path, encode, make_pdf, processes, refused) -> None:
    (tmp_path / "a.png").write_bytes(encode(Image.new("L", (4, 4))))
    (tmp_path / "a.pdf").write_bytes(make_pdf())
    with refused(InputError, "There is no page 2 in '.*a.png': it has 1 page$"):
        next(load_pages(tmp_path / "a.png", "2"))
    with refused(PdfError, "There is no page 7 in '.*a.pdf': it has 1 page$"):
        next(load_pages(tmp_path / "a.pdf", "1-7"))


def test_the_workers_sentences_arrive(open_worker, make_png, make_pdf, processes, refused) -> None:
    with (
        refused(LimitError, "Page 1 of 'page.png' is 13000 x 13000 px"),
        open_worker(make_png(13_000, 13_000)) as worker,
    ):
        worker.page(1)
    with (
        refused(UnsupportedImageError, "damaged, truncated or unusual PNG"),
        open_worker(make_png(10, 10)) as worker,
    ):
        worker.page(1)
    with refused(PdfError, "is a PDF without pages"):
        open_worker(make_pdf(()))
    with refused(PdfError, "needs a password"):
        open_worker(make_pdf(password=b"secret"))


def test_raised_limits_are_the_only_ones(open_worker, make_png, processes, refused) -> None:
    """PIL's own limit, 179 megapixels, does not get in the way."""
    with (
        refused(LimitError, "20000 x 20000 px, more than the 300 megapixels"),
        open_worker(make_png(20_000, 20_000), Limits(max_page_px=300_000_000)) as worker,
    ):
        worker.page(1)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not bound memory")
def test_memory_is_limited(open_worker, make_png, processes, refused) -> None:
    limits = Limits(decode_memory_bytes=30_000_000)
    small = make_png(1000, 1000, rows=bytes(1001 * 1000))
    with open_worker(small, limits) as worker:
        assert worker.page(1).size == (1000, 1000)
    large = make_png(9000, 9000, rows=bytes(9001 * 9000))
    with refused(LimitError, "more memory"), open_worker(large, limits) as worker:
        worker.page(1)


def test_time_is_limited(open_worker, processes, refused) -> None:
    with refused(LimitError, "'page.png' took longer than the 0.001 s allowed"):
        open_worker(limits=Limits(decode_time_s=0.001))


def test_a_worker_that_dies_is_one_sentence(open_worker, processes, refused) -> None:
    with open_worker() as worker:
        processes[0].kill()
        processes[0].wait()
        with refused(UnsupportedImageError, "Page 1 of 'page.png' made its .*: save it again"):
            worker.page(1)


def test_a_process_that_cannot_start(open_worker, monkeypatch, refused) -> None:
    monkeypatch.setattr(client.sys, "executable", "/no/such/python")
    with refused(InputError, "no process could be started"):
        open_worker()


def answer(*parts: object) -> bytes:
    return b"".join(
        part if isinstance(part, bytes) else json.dumps(part).encode() + b"\n" for part in parts
    )


OPENED = {"num_pages": 1}


@pytest.mark.parametrize(
    ("answers", "error", "match"),
    [
        (answer(), UnsupportedImageError, "made its decoder stop"),
        (answer(b"no json\n"), UnsupportedImageError, "made its decoder stop"),
        (answer([1]), UnsupportedImageError, "made its decoder stop"),
        (answer(7), UnsupportedImageError, "made its decoder stop"),
        (answer(b"x" * 100_000), UnsupportedImageError, "made its decoder stop"),
        (answer({"num_pages": 201}), UnsupportedImageError, "made its decoder stop"),
        (answer({"num_pages": True}), UnsupportedImageError, "made its decoder stop"),
        (answer({"error": "KeyError", "message": "x"}), UnsupportedImageError, "decoder stop"),
        (answer({"error": "PdfError", "message": "bad:\x1b[2J no"}), PdfError, r"bad:\[2J no"),
        (answer(OPENED), UnsupportedImageError, "Page 1 of 'page.png' made"),
        (answer(OPENED, {"width": 0, "height": 1}), UnsupportedImageError, "decoder stop"),
        (answer(OPENED, {"width": 10**9, "height": 1}), UnsupportedImageError, "decoder stop"),
        (answer(OPENED, {"width": 10**5, "height": 10**5}), UnsupportedImageError, "decoder stop"),
        (answer(OPENED, {"width": 2, "height": 1}), UnsupportedImageError, "decoder stop"),
        (
            answer(OPENED, {"width": 2, "height": 1}, {"rows": 2}, b"x" * 12),
            UnsupportedImageError,
            "decoder stop",
        ),
        (
            answer(OPENED, {"width": 2, "height": 1}, {"rows": 1}, b"x" * 5),
            UnsupportedImageError,
            "decoder stop",
        ),
    ],
)
def test_nothing_that_a_worker_answers_is_trusted(
    open_worker, monkeypatch, tmp_path, processes, answers, error, match
) -> None:
    """As if the file had taken the process over."""
    (tmp_path / "answers").write_bytes(answers)
    script = "import sys; sys.stdout.buffer.write(open(sys.argv[1], 'rb').read())"
    record = subprocess.Popen

    def replace(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        fake = [command[0], "-S", "-c", script, str(tmp_path / "answers")]
        return record(fake, **options)

    monkeypatch.setattr(subprocess, "Popen", replace)
    with pytest.raises(error, match=match) as caught, open_worker() as worker:
        worker.page(1)
    assert str(caught.value).isprintable()


def test_damaged_files_through_the_worker(open_worker, encode, make_pdf, processes) -> None:
    rng = np.random.default_rng(5)
    noise = Image.effect_noise((60, 50), 80)
    for data in (encode(noise), encode(noise, "JPEG"), make_pdf()):
        damaged = np.frombuffer(data, dtype=np.uint8).copy()
        damaged[rng.integers(20, len(damaged), 12)] ^= 0x55
        try:
            with open_worker(damaged.tobytes()) as worker:
                assert worker.page(1).mode == "RGB"
        except AlignVLMError as error:
            assert "page.png" in str(error)
