"""Names of models, taken apart."""

from __future__ import annotations

import pytest

from gemmaq.models.identity import identify


@pytest.mark.parametrize(
    ("name", "stem", "title", "basename", "finetune"),
    [
        ("gemma-3-4b-it", "gemma-3-4b-it", "Gemma 3 4b It", "gemma-3", "it"),
        ("gemma-3-270m", "gemma-3-270m", "Gemma 3 270m", "gemma-3", None),
        ("gemma-3-4b-it-qat-q4_0-unquantized", "gemma-3-4b-it-qat", "Gemma 3 4b It Qat", "gemma-3", "it-qat"),
        ("my-model", "my-model", "My Model", None, None),
    ],
)
def test_parts_of_a_name(name: str, stem: str, title: str, basename: str | None, finetune: str | None) -> None:
    found = identify(name)
    assert (found.stem, found.title, found.basename, found.finetune) == (stem, title, basename, finetune)


def test_repositories_of_the_publisher() -> None:
    assert identify("gemma-3-4b-it").official == "google/gemma-3-4b-it"
    assert identify("my-model").official is None
    assert identify("gemma-3-4b-my-tune").official is None


def test_a_name_of_dropped_words_alone_is_kept() -> None:
    assert identify("unquantized").stem == "unquantized"
