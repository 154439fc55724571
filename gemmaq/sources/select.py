"""Which files of a repository a conversion needs: the small ones, and those of a GGUF model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from gemmaq.checkpoint import chat_templates
from gemmaq.checkpoint.schemes import settings
from gemmaq.checkpoint.weight_sets import INDEXES
from gemmaq.errors import InputError, NotFoundError
from gemmaq.files import names
from gemmaq.hub import Listing, RemoteFile
from gemmaq.models import sentence_transformers as modules

ADAPTER = "adapter_config.json"
_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_SMALL = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "chat_template.json", "chat_template.jinja",
    "preprocessor_config.json", "processor_config.json", "README.md", "LICENSE", *INDEXES, *modules.FILES,
    *settings.FILES,
)  # fmt: skip


def small(listing: Listing) -> list[RemoteFile]:
    """Config, tokenizer, index, image processor, card, and modules of a model that embeds."""
    names, templates = (*_SMALL, ADAPTER) if is_adapter(listing) else _SMALL, f"{chat_templates.FOLDER}/*.jinja"
    return [f for f in listing.files if f.path in names or modules.is_module(f.path) or matches(f.path, (templates,))]


def _complete(files: list[RemoteFile], listing: Listing, exclude: Sequence[str]) -> list[RemoteFile]:
    """The files; an error if a shard is missing that is not excluded."""
    for file in files:
        shard = names.shard(file.path)
        for name in shard.siblings if shard else ():
            if listing.find(name) is None and not matches(name, exclude):
                raise NotFoundError(f"has no file {name}", path=listing.ref)
    return files


def is_adapter(listing: Listing) -> bool:
    """Whether a repository holds an adapter and no model."""
    has_model = listing.find("config.json") and any(
        file.path.startswith("model") and file.path.endswith(".safetensors") for file in listing.files
    )
    return listing.find(ADAPTER) is not None and not has_model and not listing.ref.part


def adapter_weights(listing: Listing) -> list[RemoteFile]:
    """The file with the weights of an adapter, as far as it is there."""
    found = {file.path: file for file in listing.files}
    return [found[name] for name in _ADAPTER_WEIGHTS if name in found][:1]


def is_gguf(listing: Listing) -> bool:
    """Whether to take the model from GGUF files: the user named one, or there is nothing else."""
    safetensors = any(file.path.endswith(".safetensors") and "/" not in file.path for file in listing.files)
    return bool(listing.ref.part) or (not safetensors and bool(_models(listing)))


def gguf(listing: Listing, exclude: Sequence[str] = ()) -> list[RemoteFile]:
    """The GGUF model that the user means, with all its shards.

    Raises:
        NotFoundError: No model has that type or name, or a shard is missing.
        InputError: There are several models and the user named none.
    """
    part = (listing.ref.part or "").lower()
    models = _models(listing, part)
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
    return _complete(chosen[0], listing, exclude)


def beside(listing: Listing, model: str, is_one: Callable[[str], bool]) -> tuple[list[str], list[RemoteFile]]:
    """The files of a kind that may belong to a model: those in its folder, else those at the top of the repository.

    Args:
        listing: Files of the repository.
        model: Path of the model's file.
        is_one: Whether a file's name says that it is of the kind.

    Returns:
        Paths of the models that these files lie beside, and the files.
    """
    models = [files[0].path for files in _models(listing)]
    folder = _folder(model)
    files = [file for file in _ggufs(listing) if is_one(file.path) and file.path not in (model, *models)]
    near = [file for file in files if _folder(file.path) == folder]
    if near:
        return [path for path in models if _folder(path) == folder], near
    return models, [file for file in files if not _folder(file.path)]


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _ggufs(listing: Listing) -> list[RemoteFile]:
    """The GGUF files of a repository, sorted by path."""
    files = [file for file in listing.files if file.path.lower().endswith(".gguf")]
    return sorted(files, key=lambda file: file.path)


def _models(listing: Listing, part: str = "") -> list[list[RemoteFile]]:
    """GGUF files that hold models, shards of one model together and in order.

    A drafter counts if `part` names it, or if there is nothing else.
    """
    files = {file.path: file for file in _ggufs(listing)}
    paths = [path for path in files if not names.is_mmproj(path) and not names.is_imatrix(path)]
    if not any(names.is_drafter(name) for name in part.split("/")):
        paths = names.models_among(paths)
    models: dict[str, list[RemoteFile]] = {}
    for path in paths:
        models.setdefault(names.stem(path), []).append(files[path])
    return list(models.values())


def _type(files: list[RemoteFile]) -> str | None:
    _, kind = names.split_type(names.stem(files[0].path))
    return kind.upper() if kind else None


def _names(files: list[RemoteFile]) -> set[str]:
    """Everything a user may call a model: its type, its path, or the name of one of its files."""
    spellings = {(_type(files) or "").lower(), names.stem(files[0].path).lower()}
    for file in files:
        spellings |= {file.path.lower(), names.base(file.path).lower()}
    return spellings - {""}


def filtered(files: Sequence[RemoteFile], include: Sequence[str], exclude: Sequence[str]) -> list[RemoteFile]:
    """Files that match a pattern of `include`, or any if there is none, and no pattern of `exclude`."""
    return [file for file in files if (not include or matches(file.path, include)) and not matches(file.path, exclude)]


def matches(path: str, patterns: Sequence[str]) -> bool:
    """Whether a path matches one of the patterns."""
    return any(fnmatchcase(path, pattern) for pattern in patterns)
