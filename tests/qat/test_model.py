"""Networks: what teacher and student must have in common, and the names of their parameters."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemmaq.qat import model
from gemmaq.sources.open import open_source
from inprocess import run
from small import words

pytest.importorskip("torch")


def test_teacher_and_student_must_be_one_model(source: Path, tiny: Path, text: Path, tmp_path: Path) -> None:
    said = run(*words(source, text, tmp_path / "out", "--start", tiny), code=3).stderr
    assert "teacher and student are different models" in said and "model.embed_tokens.weight" in said


def test_parameters_have_the_names_of_the_checkpoint(source: Path) -> None:
    family = open_source(str(source)).family
    assert model.canonical("layers.3.mlp.up_proj.weight", family) == family.names.in_layer(3, "mlp.up_proj")
    wrapped = "layers.3._checkpoint_wrapped_module.mlp.up_proj.weight"
    assert model.canonical(wrapped, family) == family.names.in_layer(3, "mlp.up_proj")
    assert model.canonical("norm", family) == family.names.FINAL_NORM
    assert model.canonical("embedding", family) == family.names.EMBEDDING
