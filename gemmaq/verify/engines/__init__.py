"""Runtimes that `gemmaq verify --run` has decode an artifact. Each is an entry of ENGINES and a script `ask_<name>.py`.

A script runs in a process of its own, with nothing of gemmaq: it may belong to another environment. `process` says what
it is given and what it answers.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from gemmaq.checkpoint import Checkpoint
from gemmaq.errors import UsageError, unknown
from gemmaq.models.roles import Role
from gemmaq.planning.containers import of_checkpoint_format

_F32, _INT8, _BF16 = 0.05, 0.2, 0.8
"""How far logits computed in F32, from activations in 8 bits, or in BF16 may lie from gemmaq's (`Engine.share`).

On the real 270M in Q4_0, 16 or 24 tokens after a prompt, llama.cpp, which rounds activations to 8 bits, differed by up
to 0.05, MLX in F32 by 0.002, in BF16 by 0.33, transformers in F32 by 0.001. So MLX and transformers are asked for F32;
vLLM computes int4 in BF16 only.
"""


@dataclass(frozen=True, slots=True)
class Engine:
    """A runtime.

    Attributes:
        name: Value of `--runtime`.
        formats: Formats of checkpoints (`Checkpoint.format`) that it loads.
        script: Name of the script that drives it, in this package.
        packages: Python packages that it consists of; empty for a program.
        program: Program on PATH that is the runtime, or lies beside the Python that has it; None for none.
        install: Command or sentence that says how to get it.
        share: How far its logits may lie from gemmaq's, as a share of their standard deviation (see `running`).
        experts: Whether it reads quantized experts of folders.
    """

    name: str
    formats: tuple[str, ...]
    script: str
    packages: tuple[str, ...] = ()
    program: str | None = None
    install: str = ""
    share: float = _F32
    experts: bool = True


_FOLDERS = ("compressed-tensors", "safetensors")
ENGINES: dict[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine("xllamacpp", ("gguf",), "ask_llama.py", ("xllamacpp",), install="pip install xllamacpp", share=_INT8),
        Engine(
            "llama-server",
            ("gguf",),
            "ask_llama.py",
            program="llama-server",
            install="put llama-server on PATH",
            share=_INT8,
        ),
        Engine("mlx-lm", ("mlx",), "ask_mlx.py", ("mlx", "mlx_lm"), install="pip install 'mlx[cpu]' mlx-lm"),
        Engine(
            "transformers",
            _FOLDERS,
            "ask_transformers.py",
            ("transformers", "compressed_tensors"),
            install="pip install torch transformers compressed-tensors",
            experts=False,
        ),
        Engine("vllm", _FOLDERS, "ask_vllm.py", ("vllm",), program="vllm", install="pip install vllm", share=_BF16),
    )
}
"""Name -> runtime; of several that load an artifact and are installed, the first is taken."""


@dataclass(frozen=True, slots=True)
class Installed:
    """A runtime on this machine.

    Attributes:
        engine: The runtime.
        python: Python that runs its script.
        program: Path of the program, None where the runtime consists of packages.
    """

    engine: Engine
    python: Path
    program: Path | None = None


def find(engine: Engine) -> Installed | None:
    """A runtime on this machine: its packages beside gemmaq's, or its program on PATH; None if it is not there."""
    here = Path(sys.executable)
    if engine.packages and all(find_spec(package) is not None for package in engine.packages):
        return Installed(engine, here)
    path = shutil.which(engine.program) if engine.program is not None else None
    if path is None:
        return None
    if not engine.packages:
        return Installed(engine, here, Path(path))
    python = Path(path).resolve().with_name("python")  # of the environment that the program belongs to
    return Installed(engine, python) if python.is_file() else None


def choose(model: Checkpoint, name: str | None = None) -> Installed:
    """The runtime to run a model in: the one named, else the first that loads it and is installed.

    Raises:
        UsageError: There is none, the one named is unknown or does not load the model.
    """
    title = of_checkpoint_format(model.format).title
    able = [engine for engine in ENGINES.values() if _loads(engine, model)]
    if name is not None:
        engine = ENGINES[check(name)]
        if engine not in able:
            raise UsageError(f"{engine.name} does not load {model.location} ({title})", f"these do: {_names(able)}")
        able = [engine]
    found = next((found for engine in able if (found := find(engine)) is not None), None)
    if found is None:
        ways = dict.fromkeys(engine.install for engine in able)
        what = f"no runtime that loads {title} is installed" if name is None else f"{name} is not installed"
        raise UsageError(f"{what}: looked for {_names(able)}", ", or ".join(ways))
    return found


def check(name: str) -> str:
    """The runtime's name in lower case.

    Raises:
        UsageError: There is no such runtime.
    """
    if name.lower() not in ENGINES:
        raise unknown("runtime", name, ENGINES)
    return name.lower()


def _loads(engine: Engine, model: Checkpoint) -> bool:
    has_experts = any(
        tensor.place.role is Role.EXPERTS and not tensor.encoding.is_float for tensor in model.tensors.values()
    )
    return model.format in engine.formats and (engine.experts or not has_experts)


def _names(engines: Sequence[Engine]) -> str:
    return ", ".join(engine.name for engine in engines)
