"""Names of models, and the repository that a source means."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gemmaq.errors import InputError, NotFoundError, nearest
from gemmaq.files.names import DRAFTER, is_drafter, split_type, stem
from gemmaq.files.whole import read_head
from gemmaq.hub import Ref, parse
from gemmaq.models import identity
from gemmaq.models.families import published_repositories


def repository(source: str) -> Ref | None:
    """The repository that a source means, None for an existing path or anything else."""
    return None if os.path.exists(os.path.expanduser(source)) else parse(source)


def missing(source: str) -> NotFoundError:
    """The error for a source that is no path and no repository, with what the user may have meant.

    That is a file or folder of a similar name, or the publisher's repository of a name without its organization.
    """
    path = Path(os.path.expanduser(source))
    try:
        beside = nearest(path.name, sorted(os.listdir(path.parent)))
    except OSError:
        beside = []
    meant = [*published_repositories(source), *(str(path.parent / name) for name in beside[:1])]
    hint = f"did you mean {' or '.join(meant)}?" if meant else "name a folder, a .gguf file, or a repository: org/name"
    return NotFoundError("does not exist", hint, path=source)


def name_of_folder(path: Path) -> str:
    """Name of the model in a folder: the folder's, or for a snapshot in the Hub's cache the repository's."""
    repository = path.parents[1].name if path.parent.name == "snapshots" else ""
    return repository.rpartition("--")[2] if repository.startswith("models--") else path.name


def snapshot_in(path: Path) -> Path:
    """The snapshot that a repository's folder in the Hub's cache means, any other folder itself.

    That is the one that refs/main names, or the only one.

    Raises:
        InputError: There are several, and refs/main names none of them.
        NotFoundError: There is none.
    """
    if not path.resolve().name.startswith("models--") or (path / "config.json").is_file():
        return path
    main, folder = path / "refs" / "main", path / "snapshots"
    commit = read_head(main, 256).decode("utf-8", "replace").strip() if main.is_file() else ""
    held = sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
    if commit in held:
        return folder / commit
    if len(held) == 1 and not commit:
        return folder / held[0]
    if not held or commit:
        what = f"has no snapshot {commit:.40}, which refs/main names" if commit else "holds no snapshot"
        raise NotFoundError(what, "download the model again, or name a snapshot's folder", path=path)
    raise InputError(f"holds {len(held)} snapshots", f"name one of them, {folder / held[0]} for example", path=path)


_BLOB = re.compile(r"sha256[-:][0-9a-f]{64}")


def name_of_gguf(path: Path, keys: Mapping[str, Any]) -> str:
    """Name of the model in a GGUF file: that in its header if the file's own name is a digest, as in Ollama."""
    title = keys.get("general.name")
    if not _BLOB.fullmatch(path.name):
        return name_of_file(path)
    words = re.findall(r"[A-Za-z0-9._]+", title) if isinstance(title, str) else []
    architecture = keys.get("general.architecture")
    return split_type("-".join(words).strip("."))[0] or (str(architecture) if architecture else path.name[:14])


def name_of_file(path: Path) -> str:
    """Name of the model in a GGUF file: the file's without shard number and quantization type.

    A drafter's file begins with a mark and the name of its target; the name of a drafter ends with one.
    """
    name = split_type(stem(path.name))[0]
    return name.removeprefix(DRAFTER) + identity.DRAFTER if is_drafter(name) else name
