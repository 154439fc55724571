"""The tokenizer in the keys of a GGUF file, put right where a converter wrote it in another way than llama.cpp's does.

Folders without tokenizer.model get the tokenizer `gpt2` from llama.cpp's converter, without scores and bytes: llama.cpp
splits texts otherwise then. Files that were made by hand have tokens of turns typed as text, which then end nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemmaq.checkpoint.tokenizer import Tokenizer, adds, base_scores, by_hand
from gemmaq.errors import InputError
from gemmaq.files.sentencepiece import BYTE, BYTES, CONTROL, NORMAL, SPACE, UNUSED, USER_DEFINED
from gemmaq.models.config import TextConfig
from gemmaq.models.family import Family, Vocabulary
from gemmaq.models.gguf_numbers import TOKENIZERS_WITH_MERGES

_ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "sep": "seperator", "pad": "padding", "mask": "mask"}
"""Role of a token -> its spelling in `tokenizer.ggml.<role>_token_id` (`seperator` is GGUF's own)."""

_NAMED = "tokenizer.chat_template."
_TEXT = (0, NORMAL, UNUSED)
"""Types of tokens that no text becomes by its spelling alone; 0 is undefined."""


def read(keys: Mapping[str, Any], family: Family, origin: str, config: TextConfig) -> Tokenizer:
    """The tokenizer in the keys of a GGUF file.

    Raises:
        InputError: There is none, or it is of another kind than the family's.
    """
    del config

    def key(name: str, default: Any = None) -> Any:
        return keys.get(f"tokenizer.{name}", default)

    vocabulary = family.vocabulary
    pieces, scores, types = key("ggml.tokens"), key("ggml.scores"), key("ggml.token_type")
    names = {key("ggml.model"), key("ggml.pre") if vocabulary.MERGES else None}  # Ollama's converter has it as pre
    by_merges = _by_merges(keys, vocabulary)
    if (vocabulary.GGUF_MODEL not in names and not by_merges) or not isinstance(pieces, list) or not pieces:
        raise InputError(
            f"holds no tokenizer of {family.title} (its model is {key('ggml.model')!r}, not {vocabulary.GGUF_MODEL!r})",
            path=origin,
        )
    if vocabulary.MERGES or by_merges:
        scores = np.full(len(pieces), vocabulary.score(0), np.float32)
    if not (
        isinstance(scores, np.ndarray) and isinstance(types, np.ndarray) and len(pieces) == len(scores) == len(types)
    ):
        raise InputError("tokens, scores and token types do not belong together", path=origin)
    merges = _merges(key("ggml.merges"), origin) if vocabulary.MERGES or by_merges else None
    types = types.astype(np.int32)
    if vocabulary.MERGES or by_merges:
        types = _types(pieces, types, vocabulary)
    for text in _retyped(keys, vocabulary):
        types[pieces.index(text)] = vocabulary.CONTROLS[text]
    if not vocabulary.MERGES:
        pieces = _spaced(pieces, types)
    if by_merges and not vocabulary.MERGES:
        assert merges is not None
        base = {text: at for at, text in enumerate(pieces) if types[at] in (NORMAL, BYTE)}
        scores = by_hand(types)
        found = base_scores(vocabulary, {text: at for at, text in enumerate(pieces)}, merges)
        scores[[*base.values()]] = [found[text] for text in base]
        merges = None
    special = {role: key(f"ggml.{spelling}_token_id") for role, spelling in _ROLES.items()}
    said = {role: bool(value) for role in ("bos", "eos", "sep") if (value := key(f"ggml.add_{role}_token")) is not None}
    return Tokenizer(
        pieces=pieces,
        scores=scores.astype(np.float32),
        types=types,
        special={role: at for role, at in special.items() if isinstance(at, int) and at < len(pieces)},
        add=adds(said, vocabulary),
        chat_template=key("chat_template"),
        named_templates={k.removeprefix(_NAMED): text for k, text in keys.items() if k.startswith(_NAMED) and text},
        merges=merges,
    )


def notes(keys: Mapping[str, Any], family: Family) -> tuple[str, ...]:
    """A sentence on everything that `read` puts right."""
    found = []
    if _by_merges(keys, family.vocabulary):
        kind = "{!r:.20} ({!r:.20})".format(*(keys.get(f"tokenizer.ggml.{name}") for name in ("model", "pre")))
        found.append(
            f"the tokenizer is {kind}, with which llama.cpp splits texts of {family.title} wrongly: "
            f"read as {family.vocabulary.GGUF_MODEL!r}, with types and scores put right"
        )
    if texts := _retyped(keys, family.vocabulary):
        more = f" and {len(texts) - 4} more" if len(texts) > 4 else ""
        found.append(
            f"{', '.join(texts[:4])}{more} {'is' if len(texts) == 1 else 'are'} typed as plain text, so that a chat "
            "would not work: read as the special tokens that they are"
        )
    return tuple(found)


def _by_merges(keys: Mapping[str, Any], vocabulary: Vocabulary) -> bool:
    """Whether the family's own vocabulary is there as a tokenizer of another kind, with merges."""
    model, pieces = keys.get("tokenizer.ggml.model"), keys.get("tokenizer.ggml.tokens")
    usual = vocabulary.GGUF_MODEL in (model, keys.get("tokenizer.ggml.pre") if vocabulary.MERGES else None)
    if usual or model not in TOKENIZERS_WITH_MERGES or not isinstance(pieces, list):
        return False
    ids = {text: at for at, text in enumerate(pieces)}
    return vocabulary.is_ours(ids) or vocabulary.is_trimmed(ids)


def _retyped(keys: Mapping[str, Any], vocabulary: Vocabulary) -> list[str]:
    """Special tokens of the family that a file types as text."""
    pieces, types = keys.get("tokenizer.ggml.tokens"), keys.get("tokenizer.ggml.token_type")
    if not isinstance(pieces, list) or not isinstance(types, np.ndarray) or len(pieces) != len(types):
        return []
    known = vocabulary.CONTROLS
    return list(dict.fromkeys(text for at, text in enumerate(pieces) if text in known and types[at] in _TEXT))


def _spaced(pieces: list[str], types: NDArray[np.int32]) -> list[str]:
    """Pieces with SentencePiece's character for spaces in runs of spaces, too, which GGUF files spell as they are."""
    return [
        text.replace(" ", SPACE) if kind == USER_DEFINED and text.isspace() else text
        for text, kind in zip(pieces, types.tolist(), strict=True)
    ]


def _types(pieces: list[str], types: NDArray[np.int32], vocabulary: Vocabulary) -> NDArray[np.int32]:
    """Types as llama.cpp's converter writes them: Ollama's has bytes as text, and all special tokens as control."""
    types, bytes_ = types.copy(), frozenset(BYTES)
    for at, text in enumerate(pieces):
        if text in bytes_:
            types[at] = BYTE
        elif types[at] == CONTROL:
            types[at] = vocabulary.added_type(text, special=True, base=True)
    return types


def _merges(merges: Any, origin: str) -> list[str]:
    """The merges, each a pair of pieces with a space between."""
    if not isinstance(merges, list) or not merges or any(str(merge).count(" ") != 1 for merge in merges):
        raise InputError("has no usable merges", "convert the model again with a newer converter", path=origin)
    return merges
