"""What a card says of how its models were made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gemmaq.artifact import card, card_making, description
from gemmaq.artifact.description import Model
from gemmaq.artifact.footprint import UNKNOWN
from gemmaq.planning.request import Calibration, Matrix
from gemmaq.sources.open import open_source
from kinds import folders

TEXTS = Calibration(("talk.jsonl", "code.txt"), "", tokens=16384, context=512, used=9000)
MATRIX = replace(TEXTS, texts=(), matrix=Matrix("imatrix.gguf", ("wiki.txt",), 26, 120))


@pytest.fixture
def model(made: dict[str, Path]) -> Model:
    (folder,) = folders(made["gguf"])
    return description.of_checkpoint(open_source(str(folder)), folder)


@pytest.mark.parametrize(
    ("methods", "calibration", "words"),
    [
        (("gptq", "nearest"), TEXTS, "Calibrated on talk.jsonl and code.txt: 9,000 tokens, in sequences of 512."),
        (("gptq",), replace(TEXTS, used=0), "Calibrated on talk.jsonl and code.txt: up to 16,384 tokens"),
        (("importance",), MATRIX, "Importance matrix: `imatrix.gguf`, 120 sequences of wiki.txt, 9,000 tokens."),
        (("importance",), replace(MATRIX, used=0, matrix=Matrix("i.dat", (), 3, 0)), "Importance matrix: `i.dat`."),
        (("importance",), replace(MATRIX, matrix=None), "Calibrated by an importance matrix."),
        (("nearest",), None, "`nearest`: round to the nearest value"),
    ],
)
def test_methods_and_calibration(
    methods: tuple[str, ...], calibration: Calibration | None, words: str, model: Model
) -> None:
    said = card.text(None, [replace(model, methods=methods, calibration=calibration)], [], memory=UNKNOWN)
    assert words in said
    assert ("alibrat" in said or "Importance" in said) == (calibration is not None)
    assert ", ".join(f"`{name}`" for name in methods) in said


def test_models_that_were_calibrated_otherwise_are_named(model: Model) -> None:
    plain = replace(model, files=("model-Q8_0.gguf",), body="q8_0", methods=("nearest",))
    tuned = replace(model, files=("model-Q4_0.gguf",), methods=("gptq",), calibration=TEXTS)
    assert "in sequences of 512 (Q4_0).\n" in card.text(None, [plain, tuned], [], memory=UNKNOWN)
    assert "in sequences of 512.\n" in card.text(None, [tuned], [], memory=UNKNOWN)


def test_the_source_with_its_commit(model: Model) -> None:
    known = replace(model, repo="google/gemma-3-tiny", revision="0123456789abcdef")
    said = card.text(None, [known], [], memory=UNKNOWN)
    assert "[google/gemma-3-tiny](https://huggingface.co/google/gemma-3-tiny), commit `0123456789ab`." in said
    assert "The source is [" not in card.text(None, [model], [], memory=UNKNOWN)


def test_codes_that_were_chosen_a_second_time(model: Model) -> None:
    twice = replace(model, requantized=126)
    assert "The weights of 126 tensors were rounded a second time" in card.text(None, [twice], [], memory=UNKNOWN)
    assert "second time" not in card.text(None, [model], [], memory=UNKNOWN)
    several = card_making.requantized([model, replace(twice, requantized=1), twice])
    assert several.startswith(f"The weights of 1 tensor of {model.label} and 126 tensors of {model.label} were")
