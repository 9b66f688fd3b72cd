from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from alignvlm.imaging.decode import load_pages


def test_it_starts_without_heavy_packages() -> None:
    heavy = "{'torch', 'transformers', 'numpy', 'pypdfium2', 'accelerate'}"
    code = f"import sys, alignvlm.imaging.worker; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout == "[]\n"


def test_the_current_folder_is_never_imported_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People run the command in folders full of strangers' files."""
    (tmp_path / "page.png").touch()
    Image.new("L", (4, 4)).save(tmp_path / "page.png")
    for name in ("PIL", "json", "alignvlm"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    (page,) = load_pages("page.png")
    assert page.image.size == (4, 4) and page.source == "page.png"


@pytest.mark.skipif(sys.platform != "linux", reason="reads the process's limits from /proc")
def test_it_limits_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    start = subprocess.Popen

    def record(*args: object, **kwargs: object) -> subprocess.Popen[bytes]:
        started.append(start(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", record)
    Image.new("L", (4, 4)).save(tmp_path / "page.png")
    pages = load_pages(tmp_path / "page.png")
    next(pages)
    text = Path(f"/proc/{started[0].pid}/limits").read_text()
    pages.close()
    limits = {line[:26].strip(): line[26:].split()[0] for line in text.splitlines()[1:]}
    assert limits["Max file size"] == "0"
    assert 20 < int(limits["Max cpu time"]) < 30
    assert 1_500_000_000 < int(limits["Max address space"]) < 2_500_000_000
