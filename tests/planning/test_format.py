"""What containers demand."""

from __future__ import annotations

import pytest

from gemmaq import containers
from gemmaq.encodings import ENCODINGS
from gemmaq.planning.containers import CONTAINERS
from gemmaq.planning.format import PieceSpec, Stacking, array_name, no_constants, no_router, pieces_of, whole


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_holds_bf16_and_the_embedding_that_it_chooses(name: str) -> None:
    target = containers.writer(name).FORMAT
    assert target.name == name and "bf16" in target.encodings & target.embedding_encodings
    for body in target.encodings:
        assert target.default_embedding(ENCODINGS[body]) in target.embedding_encodings


def test_pieces_of_a_tensor_are_named_after_it() -> None:
    piece = PieceSpec("scales", "BF16", 2, 4)
    assert array_name("model.norm.weight", piece, 1) == "model.norm.weight"
    assert array_name("model.norm.weight", piece, 2) == "model.norm.scales"


def test_scales_get_the_type_that_is_asked_for_unless_they_take_a_byte() -> None:
    target = containers.writer("mlx").FORMAT
    for name, dtypes in (("q4_0", ["U32", "F16", "F16"]), ("mxfp4", ["U32", "U8"]), ("bf16", ["BF16"])):
        assert [piece.dtype for piece in pieces_of(target, ENCODINGS[name], 64, "f16")] == dtypes


def test_a_container_that_says_nothing_stores_stacks_whole_and_routers_like_vectors() -> None:
    q4_0 = ENCODINGS["q4_0"]
    assert (no_constants("x", (1,), q4_0, 1), whole(q4_0), no_router(q4_0)) == ((), Stacking.WHOLE, None)
