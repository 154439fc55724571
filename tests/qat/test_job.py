"""What must be equal for a training to continue."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gemmaq.qat.data import TokenDataset
from gemmaq.qat.job import TrainingJob, fingerprint, identity
from gemmaq.qat.settings import STEPS, Settings
from gemmaq.sources.open import open_source
from small import Trained


def job(source: Path) -> TrainingJob:
    return TrainingJob(source=open_source(str(source)), start=None, settings=Settings(), out=Path("out"))


def test_a_fingerprint_tells_weights_apart(source: Path, trained: Trained) -> None:
    one, other = open_source(str(source)), open_source(str(trained.folder))
    assert fingerprint(one) == fingerprint(open_source(str(source))) != fingerprint(other)


def test_steps_and_folder_may_change_but_settings_and_mode_may_not(source: Path) -> None:
    data, plain = TokenDataset(None, None, ("a",), "digest"), job(source)
    same = replace(plain, steps=7, out=Path("other"), minutes=3.0, save_steps=1)
    assert identity(plain, data, {}) == identity(same, data, {})
    for other in (replace(plain, settings=Settings(seed=1)), replace(plain, block_wise=True)):
        assert identity(plain, data, {}) != identity(other, data, {})


def test_steps_are_the_default_unless_the_clock_decides(source: Path) -> None:
    assert job(source).planned_steps == STEPS
    assert replace(job(source), minutes=1.0).planned_steps is None
    assert replace(job(source), minutes=1.0, steps=9).planned_steps == 9
