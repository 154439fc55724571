"""Names of weight files: shards, quantization types, mmproj files, drafters."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gemmaq.errors import InputError, NotFoundError

_SHARD = re.compile(
    r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf|\.safetensors|\.bin)", re.IGNORECASE
)
DRAFTER = "mtp-"
"""Beginning of the names of GGUF files that hold drafters."""
_TYPE = re.compile(
    r"[-._](?P<type>(?P<float>bf16|f16|fp16|f32)|(ud-)?(i?q\d(_\w+)*|tq\d(_\d)?|mxfp4(_\w+)?|nvfp4|\d+\.\d\dbpw))$",
    re.IGNORECASE,
)
_BESIDE = re.compile(rf"(?i:[-._ ]?mmproj)|^{DRAFTER}")


@dataclass(frozen=True, slots=True)
class Shard:
    """The name of one file of a model that is split over several: `stem-00001-of-00003.gguf`.

    Attributes:
        stem: Name before the shard number, with its folders where the name had any.
        number: Number of the shard, from 1.
        count: Number of shards of the model.
        suffix: `.gguf`, `.safetensors` or `.bin`.
    """

    stem: str
    number: int
    count: int
    suffix: str

    @property
    def siblings(self) -> list[str]:
        """Names of all shards of the model, in order."""
        return [f"{self.stem}-{n:05}-of-{self.count:05}{self.suffix}" for n in range(1, self.count + 1)]


def shard(name: str) -> Shard | None:
    """The parts of a shard's name, None for the name of a whole file."""
    match = _SHARD.fullmatch(name)
    return Shard(match["stem"], int(match["number"]), int(match["count"]), match["suffix"]) if match else None


def all_shards(name: str) -> list[str]:
    """Names of all shards of the model that a file belongs to, in order; the name alone if it is no shard's."""
    this = shard(name)
    return this.siblings if this else [name]


def is_first(name: str) -> bool:
    """Whether a file is a whole one, or the first shard of a split one."""
    this = shard(name)
    return this is None or this.number == 1


def shards_of(path: Path) -> list[Path]:
    """All shards of the model that a file belongs to, in order; the file alone if it is no shard.

    Raises:
        NotFoundError: A shard is missing.
        InputError: The number in the name is not between 1 and the count.
    """
    this = shard(path.name)
    if this is None:
        return [path]
    if not 1 <= this.number <= this.count:
        raise InputError(f"is named shard {this.number} of {this.count}", "rename it as it was", path=path)
    paths = [path.with_name(name) for name in this.siblings]
    for sibling in paths:
        if not sibling.exists():
            raise NotFoundError(f"does not exist, a shard of {path.name}", "download the missing shard", path=sibling)
    return paths


def stem(name: str) -> str:
    """A GGUF file's name without shard number and ending."""
    this = shard(name)
    return this.stem if this else re.sub(r"\.gguf$", "", name, flags=re.IGNORECASE)


def split_type(name: str, *, floats: bool = True) -> tuple[str, str | None]:
    """Separate the quantization type at the end of a model's name: `model-4b-it-Q4_0` -> `model-4b-it`, `Q4_0`.

    Args:
        name: Name of a model or stem of a file.
        floats: Whether `bf16`, `f16`, `fp16` and `f32` count as types.

    Returns:
        The name without the type, and the type as it is spelled there; None if the name ends with no type.
    """
    match = _TYPE.search(name)
    if match is None or (match["float"] and not floats):
        return name, None
    return name[: match.start()], match["type"]


def is_mmproj(name: str) -> bool:
    """Whether a file holds the towers of a GGUF model; runtimes know it by this word in its name, too."""
    return "mmproj" in name.lower()


def is_drafter(name: str) -> bool:
    """Whether a file holds a drafter that lies beside its model; llama.cpp knows it by this beginning, too."""
    return base(name).startswith(DRAFTER)


def is_imatrix(name: str) -> bool:
    """Whether a file holds an importance matrix; llama.cpp takes no file with this word in its name for a model."""
    return "imatrix" in base(name).lower() and split_type(stem(name))[1] is None


def base(path: str) -> str:
    """A path in a repository without its folders."""
    return path.rpartition("/")[2]


def model_in(name: str) -> tuple[str, str | None]:
    """What the name of a GGUF file says: name of the model and quantization type, as they are spelled there.

    That of an mmproj file or a drafter may name the model that it is for: `mmproj-model-4b-it-F16.gguf` and
    `model-4b-it.mmproj-F16.gguf` -> `model-4b-it`, `F16`; `mmproj-F16.gguf` -> nothing, `F16`.
    """
    model, kind = split_type(_BESIDE.sub("", stem(base(name)), count=1))
    return model.strip("-._ "), kind


def models_among(names: Iterable[str]) -> list[str]:
    """The files that hold models: no mmproj files or importance matrices, and drafters only where there is no model."""
    others = [name for name in names if not is_mmproj(name) and not is_imatrix(name)]
    return [name for name in others if not is_drafter(name)] or others


def without_marks(name: str) -> str:
    """A model's name without the marks by which its file would be taken for an mmproj file or a drafter."""
    while is_mmproj(name) or name.startswith(DRAFTER):
        name = _BESIDE.sub("", name).strip("-_. ")
    return name or "model"


@dataclass(frozen=True, slots=True)
class Parts:
    """Weight files of a folder by what they hold.

    Attributes:
        model: Names of the model's files, sorted; its shards, if it has any.
        projector: Name of the mmproj file, None for none.
        drafter: Name of the drafter's file, None for none.
    """

    model: tuple[str, ...]
    projector: str | None = None
    drafter: str | None = None


def parts(names: Iterable[str]) -> Parts:
    """Tell weight files apart by their names; a drafter without a model to draft for is the model."""
    names = sorted(names)
    model = models_among(names)
    projector = next(filter(is_mmproj, names), None)
    drafter = next((name for name in names if is_drafter(name) and name not in model), None)
    return Parts(tuple(model), projector, drafter)
