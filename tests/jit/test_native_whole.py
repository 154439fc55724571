"""The whole library of a wheel: the same files as numba's, without numba, a home or a place to write to."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gemmaq
import kernel_tour
from gemmaq.jit import native
from inprocess import run

ROOT = Path(__file__).parents[2]
OPTIONS = (
    "--to gguf --to mlx --to safetensors",
    "--quant q4_1,q5_0,q5_1,q8_0,iq4_nl,mxfp4,f16 --portable",
    "--quant q2_k,q3_k,q4_k_m,q5_k,q6_k,iq4_xs,iq3_s --method nearest",
    "--to mlx --quant affine2,affine3-g64,affine4,affine6-g128,affine8,nvfp4,mxfp8",
    "--to safetensors --quant int4-g64,int4-channel,int8-channel,fp8",
)
NOT_WEIGHTS = ("gemmaq.json", "README.md", "SHA256SUMS")
SCRIPT = """
import sys
sys.modules["numba"] = sys.modules["llvmlite"] = None  # an import of them fails
from gemmaq.__main__ import main
main()
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the package as a wheel installs it, which nobody may write to."""
    level = native.level(Path("/proc/cpuinfo").read_text()) if sys.platform == "linux" else None
    if level is None or shutil.which("cc") is None:
        pytest.skip("libraries are made on Linux on x86-64, with a C compiler")
    folder = tmp_path_factory.mktemp("installed")
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(Path(gemmaq.__file__).parent, folder / "gemmaq", ignore=ignored)
    shutil.copytree(ROOT / "recipes", folder / "gemmaq/recipes")
    library = folder / "gemmaq/jit" / native.library(level).name
    subprocess.run([sys.executable, ROOT / ".ci/kernels.py", level, library], check=True)
    places = [folder / "gemmaq", *(folder / "gemmaq").rglob("*")]
    for path in places:
        path.chmod(path.stat().st_mode & ~0o222)
    yield folder
    for path in places:
        path.chmod(path.stat().st_mode | 0o200)


@pytest.mark.parametrize("options", OPTIONS)
def test_files_are_those_that_numba_makes(options: str, package: Path, tmp_path: Path) -> None:
    source = kernel_tour.model(tmp_path / "model")
    run("convert", source, *options.split(), "-o", tmp_path / "numba", "-q")
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": str(package)}
    command = [sys.executable, "-P", "-c", SCRIPT, "convert", source, *options.split(), "-o", tmp_path / "native", "-q"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert _files(tmp_path / "native") == _files(tmp_path / "numba")


def _files(folder: Path) -> dict[str, bytes]:
    """Path -> digest of the files of an artifact whose content is weights."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name not in NOT_WEIGHTS]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).digest() for path in paths}
