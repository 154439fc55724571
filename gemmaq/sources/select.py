"""Which files of a repository a conversion needs: one safetensors or GGUF model with its small files."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from gemmaq.errors import InputError, NotFoundError
from gemmaq.files import names
from gemmaq.hub import Listing, RemoteFile

INDEX = "model.safetensors.index.json"
_SMALL = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "chat_template.json", "chat_template.jinja",
    "preprocessor_config.json", "processor_config.json", "README.md", "LICENSE", INDEX,
)  # fmt: skip


def small(listing: Listing) -> list[RemoteFile]:
    """Config, tokenizer, index, image processor and card of the model."""
    return [file for file in listing.files if file.path in _SMALL]


def weights(listing: Listing, shards: Sequence[str] | None, exclude: Sequence[str] = ()) -> list[RemoteFile]:
    """The safetensors files of the model.

    Args:
        listing: Files of the repository.
        shards: File names in the index, None without an index.
        exclude: Patterns of files that may be missing.

    Raises:
        NotFoundError: There are none, or one that the index or a shard's name counts on is missing.
    """
    files = [file for file in listing.files if file.path.endswith(".safetensors") and "/" not in file.path]
    if shards is None:
        single = [file for file in files if file.path == "model.safetensors"]
        return single or _complete(_not_empty(files, listing, exclude), listing, exclude)
    by_name = {file.path: file for file in files}
    required = [name for name in dict.fromkeys(shards) if not matches(name, exclude)]
    for name in required:
        if name not in by_name:
            raise NotFoundError(f"has no file {name}, which its index names", path=listing.ref)
    return [by_name[name] for name in required]


def _not_empty(files: list[RemoteFile], listing: Listing, exclude: Sequence[str]) -> list[RemoteFile]:
    """The files; an error that names the endings of the repository's large files if there are none."""
    if not files and not matches("model.safetensors", exclude):
        endings = sorted({file.path.rpartition(".")[2] for file in listing.files if file.size > 1 << 26})
        hint = f"its large files are .{', .'.join(endings)}" if endings else None
        raise NotFoundError("holds neither safetensors nor GGUF files", hint, path=listing.ref)
    return files


def _complete(files: list[RemoteFile], listing: Listing, exclude: Sequence[str]) -> list[RemoteFile]:
    """The files; an error if a shard is missing that is not excluded."""
    for file in files:
        shard = names.shard(file.path)
        for name in shard.siblings if shard else ():
            if listing.find(name) is None and not matches(name, exclude):
                raise NotFoundError(f"has no file {name}", path=listing.ref)
    return files


def is_gguf(listing: Listing) -> bool:
    """Whether to take the model from GGUF files: the user named one, or there is nothing else."""
    safetensors = any(file.path.endswith(".safetensors") and "/" not in file.path for file in listing.files)
    return bool(listing.ref.part) or (not safetensors and bool(_models(listing)))


def gguf(listing: Listing, exclude: Sequence[str] = ()) -> list[RemoteFile]:
    """The GGUF model that the user means: all its shards and its mmproj file.

    Raises:
        NotFoundError: No model has that type or name, or a shard is missing.
        InputError: There are several models and the user named none.
    """
    models = _models(listing)
    part = (listing.ref.part or "").lower()
    matching = [files for files in models if part in _names(files)]
    chosen = matching or (models if not part else [])
    if len(chosen) != 1:
        available = ", ".join(f"{listing.ref.repo}:{_type(files) or files[0].path}" for files in models)
        if part and not matching:
            raise NotFoundError(
                f"has no GGUF model {listing.ref.part}",
                f"it has {available}" if available else None,
                path=listing.ref.repo,
            )
        raise InputError(f"holds {len(chosen)} GGUF models", f"name one: {available}", path=listing.ref)
    folder = chosen[0][0].path.rpartition("/")[0]
    return [*_complete(chosen[0], listing, exclude), *_projector(listing, folder)]


def _models(listing: Listing) -> list[list[RemoteFile]]:
    """GGUF files but for mmproj files, shards of one model together and in order."""
    models: dict[str, list[RemoteFile]] = {}
    for file in sorted(listing.files, key=lambda file: file.path):
        if file.path.lower().endswith(".gguf") and not names.is_mmproj(file.path):
            models.setdefault(names.stem(file.path), []).append(file)
    return list(models.values())


def _type(files: list[RemoteFile]) -> str | None:
    _, kind = names.split_type(names.stem(files[0].path))
    return kind.upper() if kind else None


def _names(files: list[RemoteFile]) -> set[str]:
    """Everything a user may call a model: its type, its path, or the name of one of its files."""
    spellings = {(_type(files) or "").lower(), names.stem(files[0].path).lower()}
    for file in files:
        spellings |= {file.path.lower(), file.path.rpartition("/")[2].lower()}
    return spellings - {""}


def _projector(listing: Listing, folder: str) -> list[RemoteFile]:
    """The mmproj file of a model in this folder, the F16 one if there are several."""
    files = [
        file
        for file in listing.files
        if file.path.lower().endswith(".gguf")
        and names.is_mmproj(file.path)
        and file.path.rpartition("/")[0] in (folder, "")
    ]
    return sorted(files, key=lambda file: names.mmproj_rank(file.path))[:1]


def filtered(files: Sequence[RemoteFile], include: Sequence[str], exclude: Sequence[str]) -> list[RemoteFile]:
    """Files that match a pattern of `include`, or any if there is none, and no pattern of `exclude`."""
    return [file for file in files if (not include or matches(file.path, include)) and not matches(file.path, exclude)]


def matches(path: str, patterns: Sequence[str]) -> bool:
    """Whether a path matches one of the patterns."""
    return any(fnmatchcase(path, pattern) for pattern in patterns)
