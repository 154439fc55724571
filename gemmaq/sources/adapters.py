"""Opens an adapter with the base model that it was trained on."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from gemmaq.checkpoint import Checkpoint
from gemmaq.checkpoint.lora import config as lora_config
from gemmaq.checkpoint.lora import weights as lora_weights
from gemmaq.checkpoint.lora.config import LoraConfig
from gemmaq.checkpoint.lora.model import merged
from gemmaq.checkpoint.tokenizer import files_of
from gemmaq.errors import AuthError, GemmaqError, InputError, NotFoundError, UsageError
from gemmaq.files.text import read_json
from gemmaq.hub import parse
from gemmaq.sources.companions import Wish

OpenBase = Callable[[str], Checkpoint]
"""Opens a base model by its path or repository."""
_HINT = "name its base model with --base, a folder or a repository"


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    has_model = (folder / "config.json").is_file() and any(folder.glob("model*.safetensors"))
    return (folder / lora_config.NAME).is_file() and not has_model


def refuse(wish: Wish, source: object) -> None:
    """Refuse a base model for a source that is no adapter.

    Raises:
        UsageError: The user named one, or wants the adapter alone.
    """
    if wish.base is not None or wish.alone:
        flag = "--base" if wish.base is not None else "--to gguf-lora"
        raise UsageError(f"{flag} is for adapters, and {source} is none", "leave it out")


def open_adapter(folder: Path, name: str, source: str, wish: Wish, open_base: OpenBase) -> Checkpoint:
    """Open an adapter with its base model, merged.

    Args:
        folder: Folder of the adapter.
        name: Name of the adapter, which becomes that of the model.
        source: SOURCE as the user typed it.
        wish: The base model that the user names, if any.
        open_base: Opens the base model.

    Raises:
        NotFoundError: A file of the adapter is missing, or its base model is not named or does not exist.
        InputError: It is no LoRA adapter, or does not fit its base model.
    """
    config = lora_config.read(folder / lora_config.NAME)
    weights = lora_weights.read(folder)
    if config.invocation and not wish.alone:
        raise InputError(
            "says alora_invocation_tokens: the adapter is active behind certain tokens only, so it cannot be merged",
            "--to gguf-lora writes it alone",
            path=config.path,
        )
    base = _open_base(folder, config, source, wish, open_base)
    if base.adapter is not None:
        raise UsageError(f"{base.location} is an adapter itself", "merge it into its own base model first")
    model = merged(base, config, weights)
    return replace(
        _with_tokenizer(model, folder),
        name=name,
        location=source,
        weights_here=base.weights_here,
        notes=(_told(model, name), *model.notes),
    )


def _told(model: Checkpoint, name: str) -> str:
    """A sentence about what is merged."""
    adapter = model.adapter
    assert adapter is not None
    every = len(adapter.base.tensors) + len(adapter.base.towers)
    rank = f" of rank {adapter.rank}" if adapter.rank else ""
    return (
        f"{adapter.kind} adapter {name}{rank} is merged into {adapter.base.name}: it changes {adapter.changed} of "
        f"{every} tensors"
    )


def base_of(folder: Path, config: LoraConfig, source: str, wish: Wish) -> str:
    """The base model of an adapter: what the user named, else what its config names.

    A path in the config counts from the working directory, or else from the adapter's folder.

    Raises:
        NotFoundError: The config names none, or a path that does not exist here.
    """
    if wish.base is not None:
        return wish.base
    if config.base is None:
        raise NotFoundError("is an adapter whose config names no base model", _HINT, path=source)
    for path in (Path(config.base), folder / config.base):
        if os.path.exists(path):
            return str(path)
    ref = parse(config.base)
    if ref is None:
        raise NotFoundError(f"is an adapter of {config.base}, which does not exist here", _HINT, path=source)
    return ref.repo + (f"@{config.revision or ref.revision}" if config.revision or ref.revision else "")


def _open_base(folder: Path, config: LoraConfig, source: str, wish: Wish, open_base: OpenBase) -> Checkpoint:
    base = base_of(folder, config, source, wish)
    try:
        return open_base(base)
    except (InputError, NotFoundError, AuthError) as error:
        if wish.base is not None:
            raise
        hint = f"it is the base model that {source} names; another copy of it can be named with --base"
        raise _hinted(error, hint) from error


def _hinted(error: GemmaqError, hint: str) -> GemmaqError:
    """The same error, with a further hint."""
    both = f"{error.hint}; {hint}" if error.hint else hint
    return type(error)(error.problem, both, path=error.path, tensor=error.tensor, key=error.key)


def _with_tokenizer(model: Checkpoint, folder: Path) -> Checkpoint:
    """A model with the adapter's own tokenizer, if it comes with one.

    Raises:
        InputError: It has tokens that the embedding has no rows for, and the base model's tokenizer has not.
    """
    files = files_of(folder, model.family)
    if not any(name in files.verbatim for name in ("tokenizer.json", "tokenizer.model")):
        return model
    rows, known = model.config.vocab_size, {path.parent for path in model.tokenizer_files.verbatim.values()}
    if known:
        old = {token for other in known for token in _added(other)}
        lost = [text for token, text in sorted(_added(folder).items()) if token >= rows and token not in old]
        if lost:
            more = f" and {len(lost) - 1} more" if lost[1:] else ""
            raise InputError(
                f"has a tokenizer with {lost[0]!r}{more}, for which the embedding of {rows} rows has none",
                "save it again with PEFT's save_embedding_layers=True, which stores the grown embedding",
                path=folder,
            )
    notes = (*model.notes, "the tokenizer and its chat template are the adapter's")
    return replace(model, tokenizer_files=files, notes=notes)


def _added(folder: Path) -> dict[int, str]:
    """Tokens that were added to a tokenizer, by id."""
    settings = read_json(folder / "tokenizer_config.json", {}).get("added_tokens_decoder")
    found = {str(at): token for at, token in settings.items()} if isinstance(settings, dict) else {}
    if not found:
        listed: Any = read_json(folder / "tokenizer.json", {}).get("added_tokens")
        found = {str(t.get("id")): t for t in listed if isinstance(t, dict)} if isinstance(listed, list) else {}
    tokens = {
        int(at): str(token["content"])
        for at, token in found.items()
        if at.isdecimal() and isinstance(token, dict) and "content" in token
    }
    named = read_json(folder / "added_tokens.json", {})
    return tokens | {at: text for text, at in named.items() if isinstance(at, int)}
