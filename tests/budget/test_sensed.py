"""Sensitivities are measured once, and measured again when weights, text, types or method are others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import made_up
from damage import edit_json, small_model
from gemmaq.budget import sensed
from gemmaq.calibration.complete import Basis
from gemmaq.errors import InputError
from gemmaq.planning.request import Calibration
from gemmaq.planning.sensitivities import Sensitivities, document
from gemmaq.sources.open import open_source

BASIS = Basis(Calibration(("a.txt",), "1" * 64), None, None)


def test_what_was_measured_is_read_the_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = open_source(str(small_model(tmp_path / "model")))
    asked: list[Sequence[str]] = []

    def measure(types: Sequence[str]) -> Sensitivities:
        asked.append(types)
        return made_up.sensitivities(checkpoint, seed=len(asked))

    def take(basis: Basis = BASIS, types: Sequence[str] = ("q4_0",), method: str = "auto") -> Sensitivities:
        return sensed.measured(checkpoint, basis, types, method=method, measure=measure, folder=tmp_path / "cache")

    first = take()
    assert document(take()) == document(first) and len(asked) == 1
    take(types=("q4_0", "q8_0"))
    take(method="gptq")
    take(replace(BASIS, calibration=replace(BASIS.calibration, tokens=99)))
    assert len(asked) == 4
    (entry, *_) = sorted((tmp_path / "cache").iterdir())
    for path in (tmp_path / "cache").iterdir():
        path.write_text("{")
    take()
    assert len(asked) == 5 and entry.is_file()
    monkeypatch.setenv("GEMMAQ_CACHE", str(tmp_path))
    assert sensed.default_folder() == tmp_path / "sensitivity"


def test_a_folder_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path) -> None:
    checkpoint = open_source(str(small_model(tmp_path / "model")))
    (tmp_path / "cache").write_text("a file")
    found = made_up.sensitivities(checkpoint)
    taken = sensed.measured(
        checkpoint, BASIS, ("q4_0",), method="auto", measure=lambda types: found, folder=tmp_path / "cache"
    )
    assert taken is found


def test_sensitivities_of_another_model_are_refused(tmp_path: Path) -> None:
    first = open_source(str(small_model(tmp_path / "one")))
    other = open_source(str(small_model(tmp_path / "two", seed=3)))
    path = tmp_path / "s.json"
    path.write_bytes(document(made_up.sensitivities(first, real=True)))
    assert sensed.given(path, first).model == "one"
    with pytest.raises(InputError, match="other weights"):
        sensed.given(path, other)
    edit_json(path, lambda said: said["groups"].clear())
    with pytest.raises(InputError, match="no tensors are in it"):
        sensed.given(path, first)
