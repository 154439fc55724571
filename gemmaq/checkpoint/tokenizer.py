"""Tokenizers: one value for whichever files they are stored in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemmaq.checkpoint import chat_templates, tokenizer_limits
from gemmaq.checkpoint.chat_templates import Templates
from gemmaq.errors import InputError, NotFoundError
from gemmaq.files import sentencepiece
from gemmaq.files.malformed import refused
from gemmaq.files.sentencepiece import BYTE, BYTES, NORMAL, UNDEFINED, UNUSED
from gemmaq.files.text import check_json, read_json, read_text
from gemmaq.files.whole import read_bytes
from gemmaq.models.config import TextConfig
from gemmaq.models.family import Family, Vocabulary

VERBATIM = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    chat_templates.FILE, chat_templates.OF_PROCESSOR,
)  # fmt: skip
"""Tokenizer files that an artifact in Hugging Face's layout takes over unchanged."""

_ADDED_SCORE, _PAD_SCORE = -1000.0, -10000.0
"""Scores of tokens that were added by hand, and of ids without a token, as llama.cpp's converter has them."""


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """A BPE vocabulary in SentencePiece's spelling, with its special tokens.

    Attributes:
        pieces: Text of every id, a space spelled U+2581.
        scores: Scores, f32 [ids]; the higher, the earlier merged.
        types: Types of the pieces in SentencePiece's numbers, i32 [ids].
        special: Role of a special token (`bos`, `eos`, `unk`, `pad`, `mask`, ...) -> id.
        add: Role -> whether an encoder adds that token by itself.
        chat_template: Jinja source, or None.
        named_templates: Further chat templates by name.
        merges: Pairs of pieces to join, each `left right`, best first; None if the scores say what to join.
    """

    pieces: list[str]
    scores: NDArray[np.float32]
    types: NDArray[np.int32]
    special: Mapping[str, int]
    add: Mapping[str, bool]
    chat_template: str | None = None
    named_templates: Mapping[str, str] | None = None
    merges: list[str] | None = None


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """Files of a tokenizer.

    Attributes:
        load: Reads the tokenizer for a model of the given config; raises InputError.
        verbatim: Its Hugging Face files, to be copied: path within the folder -> file; empty if it is stored otherwise.
        templates: Chat templates in these files, None if they were not read.
    """

    load: Callable[[TextConfig], Tokenizer]
    verbatim: Mapping[str, Path] = field(default_factory=dict)
    templates: Templates | None = None

    def read(self, config: TextConfig, where: str) -> Tokenizer:
        """The tokenizer for a model of the given config; `where` is the model in errors.

        Raises:
            InputError: It is missing, broken, or belongs to another family.
        """
        with refused(where):
            found = self.load(config)
            problem = _problem(found)
        if problem is not None:
            raise InputError(f"has a tokenizer {problem}", "copy the tokenizer files of the base model", path=where)
        return found

    def check(self) -> None:
        """Read every file that is to be copied, whether a tokenizer is read from it or not.

        Raises:
            InputError: One is not what its name says.
        """
        for name, path in self.verbatim.items():
            if name.endswith(".json"):
                check_json(path)
            elif name.endswith(".model"):
                sentencepiece.read(read_bytes(path), str(path))
            else:
                read_text(path)

    def contents(self) -> dict[str, bytes]:
        """Content of the files to be copied, in which one chat template counts: path within the folder -> content."""
        files = {name: read_bytes(path) for name, path in self.verbatim.items()}
        if self.templates is not None and self.templates.stale:
            return chat_templates.unambiguous(files, self.templates)
        return files


def _problem(tokenizer: Tokenizer) -> str | None:
    """What is wrong with a tokenizer from whatever file, as the end of a clause; None if it can be used and written."""
    pieces, scores, types = tokenizer.pieces, tokenizer.scores, tokenizer.types
    templates = {"": tokenizer.chat_template or "", **(tokenizer.named_templates or {})}
    if not len(pieces) == len(scores) == len(types):
        return "whose numbers of tokens, scores and types differ"
    if not np.isfinite(scores).all():
        return f"whose token {int(np.flatnonzero(~np.isfinite(scores))[0])} has no finite score"
    if not ((types >= UNDEFINED) & (types <= BYTE)).all():
        at = int(np.flatnonzero((types < UNDEFINED) | (types > BYTE))[0])
        return f"whose token {at} has the unknown type {types[at]}"
    if (types == UNUSED).all():
        return "without a token that is in use"
    if not all(type(at) is int and 0 <= at < len(pieces) for at in tokenizer.special.values()):
        return f"whose special tokens are not among its {len(pieces):,}"
    if not {*map(type, pieces), *map(type, templates.values()), *map(type, tokenizer.merges or ())} <= {str}:
        return "with a token, a merge or a chat template that is not text"
    return tokenizer_limits.problem(pieces, types == UNUSED)


def files_of(folder: Path, family: Family) -> TokenizerFiles:
    """The tokenizer files of a folder; unusable chat templates are noted, and refused as soon as they are loaded."""
    present = {name: folder / name for name in VERBATIM if (folder / name).is_file()}
    try:
        templates = chat_templates.read(folder)
    except InputError as error:
        templates = Templates(notes=(f"chat templates cannot be read: {error.relative_to(folder).message}",))
    return TokenizerFiles(partial(from_folder, folder, family), present | chat_templates.paths(folder), templates)


def from_folder(folder: Path, family: Family, config: TextConfig) -> Tokenizer:
    """Read the vocabulary with tokenizer_config.json and the chat template.

    A family whose tokenizer has scores keeps them in tokenizer.model, and its tokenizer.json will do; the merges of one
    that has merges are in tokenizer.json.

    Raises:
        InputError: Files are missing or broken, or hold the vocabulary of another family.
    """
    vocabulary = family.vocabulary
    settings = read_json(folder / "tokenizer_config.json", {})
    size = config.vocab_size
    pieces = [""] * size
    scores = np.full(size, _PAD_SCORE, np.float32)
    types = np.full(size, UNUSED, np.int32)
    model = folder / "tokenizer.model"
    added = _added(settings.get("added_tokens_decoder"), folder / "tokenizer_config.json")
    document: dict[str, Any] = {}
    if model.is_file() and not vocabulary.MERGES:
        base = sentencepiece.read(read_bytes(model), str(model))
        if not any(base[0]):
            raise InputError("holds no pieces", "copy the tokenizer files of the base model", path=model)
    else:
        if not (folder / "tokenizer.json").is_file():
            raise NotFoundError(
                "does not exist",
                "copy the tokenizer files of the base model into the folder: trainers often leave them out",
                path=folder / "tokenizer.json",
            )
        document = read_json(folder / "tokenizer.json")
        base = _pieces_of_json(folder / "tokenizer.json", document, family)
    if not added:  # transformers 5 keeps them in tokenizer.json only
        document = document or read_json(folder / "tokenizer.json", {})
        listed = document.get("added_tokens")
        added = _added(listed, folder / "tokenizer.json")
    base_size = min(size, len(base[0]))
    pieces[base_size:] = [f"[PAD{at}]" for at in range(base_size, size)]
    pieces[:base_size], scores[:base_size], types[:base_size] = (column[:base_size] for column in base)
    for at, (text, is_special) in {**_named_added(folder), **added}.items():
        if at < size:
            pieces[at], scores[at] = text, _ADDED_SCORE
            types[at] = vocabulary.added_type(text, special=is_special, base=at < base_size)
    templates = chat_templates.read(folder, settings)
    special = _special_ids(settings, config, family, {text: at for at, (text, _) in added.items()})
    said = {role: bool(settings[key]) for role in ("bos", "eos") if (key := f"add_{role}_token") in settings}
    merges = None
    if vocabulary.MERGES:
        merges = _merges(folder / "tokenizer.json", document)
        scores[:] = vocabulary.score(0)  # alike for all, even for ids without a token
    return Tokenizer(pieces, scores, types, special, adds(said, vocabulary), templates.default, templates.named, merges)


def adds(said: Mapping[str, bool], vocabulary: Vocabulary) -> dict[str, bool]:
    """Role of a token -> whether an encoder adds it, from what a file says and what the family does anyway."""
    return {**vocabulary.ADDS, **said, **({"bos": True} if vocabulary.ALWAYS_BOS else {})}


def _merges(path: Path, document: Mapping[str, Any]) -> list[str]:
    """The merges of a tokenizer.json, whichever of its two spellings it has."""
    listed = document["model"].get("merges")
    if not isinstance(listed, list) or not listed:
        raise InputError("has no merges", "copy the tokenizer files of the base model", path=path)
    try:
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in listed]
    except TypeError:
        merges = []
    if not merges or any(merge.count(" ") != 1 for merge in merges):
        raise InputError("has a merge that is no pair of pieces", path=path)
    return merges


def _remedy(vocabulary: Any, family: Family) -> str:
    """What to do about a tokenizer.json with another vocabulary: one that was trimmed is not that of the base model."""
    known = sum(text in vocabulary for text in family.vocabulary.CONTROLS) if isinstance(vocabulary, Mapping) else 0
    if known < len(_FIRST_ROLES) or len(vocabulary) >= family.sizes[0].config.vocab_size:
        return "copy the tokenizer files of the base model"
    return f"it was trimmed to {len(vocabulary):,} tokens: put the tokenizer.model that it was trimmed to beside it"


_FIRST_ROLES = ("pad", "eos", "bos")


def base_scores(vocabulary: Vocabulary, ids: Mapping[str, int], merges: Sequence[str]) -> dict[str, float]:
    """Scores of base pieces: the family's, or those that follow from the merges of a vocabulary that was cut.

    SentencePiece joins the two pieces whose result has the highest score, and merges are its results in that order.

    Args:
        vocabulary: The family's vocabulary.
        ids: Piece -> id.
        merges: Pairs of pieces, each `left right`, best first; needed for a vocabulary that was cut.
    """
    if vocabulary.is_ours(ids):
        return {text: vocabulary.score(at) for text, at in ids.items()}
    ranks: dict[str, int] = {}
    for merge in merges:
        ranks.setdefault(merge.replace(" ", "", 1), len(ranks))
    last = float(len(ranks))
    bytes_ = frozenset(BYTES)
    return {text: -float(ranks[text]) if text in ranks else (0.0 if text in bytes_ else -last) for text in ids}


def by_hand(types: NDArray[np.int32]) -> NDArray[np.float32]:
    """Scores of tokens that were added by hand and of ids without a token, f32 [ids], as llama.cpp's converter has."""
    return np.where(types == UNUSED, _PAD_SCORE, _ADDED_SCORE).astype(np.float32)


def _pieces_of_json(path: Path, document: dict[str, Any], family: Family) -> sentencepiece.Pieces:
    """The base vocabulary of a tokenizer.json, with the family's scores."""
    model = document.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        _check_ids(vocabulary.items(), path)
    ours = isinstance(vocabulary, dict) and family.vocabulary.is_ours(vocabulary)
    if not isinstance(vocabulary, dict) or not (ours or family.vocabulary.is_trimmed(vocabulary)):
        raise InputError(f"does not hold {family.title}'s vocabulary", _remedy(vocabulary, family), path=path)
    count = max(vocabulary.values()) + 1
    if count > 2 * len(vocabulary):
        raise InputError("has a vocabulary full of holes", path=path)
    texts = [f"[PAD{at}]" for at in range(count)]
    scores = np.full(count, _PAD_SCORE, np.float32)
    types = np.full(count, UNUSED, np.int32)
    for text, at in vocabulary.items():
        texts[at] = text
    ids = np.fromiter(vocabulary.values(), np.int64, len(vocabulary))
    found = base_scores(family.vocabulary, vocabulary, () if ours else _merges(path, document))
    scores[ids] = [found[text] for text in vocabulary]
    types[ids] = NORMAL
    types[[vocabulary[text] for text in BYTES if text in vocabulary]] = BYTE
    return texts, scores, types


_MOST_IDS = 1 << 24
"""Number of tokens beyond which a vocabulary is taken for broken."""


def _check_ids(pairs: Iterable[tuple[Any, Any]], path: Path) -> None:
    """Refuse tokens that are not text, and ids that no vocabulary has.

    Args:
        pairs: Text and id of every token.
        path: File that they are from.

    Raises:
        InputError: There is one.
    """
    for text, at in pairs:
        if not isinstance(text, str):
            raise InputError(f"has the token {text!r:.60}, which is not text", path=path)
        if type(at) is not int or not 0 <= at < _MOST_IDS:
            raise InputError(f"has the token {text!r:.60} with {at!r:.40} for an id", path=path)


def _added(entries: Any, path: Path) -> dict[int, tuple[str, bool]]:
    """Tokens that were added by hand: id -> (text, whether it is special).

    Args:
        entries: An added_tokens_decoder, or a list of objects with `id`; anything else has none.
        path: File that they are from.

    Raises:
        InputError: An entry is no object with a text and an id.
    """
    listed: list[tuple[Any, Any]] = []
    if isinstance(entries, dict):
        listed = [(int(key) if key.isdecimal() and len(key) < 10 else key, entry) for key, entry in entries.items()]
    elif isinstance(entries, list):
        listed = [(entry.get("id") if isinstance(entry, dict) else None, entry) for entry in entries]
    for at, entry in listed:
        if not isinstance(entry, dict):
            raise InputError(f"has the added token {entry!r:.60}, which is no object", path=path)
        _check_ids([(entry.get("content"), at)], path)
    return {at: (entry["content"], bool(entry.get("special"))) for at, entry in listed}


def _named_added(folder: Path) -> dict[int, tuple[str, bool]]:
    """Tokens of added_tokens.json: id -> (text, False)."""
    named = read_json(folder / "added_tokens.json", {})
    _check_ids(named.items(), folder / "added_tokens.json")
    return {at: (text, False) for text, at in named.items()}


def _special_ids(
    settings: Mapping[str, Any], config: TextConfig, family: Family, ids: Mapping[str, int]
) -> dict[str, int]:
    """Ids of the special tokens: by the text in tokenizer_config.json, else from config.json."""
    fallback = {
        "bos": config.bos_token_id,
        "eos": config.eos_token_ids[0],
        "pad": config.pad_token_id,
        "unk": family.vocabulary.UNKNOWN_ID,
    }
    result = {}
    for role in ("bos", "eos", "unk", "sep", "pad", "mask"):
        text = settings.get(f"{role}_token")
        text = text.get("content") if isinstance(text, dict) else text
        at = ids.get(text) if isinstance(text, str) else None
        at = fallback.get(role) if at is None else at
        if at is not None and at < config.vocab_size:
            result[role] = at
    return result
