from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from alignvlm.errors import WeightsError
from alignvlm.weights.gguf_file import GGUFFile

gguf = pytest.importorskip("gguf", reason="the independent GGUF writer is not installed")
KINDS = ("F32", "Q4_1", "Q8_0")


def write(path: Path, weights: np.ndarray, kinds: tuple[str, ...] = KINDS) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("a.number", 7)
    writer.add_float32("a.real", 0.5)
    writer.add_bool("a.flag", True)
    writer.add_array("a.numbers", [1, 2, 3])
    writer.add_array("a.words", ["Ġt", "", "日本"])
    writer.add_string("a.text", "é")
    for name in kinds:
        kind = gguf.GGMLQuantizationType[name]
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def weights() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(6, 64)).astype(np.float32)


def test_metadata_and_tensors_equal_the_reference_reader(tmp_path, weights):
    write(tmp_path / "a.gguf", weights)
    ours, theirs = GGUFFile(tmp_path / "a.gguf"), gguf.GGUFReader(tmp_path / "a.gguf")
    expected = {k: f.contents() for k, f in theirs.fields.items() if not k.startswith("GGUF.")}
    assert ours.metadata == expected and ours.metadata["a.words"] == ["Ġt", "", "日本"]
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        read = ours.read(tensor.name)
        assert read.dtype == np.float32 and read.shape == (6, 64)
        np.testing.assert_array_equal(read, gguf.dequantize(tensor.data, tensor.tensor_type))


def test_dequantised_weights_are_near_the_originals(tmp_path, weights):
    write(tmp_path / "a.gguf", weights)
    file = GGUFFile(tmp_path / "a.gguf")
    span = weights.max() - weights.min()
    np.testing.assert_array_equal(file.read("F32.weight"), weights)
    np.testing.assert_allclose(file.read("Q8_0.weight"), weights, atol=span / 255)
    np.testing.assert_allclose(file.read("Q4_1.weight"), weights, atol=span / 29)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x02\0\0\0" + bytes(64), b"PK\3\4" * 9])
def test_another_file_is_refused(tmp_path, content):
    (tmp_path / "a.gguf").write_bytes(content)
    with pytest.raises(WeightsError, match="not a GGUF file of version 3"):
        GGUFFile(tmp_path / "a.gguf")


def test_a_file_cut_anywhere_is_refused(tmp_path, weights):
    write(tmp_path / "whole.gguf", weights)
    content = (tmp_path / "whole.gguf").read_bytes()
    for length in [*range(8, 700, 37), len(content) - 100]:
        path = tmp_path / f"{length}.gguf"
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError, match=r"\.gguf (is cut short|ends inside)"):
            file = GGUFFile(path)
            for name in file.tensors:
                file.read(name)


def test_an_unknown_tensor_type_is_refused(tmp_path, weights):
    write(tmp_path / "a.gguf", weights, ("F16",))
    with pytest.raises(WeightsError, match="types this reader lacks"):
        GGUFFile(tmp_path / "a.gguf")
