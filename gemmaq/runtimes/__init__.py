"""Runtimes that `gemmaq install` hands an artifact to. Each is one file of this package and one entry of RUNTIMES.

The file has a function `prepare(options)`. It refuses options that cannot be met, finds the runtime on this machine,
and returns a `Planner`: a function that works out the installation of one artifact and changes nothing yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemmaq.errors import InputError, UsageError, unknown

if TYPE_CHECKING:
    from gemmaq.progress import ProgressCallback
    from gemmaq.runtimes.artifact import Artifact


@dataclass(frozen=True, slots=True)
class Options:
    """Options of an installation.

    Attributes:
        name: Name of the model in the runtime, None for one made from the artifact's.
        dest: Folder to install into instead of the runtime's own.
        model_yaml: Whether to write a model.yaml.
        force: Whether to replace a model of that name.
    """

    name: str | None = None
    dest: Path | None = None
    model_yaml: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class Installation:
    """A planned installation of an artifact.

    Attributes:
        title: Model and destination, for the progress bar.
        size: Bytes to transfer.
        result: What a script wants to know: the model's name or its folder.
        next_step: Line for a person once the model is installed.
        files: Lines for a person about the files, for a dry run.
        report: Fields for `--json`.
        run: Installs the artifact, and returns the fields of the report that only then have their value. It is called
            with a callback for progress, and with one for messages of the runtime.
        notes: What a person should know of the model in this runtime.
    """

    title: str
    size: int
    result: str
    next_step: str
    files: tuple[str, ...]
    report: Mapping[str, Any]
    run: Callable[[ProgressCallback, Callable[[str], None]], Mapping[str, Any]]
    notes: tuple[str, ...] = ()


Planner = Callable[["Artifact", Mapping[str, str]], Installation]
"""Plans the installation of an artifact, given SHA-256 of its files by name as far as they are known."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """A runtime.

    Attributes:
        name: Value of `--runtime`.
        title: Name for people.
        containers: Containers that it loads, the preferred one first.
        name_form: Form of a model's name in it.
        options: Options of `Options` that only some runtimes have, and this one has.
        module: Module with its function `prepare`.
    """

    name: str
    title: str
    containers: tuple[str, ...]
    name_form: str
    module: str
    options: tuple[str, ...] = ()


RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        Runtime("ollama", "Ollama", ("gguf",), "model:tag", "gemmaq.runtimes.ollama"),
        Runtime(
            "lmstudio",
            "LM Studio",
            ("gguf", "mlx"),
            "publisher/repo",
            "gemmaq.runtimes.lmstudio",
            options=("dest", "model_yaml"),
        ),
    )
}
"""Runtimes by the value of `--runtime`."""

_OPTIONAL = ("dest", "model_yaml")
"""Options that a runtime must list to have them."""


def find(name: str) -> Runtime:
    """The runtime of that name, in any spelling: `LM Studio`, `lm-studio`.

    Raises:
        UsageError: There is no such runtime.
    """
    runtime = RUNTIMES.get(name.lower().replace("-", "").replace(" ", ""))
    if runtime is None:
        raise unknown("runtime", name, RUNTIMES)
    return runtime


def prepare(runtime: Runtime, options: Options) -> Planner:
    """Check options and find the runtime, before an artifact is read.

    Raises:
        UsageError: An option is not for this runtime, or the name is not one that it allows.
        GemmaqError: The runtime is not there.
    """
    for option in _OPTIONAL:
        if getattr(options, option) and option not in runtime.options:
            raise UsageError(f"--{option.replace('_', '-')} is not an option for {runtime.title}", "leave it out")
    plan: Planner = import_module(runtime.module).prepare(options)

    def checked(artifact: Artifact, digests: Mapping[str, str]) -> Installation:
        if artifact.checkpoint.family.drafts:
            raise InputError(
                "is a drafter, which runs beside its target alone",
                "convert the target with --draft, and install that",
                path=artifact.folder,
            )
        if artifact.container not in runtime.containers:
            commands = [artifact.conversion(container) for container in runtime.containers]
            raise InputError(
                f"is a {artifact.container} artifact, which {runtime.title} cannot load",
                f"convert it first: {' or '.join(commands)}",
                path=artifact.folder,
            )
        return plan(artifact, digests)

    return checked
