"""Which files of a repository a conversion needs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from gemmaq.errors import InputError, NotFoundError
from gemmaq.hub import Listing, RemoteFile

INDEX = "model.safetensors.index.json"
_SMALL = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "chat_template.json", "chat_template.jinja",
    "preprocessor_config.json", "processor_config.json", "README.md", "LICENSE", INDEX,
)  # fmt: skip
_SHARD = re.compile(r"-\d{5}-of-(?P<count>\d{5})(?P<kind>\.gguf|\.safetensors)$", re.IGNORECASE)
_TYPE = re.compile(r"[-._](?P<type>(ud-)?(i?q\d\w*|tq\d\w*|bf16|f16|f32|fp16|mxfp4))$", re.IGNORECASE)


def small(listed: Listing) -> list[RemoteFile]:
    """Config, tokenizer, index, processor and card."""
    return [file for file in listed.files if file.path in _SMALL]


def weights(listed: Listing, shards: Sequence[str] | None, exclude: Sequence[str] = ()) -> list[RemoteFile]:
    """The safetensors files.

    Args:
        listed: the repository.
        shards: files that the index names, None without an index.
        exclude: patterns of files that may be missing.

    Raises:
        NotFoundError: there are none, or one that the index or their names speak of is missing.
    """
    found = [file for file in listed.files if file.path.endswith(".safetensors") and "/" not in file.path]
    if shards is None:
        whole = [file for file in found if file.path == "model.safetensors"]
        return whole or _whole(_some(found, listed, exclude), listed, exclude)
    by_name = {file.path: file for file in found}
    wanted = [name for name in dict.fromkeys(shards) if not matches(name, exclude)]
    for name in wanted:
        if name not in by_name:
            raise NotFoundError(f"{listed.ref} has no file {name}, which its index names")
    return [by_name[name] for name in wanted]


def _some(found: list[RemoteFile], listed: Listing, exclude: Sequence[str]) -> list[RemoteFile]:
    if not found and not matches("model.safetensors", exclude):
        others = sorted({file.path.rpartition(".")[2] for file in listed.files if file.size > 1 << 26})
        hint = f"its large files are .{', .'.join(others)}" if others else None
        raise NotFoundError(f"{listed.ref} holds neither safetensors nor GGUF files", hint)
    return found


def _whole(files: list[RemoteFile], listed: Listing, exclude: Sequence[str]) -> list[RemoteFile]:
    """The files, if no shard that their names count is missing, unless it is excluded."""
    for file in files:
        if (found := _SHARD.search(file.path)) is None:
            continue
        for number in range(1, int(found["count"]) + 1):
            name = f"{file.path[: found.start()]}-{number:05}-of-{found['count']}{found['kind']}"
            if listed.find(name) is None and not matches(name, exclude):
                raise NotFoundError(f"{listed.ref} has no file {name}")
    return files


def is_gguf(listed: Listing) -> bool:
    """Whether the model is to be taken from GGUF files: since they were named, or for lack of anything else."""
    safetensors = any(file.path.endswith(".safetensors") and "/" not in file.path for file in listed.files)
    return bool(listed.ref.part) or (not safetensors and bool(_models(listed)))


def gguf(listed: Listing, exclude: Sequence[str] = ()) -> list[RemoteFile]:
    """The GGUF model that is meant: all its shards, and the vision projector beside it.

    Raises:
        NotFoundError: there is none of that type or name, or one of its shards is missing.
        InputError: there are several, and none was named.
    """
    models = _models(listed)
    part = (listed.ref.part or "").lower()
    named = [files for files in models if part in _names(files)]
    chosen = named or (models if not part else [])
    if len(chosen) != 1:
        known = ", ".join(f"{listed.ref.repo}:{_type(files) or files[0].path}" for files in models)
        if part and not named:
            raise NotFoundError(
                f"{listed.ref.repo} has no GGUF model {listed.ref.part}", f"it has {known}" if known else None
            )
        raise InputError(f"{listed.ref} holds {len(chosen)} GGUF models", f"name one: {known}")
    folder = chosen[0][0].path.rpartition("/")[0]
    return [*_whole(chosen[0], listed, exclude), *_projector(listed, folder)]


def _models(listed: Listing) -> list[list[RemoteFile]]:
    """GGUF files without projectors, shards of one model together, in order."""
    models: dict[str, list[RemoteFile]] = {}
    for file in sorted(listed.files, key=lambda file: file.path):
        if file.path.lower().endswith(".gguf") and "mmproj" not in file.path.lower():
            models.setdefault(_SHARD.sub(".gguf", file.path), []).append(file)
    return list(models.values())


def _stem(files: list[RemoteFile]) -> str:
    return _SHARD.sub("", files[0].path).removesuffix(".gguf")


def _type(files: list[RemoteFile]) -> str | None:
    found = _TYPE.search(_stem(files))
    return found["type"].upper() if found else None


def _names(files: list[RemoteFile]) -> set[str]:
    """What a model may be called: by its type, its path, or its file's name."""
    names = {(_type(files) or "").lower(), _stem(files).lower()}
    for file in files:
        names |= {file.path.lower(), file.path.rpartition("/")[2].lower()}
    return names - {""}


def _projector(listed: Listing, folder: str) -> list[RemoteFile]:
    """The mmproj file beside a model, in F16 where there are several."""
    beside = [
        file
        for file in listed.files
        if file.path.lower().endswith(".gguf")
        and "mmproj" in file.path.lower()
        and file.path.rpartition("/")[0] in (folder, "")
    ]
    beside.sort(key=lambda file: ("f16" not in file.path.lower().replace("bf16", ""), file.path))
    return beside[:1]


def filtered(files: Sequence[RemoteFile], include: Sequence[str], exclude: Sequence[str]) -> list[RemoteFile]:
    """Files that a pattern of `include` matches, if there is any, and none of `exclude`."""
    return [file for file in files if (not include or matches(file.path, include)) and not matches(file.path, exclude)]


def matches(path: str, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns does."""
    return any(fnmatchcase(path, pattern) for pattern in patterns)
