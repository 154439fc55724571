"""The one sentence of an error, and its places as fields."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemmaq.errors import InputError, NotFoundError


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (InputError("the text is empty"), "the text is empty"),
        (InputError("is not a GGUF file", path=Path("a/b.gguf")), "a/b.gguf is not a GGUF file"),
        (InputError("two shards differ", path="a"), "a: two shards differ"),
        (InputError("has 5 dimensions", path="a.gguf", tensor="x"), "a.gguf: tensor x has 5 dimensions"),
        (InputError("holds NaN", tensor="x"), "tensor x holds NaN"),
        (InputError("is 3", path="a.gguf", key="general.alignment"), "a.gguf: key general.alignment is 3"),
    ],
)
def test_the_sentence(error: InputError, sentence: str) -> None:
    assert error.message == str(error) == sentence


def test_places_can_be_filled_in_and_replaced() -> None:
    error = NotFoundError("has no row 3", "try another", tensor="x")
    moved = error.at(path="a.gguf").at(path="b.gguf")
    assert type(moved) is NotFoundError
    assert (moved.message, moved.hint) == ("b.gguf: tensor x has no row 3", "try another")
    assert error.path is None


def test_a_path_is_spelled_from_a_folder() -> None:
    error = InputError("is truncated", path="/tmp/copy/model/a.gguf", tensor="x")
    assert error.relative_to(Path("/tmp/copy")).path == "model/a.gguf"
    assert error.relative_to(Path("/tmp/copy"), "org/name").path == "org/name/model/a.gguf"
    assert error.relative_to(Path("/tmp/other")).path == error.path
    assert InputError("is odd", path="/tmp/copy").relative_to(Path("/tmp/copy"), "org/name").path == "org/name"
    assert InputError("it is odd").relative_to(Path("/tmp")).path is None
