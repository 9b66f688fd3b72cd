from __future__ import annotations

import numpy as np
import pytest
import torch

from alignvlm.errors import MissingDependencyError
from alignvlm.model.document_encoder import DocumentEncoder, DocumentEncoderConfig, Trunk
from alignvlm.weights.ppocr import find_recogniser, load_trunk


@pytest.fixture
def encoder() -> DocumentEncoder:
    torch.manual_seed(0)
    return DocumentEncoder(DocumentEncoderConfig(tile_px=64)).eval()


def fix_gates(encoder: DocumentEncoder) -> None:
    """Gates that do not depend on what they see: without them a feature is local."""
    for name, module in encoder.named_modules():
        if name.endswith("excite"):
            torch.nn.init.zeros_(module.weight)


@torch.no_grad()
def test_one_feature_for_each_cell(encoder: DocumentEncoder) -> None:
    features = encoder(torch.zeros(3, 3, 64, 64)).last_hidden_state
    assert features.shape == (3, (64 // 8) * (64 // 4), 192)


class Coordinates(torch.nn.Module):
    """In place of the trunk: two channels that say the row and the column of a cell."""

    def forward(self, pixels: torch.Tensor, grid: tuple[int, int]) -> tuple[torch.Tensor, ...]:
        rows, columns = pixels.shape[2] // 8, pixels.shape[3] // 4
        fine = torch.zeros(len(pixels), 192, rows, columns)
        fine[:, 0] = torch.arange(rows)[:, None]
        fine[:, 1] = torch.arange(columns)
        return fine, torch.zeros(len(pixels), 384, rows // 2, columns)


@torch.no_grad()
def test_features_are_row_major_inside_each_tile(encoder: DocumentEncoder) -> None:
    encoder.trunk, encoder.norm = Coordinates(), torch.nn.Identity()
    encoder.context = torch.nn.ModuleList()
    torch.nn.init.dirac_(encoder.fine.weight)
    for parameter in (encoder.fine.bias, encoder.coarse.bias):
        torch.nn.init.zeros_(parameter)
    features = encoder(torch.zeros(6, 3, 64, 64), grids=[(2, 3)]).last_hidden_state
    for tile, cell in ((0, 0), (0, 17), (4, 0), (5, 127)):
        row = (tile // 3) * 8 + cell // 16
        column = (tile % 3) * 16 + cell % 16
        assert features[tile, cell, :2].tolist() == [row, column]


@torch.no_grad()
def test_tiles_of_one_image_are_encoded_without_seams(encoder: DocumentEncoder) -> None:
    """Apart from the gates, whose means are taken tile by tile, four tiles are one large one."""
    large = DocumentEncoder(DocumentEncoderConfig(tile_px=128)).eval()
    large.load_state_dict(encoder.state_dict())
    fix_gates(large)
    fix_gates(encoder)
    page = torch.rand(1, 3, 128, 128) * 2 - 1
    tiles = page.unfold(2, 64, 64).unfold(3, 64, 64)[0].permute(1, 2, 0, 3, 4).flatten(0, 1)
    stitched = encoder(tiles, grids=[(2, 2)]).last_hidden_state
    joined = stitched.unflatten(0, (2, 2)).unflatten(2, (8, 16)).transpose(1, 2)
    whole = large(page).last_hidden_state[0]
    torch.testing.assert_close(joined.flatten(2, 3).flatten(0, 2), whole, atol=1e-5, rtol=1e-5)
    alone = encoder(tiles).last_hidden_state
    assert not torch.allclose(alone, stitched, atol=1e-3)  # a lone tile does not see its neighbour


@torch.no_grad()
def test_images_of_one_batch_do_not_see_each_other(encoder: DocumentEncoder) -> None:
    tiles = torch.rand(5, 3, 64, 64) * 2 - 1
    together = encoder(tiles, grids=[(2, 2), (1, 1)]).last_hidden_state
    first = encoder(tiles[:4], grids=[(2, 2)]).last_hidden_state
    second = encoder(tiles[4:]).last_hidden_state
    torch.testing.assert_close(together, torch.cat((first, second)), atol=1e-5, rtol=1e-5)


def test_gradient_reaches_every_parameter() -> None:
    encoder = DocumentEncoder(DocumentEncoderConfig(tile_px=32))
    for layer in encoder.context:  # these start as the identity and would block the gradient
        torch.nn.init.normal_(layer.compress.weight, std=0.02)
    encoder(torch.rand(2, 3, 32, 32)).last_hidden_state.pow(2).mean().backward()
    without = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@torch.no_grad()
def test_trunk_equals_the_recogniser_it_was_copied_from() -> None:
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    try:
        path = find_recogniser()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    model = onnx.load(str(path))
    pool = next(node for node in model.graph.node if node.op_type == "AveragePool").output[0]
    model.graph.output.append(onnx.helper.make_tensor_value_info(pool, 1, None))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    line = np.random.default_rng(0).standard_normal((1, 3, 48, 96)).astype(np.float32)
    (expected,) = session.run([pool], {session.get_inputs()[0].name: line})
    trunk = Trunk().eval()
    load_trunk(trunk, path)
    pooled = torch.nn.functional.avg_pool2d(trunk(torch.from_numpy(line))[1], (3, 2)).numpy()
    np.testing.assert_allclose(pooled, expected, atol=1e-4)
