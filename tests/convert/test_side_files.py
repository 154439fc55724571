"""Artifacts as `convert` finishes them: the same bytes in every run, and replaced only when asked."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from damage import tree
from inprocess import run
from kinds import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_two_runs_write_the_same_bytes(
    kind: str, sources: dict[str, Path], made: dict[str, Path], tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(sources[kind], tmp_path / "elsewhere" / sources[kind].name))
    for number, threads in enumerate((1, 4)):
        run("convert", moved, "-q", *KINDS[kind], "--threads", threads, "-o", tmp_path / str(number))
        assert tree(tmp_path / str(number)) == tree(made[kind])
    said = b"".join(
        content for name, content in tree(made[kind]).items() if content and name.endswith((".json", ".md"))
    )
    for secret in (str(made[kind].parents[1]), str(tmp_path)):
        assert secret.encode() not in said


def test_an_artifact_may_be_replaced(source: Path, tmp_path: Path) -> None:
    run("convert", source, "-q", "-o", tmp_path / "out")
    run("convert", source, "-q", "-o", tmp_path / "out", "--quant", "q8_0", "--force")
    assert run("verify", tmp_path / "out", "-q").stdout == ""
