"""The one sentence of an error, and its places as fields."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemmaq.errors import InputError, NotFoundError, nearest, unknown


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


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("q4_o", ["q4_0"]),
        ("Q4-0", ["q4_0"]),
        ("int4", ["q4_0"]),
        ("gptq", []),
        ("q8_k", ["q8_0"]),
    ],
)
def test_near_names(name: str, near: list[str]) -> None:
    found = nearest(name, ["q4_0", "q4_k_m", "q8_0", "bf16"], {"int4": "q4_0"})
    assert found[: len(near)] == near and bool(found) == bool(near)


def test_an_unknown_name_is_told_with_near_ones_and_all() -> None:
    error = unknown("colour", "gren", ("red", "green"))
    assert (error.message, error.hint) == ("unknown colour 'gren'", "did you mean green? known: red, green")
    assert unknown("colour", "gren", ("red", "green"), every="see --help").hint == "did you mean green? see --help"
    assert unknown("colour", "xyz", ("red", "green"), every="see --help").hint == "known: red, green"
