"""The work folder: what may be removed and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemmaq.errors import OutputError
from gemmaq.qat import work
from inprocess import run
from small import words

pytest.importorskip("torch")


def test_only_what_training_wrote_is_removed(tmp_path: Path) -> None:
    folder = work.folder_of(tmp_path / "out")
    assert folder == tmp_path / "out.work"
    (folder / "step-0000002").mkdir(parents=True)
    (folder / "layer-0000.safetensors").touch()
    (folder / "notes.txt").touch()
    with pytest.raises(OutputError, match=r"notes\.txt, which gemmaq did not write"):
        work.remove(folder)
    (folder / "notes.txt").unlink()
    work.remove(folder)
    assert not folder.exists()


def test_a_later_run_continues_from_states_layers_and_samples(tmp_path: Path) -> None:
    for name, resumable in (("dithered-0.bf16", False), ("teacher-samples.i32", True), ("step-0000002", True)):
        (tmp_path / name).touch()
        assert work.has_state(tmp_path) is resumable
        (tmp_path / name).unlink()


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_an_unfinished_training_is_not_thrown_away(
    source: Path, text: Path, tmp_path: Path, dry_run: list[str]
) -> None:
    (tmp_path / "out.work" / "step-0000002").mkdir(parents=True)
    said = run(*words(source, text, tmp_path / "out", *dry_run), code=7).stderr
    assert "holds an unfinished training" in said and "--resume continues it" in said
