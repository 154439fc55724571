"""Handing an artifact to Ollama or LM Studio.

A room for every runtime: `order` says what is to be done and refuses what cannot be, `run` does it. What they take is a
`Model`, made by `gather` of an artifact's folder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from gemmaq.artifact.folder import PARTS, has_model
from gemmaq.checkpoint import Checkpoint
from gemmaq.errors import InputError, NotFoundError
from gemmaq.files.names import is_mmproj, shards_of, split_type, stem
from gemmaq.files.text import read_json
from gemmaq.sources.open import open_source

NAMES = ("ollama", "lmstudio")


@dataclass(frozen=True, slots=True)
class Model:
    """An artifact as a runtime is to have it.

    Attributes:
        checkpoint: its headers.
        container: `gguf`, `mlx` or `safetensors`.
        name: what the model it was made of is called.
        repo: of that model, None if its gemmaq.json does not say.
        folder: where it lies.
        weights: its weight files; the shards of a GGUF file in order.
        projector: its mmproj file, None where it has none.
        others: everything else in the folder, hidden files left out.
    """

    checkpoint: Checkpoint
    container: str
    name: str
    repo: str | None
    folder: Path
    weights: tuple[Path, ...]
    projector: Path | None
    others: tuple[Path, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """What runs: weights and projector."""
        return self.weights if self.projector is None else (*self.weights, self.projector)

    @property
    def label(self) -> str:
        """The type, as the file's name has it: `Q4_0`, `Q4_K_M`."""
        return label(self.weights[0].name) or self.checkpoint.body.label

    def conversion(self, container: str) -> str:
        """The command that makes another container of it, its codes untouched where it has any."""
        kept = "" if self.checkpoint.body.is_float else " --quant auto"
        return f"gemmaq convert {self.folder} --to {container}{kept}"


def label(name: str) -> str | None:
    """The quantization type at the end of a GGUF file's name, None if there is none."""
    _, kind = split_type(stem(name))
    return kind.upper() if kind else None


def find(artifact: Path) -> Path:
    """The folder of an artifact, or of the GGUF file that is named.

    Raises:
        NotFoundError: nothing is there.
        InputError: there are several in folders of their own.
    """
    if not artifact.exists():
        raise NotFoundError(f"{artifact} does not exist", "name the folder that gemmaq convert or gemmaq pull made")
    if artifact.is_file():
        return artifact.parent
    parts = [artifact / part for part in PARTS if (artifact / part).is_dir()]
    if parts and not has_model(artifact):
        raise InputError(f"{artifact} holds {len(parts)} artifacts", f"name one of them: {parts[0]}")
    return artifact


def gather(artifact: Path) -> Model:
    """The artifact in a folder, or the GGUF file that is named; it is taken to be a good one.

    Raises:
        NotFoundError, InputError: see `find`; or it cannot be read.
    """
    folder = find(artifact)
    checkpoint = open_source(str(artifact))
    projector = None
    if checkpoint.format == "gguf":
        weights = tuple(shards_of(next(path for path in checkpoint.files if not is_mmproj(path.name))))
        projector = next((path for path in sorted(folder.glob("*.gguf")) if is_mmproj(path.name)), None)
    else:
        weights = tuple(sorted(checkpoint.files))
    taken = {*weights, projector}
    beside = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    others = tuple(path for path in beside if path not in taken)
    name, repo = _source(folder / "gemmaq.json")
    container = _container(checkpoint, weights[0])
    return Model(checkpoint, container, name or checkpoint.name, repo, folder, weights, projector, others)


def _container(checkpoint: Checkpoint, weights: Path) -> str:
    """What an artifact is for; MLX in BF16 differs from any other safetensors folder in what its header says alone."""
    if checkpoint.format in ("gguf", "mlx"):
        return checkpoint.format
    with weights.open("rb") as file:
        said = json.loads(file.read(int.from_bytes(file.read(8), "little"))).get("__metadata__")
    return "mlx" if isinstance(said, dict) and said.get("format") == "mlx" else "safetensors"


def _source(path: Path) -> tuple[str | None, str | None]:
    """Name and repository of the model an artifact was made of, as its gemmaq.json says."""
    source = read_json(path, {}).get("source")
    said = [source.get(key) if isinstance(source, dict) else None for key in ("name", "repo")]
    name, repo = (value if isinstance(value, str) else None for value in said)
    return name, repo if repo and repo.count("/") == 1 else None
