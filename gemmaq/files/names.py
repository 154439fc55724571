"""Names of weight files: shards, quantization types, mmproj files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gemmaq.errors import InputError, NotFoundError

_SHARD = re.compile(
    r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf|\.safetensors)", re.IGNORECASE
)
_TYPE = re.compile(r"[-._](?P<type>(?P<float>bf16|f16|fp16|f32)|(ud-)?(i?q\d(_\w+)*|tq\d(_\d)?|mxfp4))$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Shard:
    """The name of one file of a model that is split over several: `stem-00001-of-00003.gguf`.

    Attributes:
        stem: Name before the shard number, with its folders where the name had any.
        number: Number of the shard, from 1.
        count: Number of shards of the model.
        suffix: `.gguf` or `.safetensors`.
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
    """Whether a file holds the vision side of a GGUF model; runtimes know it by this word in its name, too."""
    return "mmproj" in name.lower()


def mmproj_rank(name: str) -> tuple[bool, str]:
    """Sort key that puts the F16 file first among several mmproj files of one model."""
    return "f16" not in name.lower().replace("bf16", ""), name
