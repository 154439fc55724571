"""Files beside a GGUF model are opened with it if they belong to it: its mmproj file and its drafter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from gemmaq.checkpoint import Checkpoint, projector
from gemmaq.checkpoint.gguf_checkpoint import open_gguf
from gemmaq.errors import InputError, NotFoundError, UsageError
from gemmaq.files import gguf_reader
from gemmaq.files.gguf_reader import GgufFile
from gemmaq.files.names import is_drafter, is_mmproj
from gemmaq.files.span import FileSpan
from gemmaq.models import families, identity
from gemmaq.models.config import TextConfig
from gemmaq.models.family import Family
from gemmaq.models.towers_config import senses
from gemmaq.sources import pairing
from gemmaq.sources.names import name_of_file
from gemmaq.sources.pairing import Choice, Content

Openers = tuple[Callable[[], FileSpan], ...]
"""A function for each shard of a file (one for a file that is not split) that gives it, with at least its header."""


@dataclass(frozen=True, slots=True)
class Host:
    """A model that files lie beside, by its header.

    Attributes:
        keys: Keys of its file.
        family: Its family.
        config: Its dimensions.
    """

    keys: Mapping[str, Any]
    family: Family
    config: TextConfig


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file that may lie beside a model.

    Attributes:
        what: What it is to the model.
        option: Option of `gemmaq convert` that takes one, whatever it is called.
        without: Option that takes none.
        is_one: Whether a file's name says that it is one.
        misfit: Why one cannot belong to a model, a clause of a sentence; None if it can.
        attach: Opens one, from the headers of its shards, with the model that it belongs to.
    """

    what: str
    option: str
    without: str
    is_one: Callable[[str], bool]
    misfit: Callable[[GgufFile, Host], str | None]
    attach: Callable[[Checkpoint, Host, Sequence[GgufFile]], Checkpoint]


@dataclass(frozen=True, slots=True)
class Beside:
    """The files of a kind that lie beside a model, under the names that messages call them by.

    Attributes:
        model: File of the model, the first of its shards.
        models: Files of all models that they lie beside, this one too.
        files: The files, of split ones the first shard, and what opens each.
    """

    model: str
    models: tuple[str, ...]
    files: Mapping[str, Openers]


Surroundings = Callable[[Kind], Beside]
"""The files of each kind beside a model."""


class Need(Enum):
    """What to do about the files of a kind beside a model."""

    NONE = "none is taken"
    IF_CERTAIN = "the one that belongs to the model is taken, if there is one and no more"
    DECIDED = "the same, and several that may belong to it are an error"


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user wants of the files of a source, and of the base of an adapter.

    Attributes:
        mmproj: The mmproj file to take, None for the one that belongs to the model.
        projector: What to do about mmproj files where none is named.
        drafter: What to do about drafters.
        weights: Name of the weight file to take of a folder that has several sets, None for no choice.
        base: Base model of an adapter, as the user typed it; None for the one that its config names.
        alone: Whether the adapter is read without the weights of its base model.
    """

    mmproj: Path | None = None
    projector: Need = Need.IF_CERTAIN
    drafter: Need = Need.NONE
    weights: str | None = None
    base: str | None = None
    alone: bool = False

    @property
    def needs(self) -> dict[Kind, Need]:
        """The kinds that are looked for, and what to do about each."""
        found = {PROJECTOR: Need.NONE if self.mmproj is not None else self.projector, DRAFTER: self.drafter}
        return {kind: need for kind, need in found.items() if need is not Need.NONE}


ANY = Wish()
"""No wish: the mmproj file that belongs to the model, if that is certain."""
ALL = Wish(projector=Need.DECIDED, drafter=Need.DECIDED)
"""Everything that belongs to the model."""


def _projector_misfit(file: GgufFile, host: Host) -> str | None:
    return projector.misfit(file, host.keys, host.family, host.config)


def _drafter_misfit(file: GgufFile, host: Host) -> str | None:
    drafter = host_of(file)
    if drafter is None or not drafter.family.drafts:
        return "it is no drafter"
    return drafter.family.misfit(drafter.config, host.family, host.config)


def _with_drafter(model: Checkpoint, host: Host, files: Sequence[GgufFile]) -> Checkpoint:
    del host
    path = files[0].span.paths[0]
    return replace(model, drafter=open_gguf(files, name_of_file(path), str(path)))


PROJECTOR = Kind(
    "mmproj file",
    "--mmproj-file",
    "--mmproj none",
    is_mmproj,
    _projector_misfit,
    lambda model, host, files: projector.with_towers(model, files[0], host.keys),
)
DRAFTER = Kind("drafter", "--draft", "--draft none", is_drafter, _drafter_misfit, _with_drafter)


def refuse(wish: Wish, source: object) -> None:
    """Refuse a wish for a source that is no GGUF model.

    Raises:
        UsageError: The user named an mmproj file.
    """
    if wish.mmproj is not None:
        raise UsageError(f"--mmproj-file is for GGUF models, and {source} is none", "leave it out")


def refuse_weights(wish: Wish, source: object) -> None:
    """Refuse a wish for a source that is no folder with config.json.

    Raises:
        UsageError: The user chose a weight file.
    """
    if wish.weights is not None:
        raise UsageError(f"--weights is for folders with config.json, and {source} is none", "leave it out")


def host_of(file: GgufFile) -> Host | None:
    """The model in a file, None if gemmaq cannot read it."""
    try:
        family = families.of_gguf(file.keys)
        config = family.gguf.to_config(file.keys, {info.name: info.shape for info in file.tensors})
    except InputError:
        return None
    return Host(file.keys, family, config)


def choose(kind: Kind, keys: Mapping[str, Any], host: Host | None, beside: Beside) -> Choice:
    """Choose the file of a kind that belongs to a model; by names alone where the model cannot be read."""

    @cache
    def look(name: str) -> Content:
        try:
            file = gguf_reader.parse(beside.files[name][0]())
        except (InputError, NotFoundError) as error:
            return Content(misfit=error.at(path="the file").message, damaged=True)
        misfit = kind.misfit(file, host) if host is not None else None
        return Content(_titles(file.keys), misfit)

    bases = (keys.get(f"general.base_model.{at}.name") for at in range(keys.get("general.base_model.count", 0)))
    named = tuple(base for base in bases if isinstance(base, str))
    model = pairing.Model(beside.model, beside.models, _titles(keys), named)
    same_type = kind is DRAFTER
    return pairing.choose(kind.what, model, beside.files, look, option=kind.option, same_type=same_type)


def _titles(keys: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of a model in the header of a file; a drafter's without the word for its kind."""
    parts = [keys.get(f"general.{part}") for part in ("basename", "size_label", "finetune")]
    titles = [keys.get("general.name"), " ".join(part for part in parts if isinstance(part, str))]
    return tuple(_without_kind(title) for title in titles if isinstance(title, str))


def _without_kind(title: str) -> str:
    kind = identity.DRAFTER.lstrip("-")
    return title[: -len(kind)] if title.lower().endswith(kind) else title


def settle(choice: Choice, kind: Kind, need: Need, source: object) -> tuple[str, ...]:
    """Notes on a choice.

    Raises:
        InputError: It has to be decided, and is between several files or hangs on a damaged one.
    """
    if need is Need.DECIDED and choice.damaged:
        raise InputError(
            f"lies beside {choice.damaged[0]}, which may be its {kind.what} and cannot be read",
            f"fetch that file again, or choose with {kind.option} FILE or {kind.without}",
            path=source,
        )
    if not choice.rivals:
        return choice.notes
    if need is Need.DECIDED:
        raise InputError(
            f"lies beside {len(choice.rivals)} files that may be its {kind.what}: {', '.join(choice.rivals)}",
            f"gemmaq convert takes one with {kind.option} FILE, none with {kind.without}; else move the others away",
            path=source,
        )
    return (*choice.notes, f"{' and '.join(choice.rivals)} may all be the model's {kind.what}: none is taken")


def find(
    file: GgufFile, surroundings: Surroundings, wish: Wish, source: object
) -> tuple[dict[Kind, str], tuple[str, ...]]:
    """What belongs to a model of the files beside it, and a note on each.

    Args:
        file: Header of the model's first file.
        surroundings: The files beside it.
        wish: What the user wants of them.
        source: The model, in errors.

    Raises:
        InputError: Several files may belong to the model.
    """
    host = host_of(file)
    found: dict[Kind, str] = {}
    notes: tuple[str, ...] = ()
    for kind, need in wish.needs.items():
        if host is None or not host.family.drafts:
            choice = choose(kind, file.keys, host, surroundings(kind))
            notes += settle(choice, kind, need, source)
            found |= {kind: choice.taken} if choice.taken is not None else {}
    return found, notes


def with_companions(model: Checkpoint, file: GgufFile, surroundings: Surroundings, wish: Wish) -> Checkpoint:
    """A GGUF model with what belongs to it of the files beside it.

    Args:
        model: The model alone.
        file: Header of its first file.
        surroundings: The files beside it.
        wish: What the user wants of them.

    Raises:
        NotFoundError: The file that the user named does not exist.
        InputError: It cannot belong to the model, or several files may.
    """
    host = Host(file.keys, model.family, model.config)
    if wish.mmproj is not None:
        model = _with_named(model, host, wish.mmproj)
    elif wish.projector is not Need.NONE and (inside := projector.built_in(file, model.family)) is not None:
        model = projector.with_towers(model, inside, file.keys)
        model = replace(model, notes=(*model.notes, *_told(model, file)))
        wish = replace(wish, projector=Need.NONE)
    found, notes = find(file, surroundings, wish, model.location)
    model = replace(model, notes=model.notes + notes)
    for kind, name in found.items():
        model = kind.attach(model, host, [gguf_reader.parse(opened()) for opened in surroundings(kind).files[name]])
    return model


def _told(model: Checkpoint, file: GgufFile) -> Iterator[str]:
    """Notes on a model whose towers are in its own file."""
    assert model.towers_config is not None
    yield f"{senses(model.towers_config)}: the towers in the model's own file are taken, as in Ollama"
    if model.config.rope.factor != 1 and not any(".rope.scaling." in key for key in file.keys):
        yield f"the keys lack rope scaling: that of the published model, {model.config.rope.factor:g}, is taken"


def _with_named(model: Checkpoint, host: Host, path: Path) -> Checkpoint:
    """A model with the mmproj file that the user named."""
    file = gguf_reader.parse(FileSpan.of(path))
    reason = PROJECTOR.misfit(file, host)
    if reason is not None:
        raise InputError(f"cannot be the {PROJECTOR.what} of {model.name}: {reason}", path=path)
    note = f"{path.name} is taken as the model's {PROJECTOR.what}"
    return PROJECTOR.attach(replace(model, notes=(*model.notes, note)), host, [file])
