"""Machine code that comes with a wheel: it does what numba's does, and where it cannot, numba's is called."""

from __future__ import annotations

import importlib
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kernel_samples
from gemmaq import jit
from gemmaq.jit import native

BUILD = Path(__file__).parents[2] / ".ci/kernels.py"
FUNCTIONS = """\
kernel_samples.pairs float32[2] float64 -> (float64,int64)
kernel_samples.pairs float32[2]~ float64 -> (float64,int64)
kernel_samples.shifted uint8[1] (int64,int64) float32 -> none
kernel_samples.by_rule float64[1] kernel_samples.Pair(int64,float64,(float64[1])) -> none
kernel_samples.is_small int64 -> bool
kernel_samples.with_room int64 -> float64
"""
CPUINFO = "processor\t: 0\nflags\t\t: fpu {}\n\nprocessor\t: 1\nflags\t\t: fpu\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with libraries of these functions and their list."""
    if sys.platform != "linux" or shutil.which("cc") is None or native_level() is None:
        pytest.skip("libraries are made on Linux on x86-64, with a C compiler")
    folder = tmp_path_factory.mktemp("native")
    (folder / "kernels.txt").write_text(FUNCTIONS)
    level = native_level()
    script = [sys.executable, BUILD, level, folder / f"kernels-{level}.so", folder / "kernels.txt"]
    path = ":".join([str(Path(kernel_samples.__file__).parent), str(Path(jit.__file__).parents[2])])
    subprocess.run(script, check=True, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": path})
    return folder


def native_level() -> str | None:
    return native.level(Path("/proc/cpuinfo").read_text())


@pytest.fixture
def samples(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The functions, called from the library; numba's would fail."""
    monkeypatch.setattr(native, "FOLDER", folder)
    monkeypatch.setattr(native, "LIST", folder / "kernels.txt")
    forget()
    yield importlib.reload(kernel_samples)
    forget()
    monkeypatch.undo()
    importlib.reload(kernel_samples)


def forget() -> None:
    native.opened.cache_clear()
    native._functions.cache_clear()


def test_results_and_writes_are_those_of_numba(samples: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = np.random.default_rng(1).standard_normal((6, 8)).astype(np.float32)
    wanted = samples.pairs.made(numbers, 0.5), samples.pairs.made(numbers[:, ::2], 0.5)
    monkeypatch.setattr(jit, "_jit", lambda *_: pytest.fail("numba was asked"))
    samples = importlib.reload(samples)
    assert samples.pairs(numbers, 0.5) == wanted[0]
    assert samples.pairs(numbers[:, ::2], 0.5) == wanted[1]
    out = np.zeros(3, np.uint8)
    assert samples.shifted(out, (2, 5), np.float32(1)) is None
    assert out.tolist() == [8, 8, 8]
    doubled = np.zeros(3)
    samples.by_rule(doubled, samples.Pair(1, 2.0, (np.arange(3.0),)))
    assert doubled.tolist() == [1, 3, 5]
    assert samples.is_small(-7) is True and samples.is_small(7) is False
    assert samples.with_room(1000) == 499500.0


def test_what_the_library_lacks_is_compiled(samples: Any) -> None:
    assert samples.pairs(np.ones((2, 3), np.float64), 0.5) == (3.0, 6)  # other types
    assert samples.unlisted(np.arange(4)) == 12  # and a function that calls others


def test_memory_that_cannot_be_had_is_an_error(samples: Any) -> None:
    with pytest.raises(MemoryError):
        samples.with_room(1 << 55)


def test_the_level_of_a_processor() -> None:
    features = native.LEVELS
    assert native.level(CPUINFO.format(" ".join(features["x86-64-v3"]))) == "x86-64-v3"
    assert native.level(CPUINFO.format(" ".join(features["x86-64-v4"]))) == "x86-64-v4"
    assert native.level(CPUINFO.format("avx2 fma")) is None
    assert native.level("Features\t: fp asimd\n") is None


def test_without_a_library_numba_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "FOLDER", tmp_path)
    forget()
    assert native.functions("kernel_samples.pairs") == {}
    level = native_level()
    if level is not None:
        (tmp_path / f"kernels-{level}.so").write_bytes(b"\x7fELF of another system")
        forget()
        assert native.opened() is None
    forget()


@pytest.mark.parametrize(
    ("value", "spelled"),
    [
        (np.zeros((2, 3), np.float32), "float32[2]"),
        (np.zeros((2, 3), np.float32)[:, ::2], "float32[2]~"),
        (np.uint16(3), "uint16"),
        ((1, 2.5, True), "(int64,float64,bool)"),
        (kernel_samples.Pair(1, 2.0, (np.zeros(1),)), "kernel_samples.Pair(int64,float64,(float64[1]))"),
        (1 << 63, None),
        (np.zeros(2, ">f4"), None),
        (np.zeros(9, np.uint8)[1:].view(np.float32), None),
        ("word", None),
        (None, None),
    ],
)
def test_types_of_arguments(value: Any, spelled: str | None) -> None:
    assert native.spelled(value) == spelled


def test_kinds_tell_apart_what_is_spelled_differently() -> None:
    values = [
        np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32)[:, ::2], np.zeros(3, np.float32), np.zeros(3),
        np.zeros(9, np.uint8)[1:].view(np.float32), 1, 1 << 63, 1.0, True, np.float32(1),
        (1, 2), (1, 1 << 63), (1, 2.0), kernel_samples.Pair(1, 2),
    ]  # fmt: skip
    assert len({native.kind(value) for value in values}) == len(values)


def test_every_function_listed_is_one() -> None:
    for name, kinds in native.listed().items():
        module, _, attribute = name.rpartition(".")
        assert isinstance(getattr(importlib.import_module(module), attribute), jit.Kernel), name
        assert kinds


@pytest.mark.parametrize(
    ("libraries", "system"),
    [
        ((b"\0GLIBC_2.2.5\0malloc",), "manylinux_2_17_x86_64"),
        ((b"\0GLIBC_2.2.5\0", b"\0GLIBC_2.2.5\0GLIBC_2.29\0log2"), "manylinux_2_29_x86_64"),
        ((b"\0GLIBC_2.2.5\0GLIBC_ABI_DT_RELR\0",), "manylinux_2_36_x86_64"),
        ((b"\0libc.musl-x86_64.so.1\0",), "linux_x86_64"),
    ],
)
def test_a_wheel_names_the_systems_that_its_libraries_run_on(libraries: tuple[bytes, ...], system: str) -> None:
    assert runpy.run_path(str(BUILD))["system"](libraries) == system


def test_loops_need_nothing_newer_than_what_every_system_has(folder: Path) -> None:
    build = runpy.run_path(str(BUILD))
    libraries = [path.read_bytes() for path in [*folder.glob("*.so"), *native.FOLDER.glob("*.so")]]
    assert build["system"](libraries) == "manylinux_2_17_x86_64"
