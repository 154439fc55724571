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
        ("medgemma-27b-text-it", "medgemma-27b-text-it", "Medgemma 27b Text It", "medgemma", "text-it"),
        ("shieldgemma-2-4b-it", "shieldgemma-2-4b-it", "Shieldgemma 2 4b It", "shieldgemma-2", "it"),
        ("gemma-4-E2B-it", "gemma-4-E2B-it", "Gemma 4 E2B It", "gemma-4", "it"),
        (
            "gemma-4-26B-A4B-it-qat-q4_0-unquantized",
            "gemma-4-26B-A4B-it-qat",
            "Gemma 4 26B A4B It Qat",
            "gemma-4",
            "it-qat",
        ),
        ("gemma-3n-E4B", "gemma-3n-E4B", "Gemma 3n E4B", "gemma-3n", None),
        ("my-model", "my-model", "My Model", None, None),
        ("mtp-mmproj-my-model", "my-model", "My Model", None, None),
        ("mmproj", "model", "Model", None, None),
    ],
)
def test_parts_of_a_name(name: str, stem: str, title: str, basename: str | None, finetune: str | None) -> None:
    found = identify(name)
    assert (found.stem, found.title, found.basename, found.finetune) == (stem, title, basename, finetune)


@pytest.mark.parametrize(
    ("name", "stem", "target"),
    [
        ("gemma-4-E2B-it-assistant", "gemma-4-E2B-it-assistant", "gemma-4-E2B-it"),
        ("gemma-4-12B-it-qat-q4_0-unquantized-assistant", "gemma-4-12B-it-qat-assistant", "gemma-4-12B-it-qat"),
        ("my-model", "my-model", "my-model"),
    ],
)
def test_a_drafter_is_named_after_its_target(name: str, stem: str, target: str) -> None:
    assert (identify(name).stem, identify(name).target) == (stem, target)


def test_repositories_of_the_publisher() -> None:
    assert identify("gemma-3-4b-it").official == "google/gemma-3-4b-it"
    for name in ("functiongemma-270m-it", "medgemma-1.5-4b-it", "translategemma-12b-it", "shieldgemma-2-4b-it"):
        assert identify(name).official == f"google/{name}"
    assert identify("my-model").official is None
    assert identify("gemma-3-4b-my-tune").official is None


def test_a_name_of_dropped_words_alone_is_kept() -> None:
    assert identify("unquantized").stem == "unquantized"


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ('my "model"', "my-model"),
        ("a\nb", "a-b"),
        ("$(touch x)", "touch-x"),
        ("模型 4b", "4b"),
        ("../x", "x"),
        ("--help", "help"),
        ("{{ x }}", "x"),
        ("|`[", "model"),
        ("x" * 300, "x" * 96),
    ],
)
def test_files_have_names_that_the_hub_allows(name: str, stem: str) -> None:
    assert identify(name).stem == stem
