"""Which files of a folder or repository may be the weights: sets of files by their names, the most usual first.

The order is that of `PreTrainedModel.from_pretrained` in transformers, but for an index beside a whole file: tools
disagree which of the two counts, so `weight_files` compares them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemmaq.errors import InputError
from gemmaq.files import names as file_names
from gemmaq.files.text import read_json

INDEX = "model.safetensors.index.json"
PICKLED_INDEX = "pytorch_model.bin.index.json"
INDEXES = (INDEX, PICKLED_INDEX)
WHOLE = {INDEX: "model.safetensors", PICKLED_INDEX: "pytorch_model.bin"}
"""Index -> the file that holds all weights where they are not split."""
PICKLED = (".bin", ".pt", ".pth")
"""Endings of files that PyTorch pickles."""
ENDINGS = (".safetensors", *PICKLED)
"""Endings of weight files that lie beside a config.json."""
_MODEL_PICKLE = re.compile(r"pytorch_model(-\d{5}-of-\d{5})?\.bin")
"""Pickled files that count without being named: all others may be states of optimizers or arguments."""

IndexReader = Callable[[str], Mapping[str, str]]
"""Gives an index by its name: tensor -> file."""


@dataclass(frozen=True, slots=True)
class WeightSet:
    """Files that belong together.

    Attributes:
        name: What messages call it: the index, else the first file.
        files: Names of its files.
        missing: Those that are not there, by name.
        places: Tensor -> file by the index; empty for a set without one.
    """

    name: str
    files: tuple[str, ...]
    missing: tuple[str, ...]
    places: Mapping[str, str]

    @property
    def is_indexed(self) -> bool:
        """Whether an index names its files."""
        return self.name.endswith(".json")

    @property
    def is_pickled(self) -> bool:
        """Whether PyTorch pickled its files."""
        return self.files[0].endswith(PICKLED)


def is_weight_file(name: str) -> bool:
    """Whether a file's name says that it may hold weights, or be the index of some."""
    return name.endswith(ENDINGS) or name in INDEXES


def sets(present: Collection[str], read_index: IndexReader) -> list[WeightSet]:
    """All sets of weight files, the most usual first; those that only the user can mean last (see `is_usual`).

    Args:
        present: Names of the files in the folder.
        read_index: Reads an index.

    Raises:
        InputError: An index is unusable.
    """
    safe, single = _of_format(INDEX, present, read_index)
    pickled, others = _of_format(PICKLED_INDEX, present, read_index)
    return [*safe, *pickled, *single, *others]


def _of_format(
    index: str, present: Collection[str], read_index: IndexReader
) -> tuple[list[WeightSet], list[WeightSet]]:
    """The sets of safetensors files or of pickled files: those with usual names or several files, and single files."""
    places = read_index(index) if index in present else {}
    files = tuple(sorted(set(places.values())))
    found = [WeightSet(index, files, tuple(name for name in files if name not in present), places)] if files else []
    if WHOLE[index] in present and WHOLE[index] not in files:
        found.append(_single(WHOLE[index]))
    endings = PICKLED if index == PICKLED_INDEX else (".safetensors",)
    rest = [name for name in sorted(present) if name.endswith(endings) and name not in files and name != WHOLE[index]]
    families = {family.files: family for family in (_family(name, present) for name in rest if file_names.shard(name))}
    by_size = sorted(families.values(), key=lambda each: (len(each.missing), -len(each.files)))
    return [*found, *by_size], [_single(name) for name in rest if not file_names.shard(name)]


def _single(name: str) -> WeightSet:
    return WeightSet(name, (name,), (), {})


def _family(name: str, present: Collection[str]) -> WeightSet:
    """The shards that a shard belongs to; some tools count from 0."""
    shard = file_names.shard(name)
    assert shard is not None
    files = shard.siblings
    from_zero = [f"{shard.stem}-{n:05}-of-{shard.count:05}{shard.suffix}" for n in range(shard.count)]
    if from_zero[0] in present and files[-1] not in present:
        files = from_zero
    return WeightSet(files[0], tuple(files), tuple(file for file in files if file not in present), {})


def is_usual(found: WeightSet) -> bool:
    """Whether a set is taken without being named by the user."""
    return not found.is_pickled or found.is_indexed or _MODEL_PICKLE.fullmatch(found.files[0]) is not None


def named(found: Collection[WeightSet], name: str) -> WeightSet | None:
    """The set that the user means by the name of an index or of any of its files; None for no such set."""
    return next(
        (each for each in found if each.name == name), next((each for each in found if name in each.files), None)
    )


def read_index(path: Path) -> Mapping[str, str]:
    """An index: tensor -> file, both as they are spelled there.

    Raises:
        NotFoundError: It does not exist.
        InputError: It is unusable, or names a file outside its folder.
    """
    index: dict[str, Any] = read_json(path)
    shards = index.get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise InputError("has no usable weight_map", path=path)
    for shard in sorted(set(shards.values())):
        if Path(shard).name != shard or shard in ("", ".", "..") or "\\" in shard or not shard.isprintable():
            raise InputError(f"names the unsafe file {shard!r}", path=path)
        if not shard.endswith(ENDINGS):
            raise InputError(f"names {shard!r:.60}, which is no safetensors file", path=path)
    return shards
