"""Tensors found in files become those of a model: checked, ordered and with a place each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from damage import SMALL
from gemmaq.checkpoint import Tensor, plain
from gemmaq.checkpoint.assemble import text_tensors
from gemmaq.encodings import ENCODINGS
from gemmaq.errors import InputError
from gemmaq.files.span import FileSpan
from gemmaq.models.families import FAMILIES
from gemmaq.models.roles import Role

FAMILY = FAMILIES[0]
NOWHERE = FileSpan((), (), 0)


def model() -> dict[str, Tensor]:
    return {
        name: plain(name, shape, ENCODINGS["bf16"], span=NOWHERE, offset=0)
        for name, shape in FAMILY.names.shapes(SMALL)
    }


def assembled(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return text_tensors(reversed(tensors.values()), FAMILY, SMALL, origin="here")[0]


def test_tensors_come_in_the_order_of_files_with_their_places() -> None:
    tensors = assembled(model())
    assert list(tensors) == list(model())
    assert all(tensor.place == FAMILY.names.place(name) for name, tensor in tensors.items())
    assert all(tensor.place.role is not Role.SCALAR for tensor in tensors.values())


def test_rows_beyond_the_vocabulary_are_cut() -> None:
    tensors = model()
    name = FAMILY.names.EMBEDDING
    rows, columns = tensors[name].shape
    tensors[name] = replace(tensors[name], shape=(rows + 64, columns))
    assert assembled(tensors)[name].shape == (rows, columns)
    tensors[name] = replace(tensors[name], shape=(rows - 1, columns))
    with pytest.raises(InputError, match="has shape"):
        assembled(tensors)


def test_a_head_that_is_the_embedding_itself_is_dropped_with_a_note() -> None:
    tensors = model()
    tensors[FAMILY.names.HEAD] = replace(tensors[FAMILY.names.EMBEDDING], name=FAMILY.names.HEAD)
    result, notes = text_tensors(tensors.values(), FAMILY, SMALL, origin="here")
    assert FAMILY.names.HEAD not in result and any("repeats the embedding" in note for note in notes)


def test_tensors_of_something_else_are_left_out_with_a_note() -> None:
    tensors = model()
    tensors["other.weight"] = plain("other.weight", (2, 2), ENCODINGS["bf16"], span=NOWHERE, offset=0)
    result, notes = text_tensors(tensors.values(), FAMILY, SMALL, origin="here")
    assert "other.weight" not in result and any("other.weight" in note for note in notes)


def test_a_tensor_that_is_missing_or_there_twice_is_refused() -> None:
    tensors = model()
    last = list(tensors)[-1]
    with pytest.raises(InputError, match="two tensors"):
        text_tensors([*tensors.values(), tensors[last]], FAMILY, SMALL, origin="here")
    del tensors[last]
    with pytest.raises(InputError, match="lacks tensor"):
        assembled(tensors)
