"""The document encoder's starting point: PP-OCRv6's small recogniser, copied from its ONNX file.

Source: package `rapidocr` 3.10.0 (`models/PP-OCRv6_rec_small.onnx`), Apache-2.0 for code and
weights, copyright of the weights with Baidu / the PaddleOCR authors.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from alignvlm.errors import MissingDependencyError, WeightsError
from alignvlm.weights.cache import sha256_of

if TYPE_CHECKING:
    import numpy as np

MODEL_FILE = "PP-OCRv6_rec_small.onnx"
MODEL_SHA256 = "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884"
NUM_TRUNK_CONVOLUTIONS = 54


def find_recogniser() -> Path:
    """Path of the ONNX file inside the installed `rapidocr` package, its hash checked.

    Raises:
        MissingDependencyError: the package is not installed.
        WeightsError: the file is missing or is not the one this project was built from.
    """
    spec = importlib.util.find_spec("rapidocr")
    if spec is None or spec.origin is None:
        raise MissingDependencyError(
            "rapidocr",
            "start the document encoder from PP-OCRv6's recogniser",
            command="pip install --no-deps rapidocr==3.10.0",
        )
    path = Path(spec.origin).parent / "models" / MODEL_FILE
    if not path.is_file() or sha256_of(path) != MODEL_SHA256:
        raise WeightsError(
            f"{MODEL_FILE} in the package rapidocr is missing or not of version 3.10.0: "
            "run `pip install --no-deps --force-reinstall rapidocr==3.10.0`."
        )
    return path


def trunk_convolutions(path: Path) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Weights and biases of the first 54 convolutions of the ONNX graph, in execution order.

    Returns:
        54 pairs of float32 tensors: weight [out, in / groups, height, width], bias [out].
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError(
            "onnx", "read the recogniser's weights", extra="ppocr"
        ) from error
    graph = _Graph(onnx.load(str(path)).graph)
    pairs = []
    for weight, bias in graph.convolutions():
        pairs.append((torch.from_numpy(weight.copy()), torch.from_numpy(bias.copy())))
        if len(pairs) == NUM_TRUNK_CONVOLUTIONS:
            return pairs
    raise WeightsError(
        f"{path.name} holds {len(pairs)} convolutions and {NUM_TRUNK_CONVOLUTIONS} are expected: "
        "install the package rapidocr in version 3.10.0"
    )


def load_trunk(trunk: torch.nn.Module, path: Path | None = None) -> None:
    """Copy the recogniser's weights into a `Trunk`, pairing convolutions in execution order.

    Raises:
        WeightsError: a shape differs, so the file is not of the expected network.
    """
    ours = [module for module in trunk.modules() if isinstance(module, torch.nn.Conv2d)]
    pairs = trunk_convolutions(path or find_recogniser())
    for module, (weight, bias) in zip(ours, pairs, strict=True):
        if module.weight.shape != weight.shape or module.bias.shape != bias.shape:
            raise WeightsError(
                f"The recogniser's convolution {tuple(weight.shape)} does not fit "
                f"{tuple(module.weight.shape)}: the ONNX file is of another network."
            )
        with torch.no_grad():
            module.weight.copy_(weight)
            module.bias.copy_(bias)


class _Graph:
    """Looks up constants and consumers in an ONNX graph."""

    def __init__(self, graph: Any) -> None:
        from onnx import numpy_helper

        self._nodes = list(graph.node)
        self._constants = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer
        }
        for node in self._nodes:
            if node.op_type == "Constant":
                self._constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        self._producer = {name: node for node in self._nodes for name in node.output}

    def convolutions(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (weight, bias) of every Conv node in graph order."""
        for node in self._nodes:
            if node.op_type != "Conv":
                continue
            weight = self._value(node.input[1])
            bias = self._value(node.input[2]) if len(node.input) > 2 else self._added(node)
            yield weight, bias.reshape(-1)

    def _value(self, name: str) -> np.ndarray:
        """A constant, seen through the shape-only nodes between it and its use."""
        while name not in self._constants:
            name = self._producer[name].input[0]
        return self._constants[name]

    def _added(self, node: Any) -> np.ndarray:
        """The bias of a Conv without bias input: the constant of the Add that follows it."""
        output = node.output[0]
        while True:
            follower = next(n for n in self._nodes if output in n.input)
            if follower.op_type == "Add":
                other = next(name for name in follower.input if name != output)
                return self._value(other)
            output = follower.output[0]
