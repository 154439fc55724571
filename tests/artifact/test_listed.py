"""SHA256SUMS: sha256sum reads it, it lists every file, and reports agree with it."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from gemmaq.files import sums
from inprocess import run
from kinds import KINDS, folders


@pytest.mark.parametrize("kind", KINDS)
def test_sha256sum_reads_the_list_and_it_lists_everything(kind: str, made: dict[str, Path]) -> None:
    for folder in folders(made[kind]):
        command = ["sha256sum", "-c", "--strict", "--quiet", "SHA256SUMS"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        names = [line[66:] for line in (folder / "SHA256SUMS").read_text().splitlines()]
        assert names == sorted({path.name for path in folder.iterdir()} - {"SHA256SUMS"})


def test_the_report_has_the_digests_of_the_list(source: Path, tmp_path: Path) -> None:
    said = json.loads(run("convert", source, "--to", "mlx", "--json", "-o", tmp_path / "out").stdout)
    listed = sums.read(tmp_path / "out")
    for file in said["artifacts"][0]["files"]:
        content = (tmp_path / "out" / file["path"]).read_bytes()
        assert file["sha256"] == listed[file["path"]] == hashlib.sha256(content).hexdigest()
