"""The use case of every conversion: refuse early, calibrate, write, finish."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from damage import tree
from gemmaq.checkpoint import Checkpoint
from gemmaq.convert.run import Conversion, Options, artifacts, prepare, run
from gemmaq.errors import InputError, OutputError, UsageError
from gemmaq.files import sums
from gemmaq.planning.recipe import of
from gemmaq.planning.request import Request
from gemmaq.progress import Progress
from gemmaq.sources.open import open_source


@pytest.fixture(scope="module")
def checkpoint(tiny: Path) -> Checkpoint:
    return open_source(str(tiny))


def conversion(checkpoint: Checkpoint, folder: Path, quant: str = "q4_0", method: str = "nearest") -> Conversion:
    return Conversion(checkpoint, (Request(of(quant, embedding=None, method=method), ("gguf", "mlx")),), folder)


def test_plans_are_carried_out_and_finished(checkpoint: Checkpoint, tmp_path: Path) -> None:
    reports: list[Progress] = []
    job = conversion(checkpoint, tmp_path / "out")
    prepared = prepare(job)
    assert tree(tmp_path) == {} and prepared.fits == {}
    options = Options(2, extra_files=lambda: {"notes.txt": b"mine"})
    result = run(job, prepared.plans, options, reports.append)
    assert [plan for artifact in result.artifacts for plan in artifact.plans] == prepared.plans
    assert reports[-1].done == reports[-1].total and {report.task for report in reports} == {f"writing {job.folder}"}
    for artifact in result.artifacts:
        assert (artifact.folder / "notes.txt").read_bytes() == b"mine"
        listed = sums.read(artifact.folder)
        assert listed is not None and listed["notes.txt"] == hashlib.sha256(b"mine").hexdigest()
        assert listed.keys() == {path.name for path in artifact.folder.iterdir()} - {sums.NAME}
        outcomes = result.outcomes.outcomes(artifact.plans[0])
        assert [outcome.name for outcome in outcomes] == [tensor.name for tensor in artifact.plans[0].tensors]


def test_what_can_be_refused_at_once_is_refused_when_preparing(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for dry_run in (False, True):
        with pytest.raises(OutputError, match="exists"):
            prepare(conversion(checkpoint, tmp_path / "out"), dry_run=dry_run)
        with pytest.raises(InputError, match="mlx cannot hold"):
            prepare(conversion(checkpoint, tmp_path / "new", "q4_k"), dry_run=dry_run)
    assert prepare(conversion(checkpoint, tmp_path / "out"), force=True).plans


def test_a_calibrated_method_without_text_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    job = conversion(checkpoint, tmp_path / "out", method="gptq")
    plans = prepare(job).plans
    with pytest.raises(UsageError, match="gptq"), artifacts(job, plans, Options(1)):
        pass
    with pytest.raises(UsageError, match="gptq"):
        run(job, plans, Options(1))
    assert tree(tmp_path) == {}
