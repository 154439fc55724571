"""LM Studio: put an artifact where it looks for models, `<models folder>/<publisher>/<repo>/`: two levels, real files.

The models folder is `downloadsFolder` of settings.json in LM Studio's home, or `models` in it. Its home is the folder
that ~/.lmstudio-home-pointer names, else ~/.cache/lm-studio if that exists, else ~/.lmstudio. Its own `lms import`
looks in these places, too; there is no environment variable. Entries of its catalog are in `hub/models` of its home.

LM Studio shows drafters of their own architecture as models that it cannot load, and drafts with none of them (version
0.4, August 2026), so they are not installed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemmaq.errors import InputError, NotFoundError, OutputError, UsageError
from gemmaq.files.atomic import staging
from gemmaq.files.names import is_imatrix
from gemmaq.files.text import read_json
from gemmaq.models.identity import identify
from gemmaq.progress import Progress, ProgressCallback
from gemmaq.runtimes import Installation, Options, Planner, model_yaml
from gemmaq.runtimes.artifact import Artifact

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")
_BLOCK = 1 << 22
"""Bytes that are copied at a time."""
_NO_LINK = frozenset(
    (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
)
"""Errors of a file system that cannot link these two places."""


@dataclass(frozen=True, slots=True)
class _Folder:
    """A model's folder in LM Studio.

    Attributes:
        path: Path of the folder.
        replaces: Whether it is there already.
        files: Files to put into it.
        yaml: Text of the model's model.yaml, None for none.
        entry: Folder of the model.yaml in LM Studio's catalog, None where it is put beside the files.
        names: Files that may be replaced.
    """

    path: Path
    replaces: bool
    files: tuple[Path, ...]
    yaml: str | None
    entry: Path | None
    names: Set[str]

    @property
    def yaml_path(self) -> Path:
        """Path of the model.yaml."""
        return (self.entry or self.path) / model_yaml.FILE


def prepare(options: Options) -> Planner:
    """Check the name.

    Raises:
        UsageError: It is not `publisher/repo`.
    """
    if options.name is not None:
        check_name(options.name)
    return lambda artifact, digests: _plan(options, artifact)


def _plan(options: Options, artifact: Artifact) -> Installation:
    """Work out the folder and its files; nothing is written.

    Raises:
        InputError: LM Studio would not load the artifact.
        NotFoundError: LM Studio is not found.
        OutputError: The folder exists and may not be replaced.
    """
    files = _files(artifact)
    publisher, repo = check_name(options.name) if options.name is not None else (_publisher(artifact), _repo(artifact))
    name = f"{publisher}/{repo}"
    path = (options.dest if options.dest is not None else models_folder()) / publisher / repo
    entry = _entry(artifact, name) if options.model_yaml and options.dest is None else None
    replaces = _is_there(path)
    names = {file.name for file in (*artifact.tensor_files, *artifact.others)} | {model_yaml.FILE}
    for place, expected in ((path, names), (entry, {model_yaml.FILE})):
        if place is not None and _is_there(place):
            _check_replaceable(place, expected, options.force)
    yaml = model_yaml.text(artifact, name) if options.model_yaml else None
    folder = _Folder(path, replaces, files, yaml, entry, names)
    sizes = {file.name: file.stat().st_size for file in files}
    report = {"name": name, "path": str(path), "replaces": replaces, "files": _listing(sizes, {})}
    if folder.yaml is not None:
        report |= {"model_yaml": folder.yaml, "model_yaml_path": str(folder.yaml_path)}
    drafter = artifact.drafter
    return Installation(
        title=f"{name} to {path}",
        size=sum(sizes.values()),
        result=str(path),
        next_step=str(path),
        files=tuple(f"{path / file}  {size:,} bytes" for file, size in sizes.items()),
        report=report,
        run=lambda progress, say: {"files": _listing(sizes, _install(folder, progress))},
        notes=(f"{drafter.name} is not installed: LM Studio has no use for drafters",) if drafter is not None else (),
    )


def _entry(artifact: Artifact, name: str) -> Path | None:
    """Folder of the model's entry in LM Studio's catalog, None for a model that needs none.

    Raises:
        InputError: The model has no tokenizer.
    """
    home = _home()
    if home is None or not model_yaml.has_switch(artifact):
        return None
    return home / "hub" / "models" / model_yaml.model_name(artifact, name)


def _is_there(folder: Path) -> bool:
    """Whether there is a folder with something in it, or anything else of that name."""
    return os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir()))


def _listing(sizes: dict[str, int], how: dict[str, str]) -> list[dict[str, Any]]:
    """Files for the report; `how` tells for each whether it was linked or copied."""
    return [{"path": name, "bytes": size} | ({"how": how[name]} if how else {}) for name, size in sizes.items()]


def _install(folder: _Folder, progress: ProgressCallback) -> dict[str, str]:
    """Create the folder. It appears complete under its name, or not at all.

    While it is being filled no file has an ending that LM Studio would take for a model.

    Returns:
        File name -> `linked` (a hard link, which takes no space) or `copied`.

    Raises:
        OutputError: It cannot be written.
    """
    how: dict[str, str] = {}

    def check(place: Path) -> None:
        _check_replaceable(place, folder.names, force=True)

    with staging(folder.path, folder.replaces, check) as stage:
        for path in folder.files:
            how[path.name] = _link_or_copy(path.resolve(), stage / f"{path.name}.partial", progress)
        for path in folder.files:
            (stage / f"{path.name}.partial").rename(stage / path.name)
        if folder.yaml is not None and folder.entry is None:
            (stage / model_yaml.FILE).write_text(folder.yaml, encoding="utf-8")
    if folder.yaml is not None and folder.entry is not None:
        with staging(folder.entry, folder.entry.exists(), check) as stage:
            (stage / model_yaml.FILE).write_text(folder.yaml, encoding="utf-8")
    return how


def _link_or_copy(path: Path, target: Path, progress: ProgressCallback) -> str:
    """Link a file, or copy it where the file system cannot link."""
    size = path.stat().st_size
    try:
        os.link(path, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
    else:
        progress(Progress("linking", size, size, "bytes", item=path.name))
        return "linked"
    free = shutil.disk_usage(target.parent).free
    if size > free:
        raise OutputError(f"has {free:,} bytes free, {path.name} takes {size:,}", path=target.parent.parent)
    done = 0
    with path.open("rb") as source, target.open("xb") as copy:
        while block := source.read(_BLOCK):
            copy.write(block)
            done += len(block)
            progress(Progress("copying", done, size, "bytes", item=path.name))
        copy.flush()
        os.fsync(copy.fileno())
    return "copied"


def models_folder() -> Path:
    """LM Studio's models folder.

    Raises:
        NotFoundError: LM Studio has never run on this machine.
    """
    home = _home()
    if home is None:
        raise NotFoundError(
            "LM Studio is not found: neither ~/.lmstudio nor ~/.cache/lm-studio exists",
            "start it once, or name its models folder with --dest",
        )
    settings: Any = None
    with contextlib.suppress(OSError, ValueError):  # `lms` uses the default then, too
        settings = json.loads((home / "settings.json").read_text(encoding="utf-8"))
    folder = settings.get("downloadsFolder") if isinstance(settings, dict) else None
    return Path(folder) if isinstance(folder, str) and folder else home / "models"


def _home() -> Path | None:
    user = Path.home()
    try:
        pointer = (user / ".lmstudio-home-pointer").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        pointer = ""
    folders = [Path(pointer)] if pointer else []
    folders += [user / ".cache" / "lm-studio", user / ".lmstudio"]
    return next((folder for folder in folders if folder.is_dir()), None)


def _files(artifact: Artifact) -> tuple[Path, ...]:
    """Files to install: of a GGUF artifact the weights and the mmproj file, of any other all files.

    Raises:
        InputError: LM Studio would look for vision weights that are not there.
    """
    if artifact.container == "gguf":
        return tuple(path for path in artifact.tensor_files if path != artifact.drafter)
    has_vision = "vision_config" in read_json(artifact.folder / "config.json")
    if has_vision and not artifact.checkpoint.towers:
        raise InputError(
            "has a vision_config, but LM Studio would find no vision weights",
            "convert the model again: an artifact of gemmaq has both or neither",
            path=artifact.folder / "config.json",
        )
    return (*artifact.weights, *(path for path in artifact.others if not is_imatrix(path.name)))


def _check_replaceable(folder: Path, names: Set[str], force: bool) -> None:
    """Let --force replace an earlier installation of the same artifact, but no folder with other files in it."""
    if not force:
        raise OutputError("exists", "choose another --name, or replace it with --force", path=folder)
    if folder.is_symlink() or not folder.is_dir():
        raise OutputError("is not a folder", "choose another --name", path=folder)
    for path in sorted(folder.iterdir()):
        if path.name not in names:
            raise OutputError(
                f"holds {path.name}, which the artifact does not have",
                "remove it, or choose another --name",
                path=folder,
            )


def check_name(name: str) -> tuple[str, str]:
    """Publisher and repo of a name.

    Raises:
        UsageError: It is not the names of two folders.
    """
    parts = name.split("/")
    if len(parts) != 2 or not all(_NAME.fullmatch(part) for part in parts):
        raise UsageError(
            f"{name!r} is not a model name of LM Studio", "write publisher/repo: letters, digits, '-', '_' and '.'"
        )
    return parts[0], parts[1]


def _publisher(artifact: Artifact) -> str:
    """Owner of the source's repository as far as the artifact names one, else gemmaq."""
    owner = (artifact.repo or "").partition("/")[0]
    return owner if _NAME.fullmatch(owner) else "gemmaq"


def _repo(artifact: Artifact) -> str:
    """`model-4b-it-Q4_0-GGUF`."""
    stem, label, container = identify(artifact.name).stem, artifact.label, artifact.container.upper()
    for word in (container, label):
        stem = re.sub(rf"[-_.]{re.escape(word)}$", "", stem, flags=re.IGNORECASE)
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{stem}-{label}-{container}").lstrip("-.")
