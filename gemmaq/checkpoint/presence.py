"""What config.json and the tokenizer speak of and the weights lack, or the other way round."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from gemmaq.errors import InputError
from gemmaq.files.text import read_json
from gemmaq.models.family import Family
from gemmaq.models.towers import Towers

_SENSES = {"vision": "images", "audio": "sound"}
"""Kind of a tower's tensors, `vision_config` and `audio_config` without the ending -> what goes through it."""
_SHOWN = 6


def towers_present(
    document: Mapping[str, Any], stored: Iterable[str], family: Family
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """config.json without the towers that no file holds, and a sentence on each of them.

    Args:
        document: Content of config.json.
        stored: Names of the towers' tensors in the files.
        family: The model's family.
    """
    towers = family.towers
    if towers is None:
        return document, ()
    kinds = {towers.place(name).kind for name in map(towers.canonical, stored) if name is not None}
    absent = [sense for sense in _SENSES if sense not in kinds and isinstance(document.get(f"{sense}_config"), Mapping)]
    told = tuple(
        f"config.json describes a side for {_SENSES[sense]} ({sense}_config), but no file has its tensors: "
        f"the result takes no {_SENSES[sense]}"
        for sense in absent
    )
    return {key: value for key, value in document.items() if key.removesuffix("_config") not in absent}, told


def incomplete(found: Collection[str], expected: Collection[str], towers: Towers) -> InputError | None:
    """An error that says what towers lack, None if they are whole."""
    missing = [name for name in expected if name not in found]
    if not missing:
        return None
    more = f" and {len(missing) - 1} more of its {len(expected)} tensors" if len(missing) > 1 else ""
    return InputError(f"the {towers.place(missing[0]).kind} side lacks {missing[0]}{more}")


def tokens_cut(folder: Path, size: int, rows: int) -> tuple[str, ...]:
    """A sentence on tokens in rows of the embedding that are cut, since the config's vocabulary ends before them.

    Args:
        folder: Folder of the model.
        size: `vocab_size` of config.json.
        rows: Rows of the embedding.

    Returns:
        The sentence, nothing if these rows have no tokens.
    """
    if rows <= size:
        return ()
    try:
        tokens = _tokens(folder)
    except InputError:  # told when the tokenizer is read
        return ()
    lost = [tokens[at] for at in range(size, rows) if at in tokens]
    if not lost:
        return ()
    more = f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
    return (
        f"the embedding has {rows:,} rows, but vocab_size is {size:,}: "
        f"{'the tokens' if len(lost) > 1 else 'the token'} {', '.join(lost[:_SHOWN])}{more} will be lost; "
        f"set vocab_size to {rows} in config.json to keep them",
    )


def _tokens(folder: Path) -> dict[int, str]:
    """Id -> text of all tokens that the tokenizer's JSON files name."""
    whole = read_json(folder / "tokenizer.json", {})
    model, listed = whole.get("model"), whole.get("added_tokens")
    decoder = read_json(folder / "tokenizer_config.json", {}).get("added_tokens_decoder")
    pairs: list[tuple[Any, Any]] = []
    for ids in (
        model.get("vocab") if isinstance(model, Mapping) else None,
        read_json(folder / "added_tokens.json", {}),
    ):
        pairs += [(at, text) for text, at in ids.items()] if isinstance(ids, Mapping) else []
    for entries in (listed if isinstance(listed, list) else []), _numbered(decoder):
        pairs += [(entry.get("id"), entry.get("content")) for entry in entries if isinstance(entry, Mapping)]
    return {at: text for at, text in pairs if type(at) is int and isinstance(text, str)}


def _numbered(decoder: Any) -> list[Mapping[str, Any]]:
    """Entries of an added_tokens_decoder with their ids in them."""
    entries = decoder.items() if isinstance(decoder, Mapping) else ()
    return [{**entry, "id": int(at)} for at, entry in entries if isinstance(entry, Mapping) and at.isdecimal()]
