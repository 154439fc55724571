"""Handing an artifact to Ollama or LM Studio.

A room for every runtime: `order` says what is to be done and refuses what cannot be, `run` does it. What they take is a
`Model`, made by `gather` of an artifact's folder.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gemmaq.checkpoint import Checkpoint
from gemmaq.checkpoint.gguf_checkpoint import SHARD, shards_of
from gemmaq.checkpoint.text_files import read_json
from gemmaq.errors import InputError, NotFoundError, VerificationError
from gemmaq.sources import open_source

NAMES = ("ollama", "lmstudio")

_SUMS = "SHA256SUMS"
_BLOCK = 1 << 20
_PARTS = ("gguf", "mlx", "safetensors")


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


def label(name: str) -> str | None:
    """The type at the end of a GGUF file's name, None if there is none."""
    found = SHARD.fullmatch(name)
    stem = found["stem"] if found else name.removesuffix(".gguf")
    kind = re.search(r"[-._](i?q\d(_\w+)*|b?f16|f32)$", stem, re.IGNORECASE)
    return kind[1].upper() if kind else None


def gather(artifact: Path) -> Model:
    """The artifact in a folder, or the GGUF file that is named.

    Raises:
        NotFoundError: nothing is there, or a shard is missing.
        InputError: it cannot be read, holds several artifacts, or two projectors.
    """
    if not artifact.exists():
        raise NotFoundError(f"{artifact} does not exist", "name the folder that gemmaq convert or gemmaq pull made")
    folder = artifact if artifact.is_dir() else artifact.parent
    parts = [folder / part for part in _PARTS if (folder / part).is_dir()]
    if artifact.is_dir() and parts and not (folder / "config.json").exists() and not any(folder.glob("*.gguf")):
        raise InputError(f"{artifact} holds {len(parts)} artifacts", f"name one of them: {parts[0]}")
    checkpoint = open_source(str(artifact))
    projector = None
    if checkpoint.format == "gguf":
        weights = tuple(shards_of(next(path for path in checkpoint.files if "mmproj" not in path.name.lower())))
        projector = _projector(folder, checkpoint)
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


def _projector(folder: Path, checkpoint: Checkpoint) -> Path | None:
    """The one mmproj file of a folder.

    Raises:
        InputError: there are two, of which runtimes would take either, or it is not this model's.
    """
    found = sorted(path for path in folder.glob("*.gguf") if "mmproj" in path.name.lower())
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise InputError(f"{folder} holds {len(found)} projectors: {names}", "keep one; runtimes take any")
    if found and not checkpoint.vision:
        reason = next((note for note in checkpoint.notes if found[0].name in note), f"{found[0]} is unusable")
        raise InputError(reason, "remove it, or put the model's own mmproj file in its place")
    return found[0] if found else None


def check(model: Model, progress: Callable[[str, int, int], None]) -> dict[str, str]:
    """SHA-256 of all files of an artifact by name, in hex, after comparing them with its SHA256SUMS if it has one.

    Args:
        model: the artifact.
        progress: told a file's name, its bytes read and its bytes in all.

    Raises:
        VerificationError: a file is not as it was made, missing, or not one of the artifact's.
        InputError: SHA256SUMS cannot be read.
    """
    found = {path.name: path for path in (*model.files, *model.others) if path.name != _SUMS}
    listed = _listed(model.folder / _SUMS)
    for name in sorted(listed.keys() - found.keys()):
        raise VerificationError(f"{model.folder} lacks {name}, which its {_SUMS} lists", "convert or fetch it again")
    for name in sorted(found.keys() - listed.keys()) if listed else ():
        raise VerificationError(f"{model.folder}/{name} is not in {_SUMS}", "remove it, or convert again")
    digests = {name: _digest(path, progress) for name, path in found.items()}
    for name in listed:
        if listed[name] != digests[name]:
            raise VerificationError(f"{found[name]} is not what its {_SUMS} says", "convert or fetch it again")
    return digests


def _listed(path: Path) -> dict[str, str]:
    """What a SHA256SUMS file lists, name -> hex; nothing where there is none."""
    if not path.is_file():
        return {}
    listed = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        entry = re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line)
        if entry is None:
            raise InputError(f"{path} has a line that sha256sum does not write: {line[:80]!r}")
        listed[entry[2]] = entry[1]
    return listed


def _digest(path: Path, progress: Callable[[str, int, int], None]) -> str:
    made, done, size = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            made.update(block)
            done += len(block)
            progress(path.name, done, size)
    return made.hexdigest()
