"""Sensitivities as tables and as JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from damage import small_model
from gemmaq.calibration.sensitivity_forecast import Forecast
from gemmaq.checkpoint import Checkpoint
from gemmaq.cli.views.sensitivity import document, planned, show
from gemmaq.planning.sensitivities import Group, Sensitivities
from gemmaq.sources.open import open_source


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_source(str(small_model(tmp_path_factory.mktemp("model") / "gemma-3-small")))


def found(checkpoint: Checkpoint) -> Sensitivities:
    groups = tuple(
        Group((name,), {"nearest": {"q4_0": 0.01 * (at + 1)}, "gptq": {"q4_0": 0.002}}, ("q4_0",))
        for at, name in enumerate(checkpoint.matrices)
    )
    return Sensitivities("gemma-3-small", "0", ("a.txt",), "0", 448, 512, groups)


def test_kinds_and_the_most_and_least_sensitive_tensors_are_shown(
    checkpoint: Checkpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    show(found(checkpoint), checkpoint)
    lines = capsys.readouterr().out.splitlines()
    kinds = [line for line in lines if "%" in line]
    assert len(kinds) == 7
    assert kinds[0].split()[0] == list(checkpoint.matrices.values())[-1].place.kind
    listed = [line for line in lines if line.strip().startswith("model.layers")]
    assert len(listed) == 10
    assert list(checkpoint.matrices)[-1] in listed[0]
    assert next(iter(checkpoint.matrices)) in listed[-1]


def test_json_has_every_group(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("{}")
    said = document(path, found(checkpoint), coarse=False)
    assert len(said["groups"]) == 14
    assert said["groups"][1]["kl"] == {"nearest": 0.02, "importance": 0.02, "gptq": 0.002}


@pytest.mark.parametrize(
    ("seconds", "words"), [(40.2, "41 seconds"), (600, "10 minutes"), (9000, "2.5 hours"), (None, "no rate")]
)
def test_a_forecast_is_in_words(seconds: float | None, words: str) -> None:
    lines = planned(Forecast(127, False, 896, 16384, 2000, 10**9, 10**8, seconds))
    assert any(words in line for line in lines)
    assert "127 (single tensors)" in lines[0]
