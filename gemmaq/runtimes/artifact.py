"""A finished artifact as runtimes need it: which of its files hold the model, and what to call it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from gemmaq.artifact.folder import has_model, parts_of
from gemmaq.checkpoint import Checkpoint, paths_of
from gemmaq.errors import InputError, NotFoundError
from gemmaq.files.names import Parts, models_among, shards_of, split_type, stem
from gemmaq.files.quoting import shell
from gemmaq.files.text import read_json
from gemmaq.hub import is_repository
from gemmaq.planning.containers import CONTAINERS, of_checkpoint_format
from gemmaq.sources.companions import ALL
from gemmaq.sources.open import open_source


@dataclass(frozen=True, slots=True)
class Artifact:
    """A finished artifact.

    Attributes:
        checkpoint: Its headers.
        container: `gguf`, `mlx` or `safetensors`.
        name: Name of the model that it was converted from.
        repo: Repository of that model, None if gemmaq.json does not name it.
        folder: Its folder.
        weights: Its weight files; the shards of a GGUF model in order.
        projector: Its mmproj file, None if it has none.
        drafter: File of the drafter beside it, None if it has none.
        others: All other files of the folder but hidden ones and other models.
    """

    checkpoint: Checkpoint
    container: str
    name: str
    repo: str | None
    folder: Path
    weights: tuple[Path, ...]
    projector: Path | None
    drafter: Path | None
    others: tuple[Path, ...]

    @property
    def tensor_files(self) -> tuple[Path, ...]:
        """Files with tensors: the weights, and the mmproj file and the drafter where there are any."""
        return (*self.weights, *(path for path in (self.projector, self.drafter) if path is not None))

    @property
    def parts(self) -> Parts:
        """Names of the files with tensors."""
        projector, drafter = (path.name if path else None for path in (self.projector, self.drafter))
        return Parts(tuple(path.name for path in self.weights), projector, drafter)

    @property
    def label(self) -> str:
        """Quantization type as the file name spells it (`Q4_0`, `Q4_K_M`), else that of the layers' matrices."""
        return split_label(self.weights[0].name) or self.checkpoint.body.label

    def conversion(self, container: str) -> str:
        """Command that converts the artifact to another container; quantized codes stay as they are."""
        quant = "" if self.checkpoint.body.is_float else " --quant auto"
        return f"gemmaq convert {shell(str(self.folder))} --to {container}{quant}"


def split_label(name: str) -> str | None:
    """The quantization type at the end of a GGUF file's name in capitals, None if there is none."""
    _, kind = split_type(stem(name))
    return kind.upper() if kind else None


def folder_of(artifact: Path) -> Path:
    """The folder of an artifact that the user named by its folder or by its GGUF file.

    Raises:
        NotFoundError: It does not exist.
        InputError: The folder holds several artifacts.
    """
    if not artifact.exists():
        raise NotFoundError("does not exist", "name the folder that gemmaq convert or gemmaq pull made", path=artifact)
    if artifact.is_file():
        return artifact.parent
    parts = [artifact / part for part in parts_of(artifact)]
    if parts and not has_model(artifact):
        raise InputError(f"holds {len(parts)} artifacts", f"name one of them: {parts[0]}", path=artifact)
    return artifact


def read_artifact(artifact: Path) -> Artifact:
    """Read the headers of an artifact; `gemmaq verify` is what checks it.

    Raises:
        NotFoundError: It does not exist.
        InputError: The folder holds several artifacts, a header cannot be read, or several mmproj files or drafters may
            be the model's.
    """
    folder = folder_of(artifact)
    checkpoint = open_source(str(artifact), ALL)
    projector = drafter = None
    if checkpoint.format == "gguf":
        weights = tuple(shards_of(checkpoint.embedding.span.paths[0]))
        projector = next(iter(paths_of(checkpoint.towers.values())), None)
        drafter = checkpoint.drafter.files[0] if checkpoint.drafter is not None else None
    else:
        weights = tuple(sorted(checkpoint.files))
    visible = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    models = models_among(path.name for path in visible if path.suffix == ".gguf")
    name, repo = _source(folder / "gemmaq.json")
    return Artifact(
        checkpoint=checkpoint,
        container=_container(checkpoint, weights[0]),
        name=name or checkpoint.name,
        repo=repo,
        folder=folder,
        weights=weights,
        projector=projector,
        drafter=drafter,
        others=tuple(p for p in visible if p not in (*weights, projector, drafter) and p.name not in models),
    )


def _container(checkpoint: Checkpoint, weights: Path) -> str:
    """The container of an artifact. An MLX folder in BF16 differs from a safetensors folder in its header only."""
    container = of_checkpoint_format(checkpoint.format)
    if container.header_format is None:
        return container.name
    with weights.open("rb") as file:
        metadata = json.loads(file.read(int.from_bytes(file.read(8), "little"))).get("__metadata__")
    mark = metadata.get("format") if isinstance(metadata, dict) else None
    return next((c.name for c in CONTAINERS.values() if mark is not None and c.header_format == mark), container.name)


def _source(path: Path) -> tuple[str | None, str | None]:
    """Name and repository of the source model in a gemmaq.json."""
    models = read_json(path, {}).get("models")
    first = models[0] if isinstance(models, list) and models else None
    source = first.get("source") if isinstance(first, dict) else None
    values = [source.get(key) if isinstance(source, dict) else None for key in ("name", "repo")]
    name, repo = (value if isinstance(value, str) else None for value in values)
    return name, repo if repo and is_repository(repo) else None
