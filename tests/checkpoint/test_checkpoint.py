"""A checkpoint answers by role: its embedding, its head, the tensors of a layer, the type of most of its weights."""

from __future__ import annotations

import pytest

from damage import SMALL, small_model
from gemmaq.checkpoint import Checkpoint, plain
from gemmaq.encodings import ENCODINGS
from gemmaq.files.span import FileSpan
from gemmaq.models.roles import NOWHERE, Role
from gemmaq.sources.open import open_source


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_source(str(small_model(tmp_path_factory.mktemp("model") / "gemma-3-tiny")))


def test_tensors_are_found_by_role(checkpoint: Checkpoint) -> None:
    assert checkpoint.embedding.place.role is Role.EMBEDDING and checkpoint.head is None
    assert checkpoint.final_norm.shape == (SMALL.hidden_size,)
    layers = [checkpoint.layer(index) for index in range(SMALL.num_hidden_layers)]
    assert sum(map(len, layers)) + 2 == len(checkpoint.tensors)
    assert all(tensor.place.layer == 1 for tensor in layers[1].values())


def test_sizes_are_sums_over_tensors(checkpoint: Checkpoint) -> None:
    assert checkpoint.body.name == "bf16"
    assert checkpoint.parameters == SMALL.parameters
    assert checkpoint.towers_bytes == 0 and len(checkpoint.files) == 1


@pytest.mark.parametrize(
    ("shape", "rows", "columns"), [((6, 32), 6, 32), ((32,), 1, 32), ((), 1, 1), ((2, 3, 32), 6, 32)]
)
def test_rows_and_bytes_of_a_tensor(shape: tuple[int, ...], rows: int, columns: int) -> None:
    tensor = plain("x", shape, ENCODINGS["bf16"], span=FileSpan((), (), 0), offset=7)
    assert (tensor.rows, tensor.columns, tensor.nbytes) == (rows, columns, 2 * rows * columns)
    assert tensor.place == NOWHERE and tensor.parts[0].offset == 7
