"""Putting an artifact where LM Studio looks for models: `<models folder>/<publisher>/<repo>/`, two levels, real files.

The models folder is `downloadsFolder` of settings.json in LM Studio's home, or `models` in it. Its home is what
~/.lmstudio-home-pointer names, else ~/.cache/lm-studio if that is there, else ~/.lmstudio; these are the places that
its own `lms import` knows, and there is no environment variable.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemmaq.errors import InputError, NotFoundError, OutputError, UsageError
from gemmaq.files.atomic import staging
from gemmaq.files.text import read_json
from gemmaq.models.identity import identify
from gemmaq.progress import Progress, ProgressCallback
from gemmaq.runtimes import Model, model_yaml

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")
_BLOCK = 1 << 22
_CONTAINERS = {"gguf": "GGUF", "mlx": "MLX"}
_NO_LINK = frozenset(
    (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
)
"""How a file system says that it cannot link, or not that far."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done.

    Attributes:
        name: `publisher/repo`.
        folder: to be made.
        replaces: whether it is there.
        files: what goes into it.
        yaml: text of a model.yaml, None for none.
    """

    name: str
    folder: Path
    replaces: bool
    files: tuple[Path, ...]
    yaml: str | None

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(path.stat().st_size for path in self.files)


def order(model: Model, name: str | None, dest: Path | None, force: bool, with_yaml: bool = False) -> Order:
    """What putting a model there takes; nothing is touched.

    Args:
        model: the artifact.
        name: `publisher/repo`, None for one made of its own.
        dest: a models folder other than LM Studio's.
        force: whether an earlier folder may be replaced.
        with_yaml: whether a model.yaml goes with it.

    Raises:
        InputError: LM Studio does not run it.
        UsageError: no such name is possible.
        NotFoundError: LM Studio is not found.
        OutputError: the folder exists, or holds other things.
    """
    files = _files(model)
    publisher, repo = check_name(name) if name is not None else (_publisher(model), _repo(model))
    folder = (dest if dest is not None else models_folder()) / publisher / repo
    replaces = os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir()))
    if replaces:
        _check_replaceable(folder, model, force)
    yaml = model_yaml.text(model, f"{publisher}/{repo}") if with_yaml else None
    return Order(f"{publisher}/{repo}", folder, replaces, files, yaml)


def run(wanted: Order, progress: ProgressCallback) -> dict[str, str]:
    """Make the folder: it appears whole under its name, or not at all.

    Until then no file in it has a name that LM Studio would take for a model's.

    Returns:
        File name -> `linked` (a hard link, no bytes taken) or `copied`.

    Raises:
        OutputError: it cannot be written.
    """
    done: dict[str, str] = {}
    with staging(wanted.folder, wanted.replaces) as stage:
        for path in wanted.files:
            done[path.name] = _put(path.resolve(), stage / f"{path.name}.partial", progress)
        for path in wanted.files:
            (stage / f"{path.name}.partial").rename(stage / path.name)
        if wanted.yaml is not None:
            (stage / model_yaml.FILE).write_text(wanted.yaml, encoding="utf-8")
    return done


def _put(path: Path, target: Path, progress: ProgressCallback) -> str:
    """Link a file, or copy it where that is not possible."""
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
        raise OutputError(f"{target.parent.parent} has {free:,} bytes free, {path.name} takes {size:,}")
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
    """Where LM Studio keeps its models.

    Raises:
        NotFoundError: it has never run here.
    """
    home = _home()
    if home is None:
        raise NotFoundError(
            "LM Studio is not found: neither ~/.lmstudio nor ~/.cache/lm-studio exists",
            "start it once, or name its models folder with --dest",
        )
    settings: Any = None
    with contextlib.suppress(OSError, ValueError):  # `lms` takes the default then, too
        settings = json.loads((home / "settings.json").read_text(encoding="utf-8"))
    folder = settings.get("downloadsFolder") if isinstance(settings, dict) else None
    return Path(folder) if isinstance(folder, str) and folder else home / "models"


def _home() -> Path | None:
    user = Path.home()
    try:
        pointed = (user / ".lmstudio-home-pointer").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        pointed = ""
    places = [Path(pointed)] if pointed else []
    places += [user / ".cache" / "lm-studio", user / ".lmstudio"]
    return next((place for place in places if place.is_dir()), None)


def _files(model: Model) -> tuple[Path, ...]:
    """Of a GGUF artifact model and projector; of an MLX one everything.

    Raises:
        InputError: LM Studio does not run it.
    """
    kind = model.container
    if kind == "gguf":
        return model.files
    if kind != "mlx":
        raise InputError(
            f"{model.folder} is a safetensors folder, which LM Studio does not run",
            f"make an artifact that it runs: {model.conversion('gguf')}, or --to mlx",
        )
    sees = "vision_config" in read_json(model.folder / "config.json")
    if sees and not model.checkpoint.vision:
        raise InputError(
            f"{model.folder}/config.json has a vision_config, and there are no vision weights for LM Studio to find",
            "convert it again; an artifact of gemmaq has both or neither",
        )
    return (*model.weights, *model.others)


def _check_replaceable(folder: Path, model: Model, force: bool) -> None:
    """--force replaces an earlier install of the same, never a folder with other models in it."""
    if not force:
        raise OutputError(f"{folder} exists", "choose another --name, or replace it with --force")
    if folder.is_symlink() or not folder.is_dir():
        raise OutputError(f"{folder} is not a folder", "choose another --name")
    ours = {path.name for path in (*model.files, *model.others)} | {model_yaml.FILE}
    for path in sorted(folder.iterdir()):
        if path.name not in ours:
            raise OutputError(
                f"{folder} holds {path.name}, which this artifact has not", "remove it, or choose another --name"
            )


def check_name(name: str) -> tuple[str, str]:
    """Publisher and repo of a name.

    Raises:
        UsageError: it is no name for two folders.
    """
    parts = name.split("/")
    if len(parts) != 2 or not all(_NAME.fullmatch(part) for part in parts):
        raise UsageError(
            f"LM Studio has no place for {name!r}", "write publisher/repo: letters, digits, '-', '_' and '.'"
        )
    return parts[0], parts[1]


def _publisher(model: Model) -> str:
    """Who the source is from, as the artifact says; else gemmaq."""
    owner = (model.repo or "").partition("/")[0]
    return owner if _NAME.fullmatch(owner) else "gemmaq"


def _repo(model: Model) -> str:
    """`gemma-3-4b-it-qat-Q4_0-GGUF`."""
    stem, label = identify(model.name).stem, model.label
    container = _CONTAINERS[model.container]
    for word in (container, label):
        stem = re.sub(rf"[-_.]{re.escape(word)}$", "", stem, flags=re.IGNORECASE)
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{stem}-{label}-{container}").lstrip("-.")
