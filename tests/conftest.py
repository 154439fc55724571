"""Fixtures: the command line, the real 270M in several shapes, and the oracles."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from small import tokenizer
from synthetic import TINY, write_checkpoint

# A shell's background and nohup ignore these signals, and processes that tests start would do so, too.
for ignored, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(ignored) == signal.SIG_IGN:
        signal.signal(ignored, usual)

# Under this variable each of the many processes that tests start would compile torch and transformers anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Workers of pytest-xdist share the cores: threads that wait for one another take twice the time there.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Kernels are compiled at the first call, and a machine may be busy.
hypothesis.settings.register_profile("without a deadline", deadline=None)
hypothesis.settings.load_profile("without a deadline")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What gemmaq keeps from run to run is not the user's, and not kept."""
    os.environ["GEMMAQ_CACHE"] = str(tmp_path_factory.mktemp("cache"))


Run = Callable[..., subprocess.CompletedProcess[str]]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-oracles", action="store_true", help="fail where an oracle is missing, do not skip")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that both workers have something to do until the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def gemmaq() -> Run:
    """Run the command line as a user would; asserts the exit code and that no traceback shows."""

    def run(
        *arguments: object, code: int = 0, cwd: Path | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gemmaq", *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **(env or {})}, timeout=600
        )
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a few layers in three shards, with Gemma's tokenizer cut to its vocabulary."""
    folder = tmp_path_factory.mktemp("tiny") / "gemma-3-tiny"
    write_checkpoint(folder, TINY, shard_bytes=100_000)
    for name, content in tokenizer(TINY.vocab_size).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="session")
def sample_bf16(tmp_path_factory: pytest.TempPathFactory, gemmaq: Run) -> Path:
    """The real 270M as a BF16 Hugging Face folder, made by gemmaq."""
    folder = tmp_path_factory.mktemp("sample") / "gemma-3-270m"
    gemmaq("convert", "sample:gemma-3-270m", "--to", "safetensors", "--quant", "bf16", "-o", folder)
    return folder


@pytest.fixture(scope="session")
def sample_q4_0(tmp_path_factory: pytest.TempPathFactory, gemmaq: Run, sample_bf16: Path) -> Path:
    """The real 270M as a Q4_0 GGUF, made from the BF16 folder."""
    folder = tmp_path_factory.mktemp("sample") / "out"
    gemmaq("convert", sample_bf16, "--quant", "q4_0", "-o", folder)
    return folder / "gemma-3-270m-Q4_0.gguf"


@pytest.fixture(scope="session")
def sample_portable(tmp_path_factory: pytest.TempPathFactory, gemmaq: Run, sample_bf16: Path) -> Path:
    """The real 270M as a Q4_0 GGUF whose scales every container holds."""
    folder = tmp_path_factory.mktemp("sample") / "portable"
    gemmaq("convert", sample_bf16, "--quant", "q4_0", "--portable", "-o", folder)
    return folder / "gemma-3-270m-Q4_0.gguf"


@pytest.fixture(scope="session")
def sample_model(sample_bf16: Path, sample_portable: Path, require: Callable[[bool, str], None]) -> Any:
    """The weights of `sample_portable` in transformers, f32. Who changes the model puts it back."""
    import runtimes

    runtimes.need(require, "torch", "transformers")
    model = runtimes.dense(sample_bf16)
    runtimes.put(model, sample_portable)
    return model


@pytest.fixture(scope="session")
def sample_text(sample_model: Any) -> Any:
    """What `sample_model` makes of the prompt of `runtimes`."""
    import runtimes

    return runtimes.greedy(sample_model)


@pytest.fixture(scope="session")
def require(request: pytest.FixtureRequest) -> Callable[[bool, str], None]:
    """Skip a test whose oracle is missing, or fail it under --require-oracles."""

    def check(present: bool, what: str) -> None:
        if present:
            return
        if request.config.getoption("--require-oracles"):
            pytest.fail(f"{what} is not installed")
        pytest.skip(f"{what} is not installed")

    return check
