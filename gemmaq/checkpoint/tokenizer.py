"""Tokenizers: one value for whichever files they are stored in, and back into Hugging Face files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemmaq.errors import InputError
from gemmaq.files import sentencepiece
from gemmaq.files.sentencepiece import BYTE, CONTROL, NORMAL, SPACE, UNKNOWN, UNUSED, USER_DEFINED
from gemmaq.files.text import read_json, read_text
from gemmaq.models.config import TextConfig
from gemmaq.models.family import Family, Vocabulary

VERBATIM = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "chat_template.json",
)  # fmt: skip
"""Tokenizer files that an artifact in Hugging Face's layout takes over unchanged."""

_ADDED_SCORE, _PAD_SCORE = -1000.0, -10000.0
"""Scores of tokens that were added by hand, and of ids without a token, as llama.cpp's converter has them."""


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """A SentencePiece-style BPE vocabulary with its special tokens.

    Attributes:
        pieces: Text of every id, a space spelled U+2581.
        scores: Scores, f32 [ids]; the higher, the earlier merged.
        types: Types of the pieces in SentencePiece's numbers, i32 [ids].
        special: Role of a special token (`bos`, `eos`, `unk`, `pad`, `mask`, ...) -> id.
        add: Role -> whether an encoder adds that token by itself.
        chat_template: Jinja source, or None.
        named_templates: Further chat templates by name.
    """

    pieces: list[str]
    scores: NDArray[np.float32]
    types: NDArray[np.int32]
    special: Mapping[str, int]
    add: Mapping[str, bool]
    chat_template: str | None = None
    named_templates: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """Files of a tokenizer.

    Attributes:
        load: Reads the tokenizer for a model of the given config; raises InputError.
        verbatim: Its Hugging Face files, to be copied; empty if it is stored otherwise.
    """

    load: Callable[[TextConfig], Tokenizer]
    verbatim: tuple[Path, ...] = ()


def from_folder(folder: Path, family: Family, config: TextConfig) -> Tokenizer:
    """Read tokenizer.model, or tokenizer.json alone, with tokenizer_config.json and the chat template.

    Raises:
        InputError: Files are missing or broken, or hold the vocabulary of another family.
    """
    settings = read_json(folder / "tokenizer_config.json", {})
    size = config.vocab_size
    pieces = [""] * size
    scores = np.full(size, _PAD_SCORE, np.float32)
    types = np.full(size, UNUSED, np.int32)
    model = folder / "tokenizer.model"
    added = _added(settings.get("added_tokens_decoder"))
    document: dict[str, Any] = {}
    if model.is_file():
        base = sentencepiece.read(model.read_bytes(), str(model))
    else:
        document = read_json(folder / "tokenizer.json")
        base = _pieces_of_json(folder / "tokenizer.json", document, family)
    if not added:  # transformers 5 keeps them in tokenizer.json only
        document = document or read_json(folder / "tokenizer.json", {})
        listed = document.get("added_tokens")
        added = _added({str(t.get("id")): t for t in listed} if isinstance(listed, list) else None)
    base_size = min(size, len(base[0]))
    pieces[base_size:] = [f"[PAD{at}]" for at in range(base_size, size)]
    pieces[:base_size], scores[:base_size], types[:base_size] = (column[:base_size] for column in base)
    for at, (text, is_special) in {**_named_added(folder), **added}.items():
        if at < size:
            control = is_special or family.vocabulary.looks_special(text)
            pieces[at], scores[at] = text, _ADDED_SCORE
            types[at] = CONTROL if control else USER_DEFINED
    template, named = _templates(folder, settings)
    special = _special_ids(settings, config, family, {text: at for at, (text, _) in added.items()})
    add = {role: bool(settings.get(f"add_{role}_token", role == "bos")) for role in ("bos", "eos")}
    return Tokenizer(pieces, scores, types, special, {**add, "sep": False}, template, named)


def _pieces_of_json(path: Path, document: dict[str, Any], family: Family) -> sentencepiece.Pieces:
    """The base vocabulary of a tokenizer.json, with the scores of its SentencePiece original."""
    model = document.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocabulary, dict) or not family.vocabulary.is_ours(vocabulary):
        raise InputError(
            f"does not hold {family.title}'s vocabulary", "copy the tokenizer files of the base model", path=path
        )
    count = max(vocabulary.values()) + 1
    if count > 2 * len(vocabulary):
        raise InputError("has a vocabulary full of holes", path=path)
    texts = [f"[PAD{at}]" for at in range(count)]
    scores = np.full(count, _PAD_SCORE, np.float32)
    types = np.full(count, UNUSED, np.int32)
    for text, at in vocabulary.items():
        texts[at] = text
    ids = np.fromiter(vocabulary.values(), np.int64, len(vocabulary))
    scores[ids] = [family.vocabulary.score(at) for at in vocabulary.values()]
    types[ids] = [BYTE if family.vocabulary.is_byte(at) else NORMAL for at in vocabulary.values()]
    return texts, scores, types


def _added(entries: Any) -> dict[int, tuple[str, bool]]:
    """Tokens of an added_tokens_decoder: id -> (text, whether it is special)."""
    result: dict[int, tuple[str, bool]] = {}
    for key, entry in entries.items() if isinstance(entries, dict) else ():
        if not key.isdecimal() or not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
            raise InputError(f"the tokenizer's added token {key!r} is malformed")
        result[int(key)] = (entry["content"], bool(entry.get("special")))
    return result


def _named_added(folder: Path) -> dict[int, tuple[str, bool]]:
    """Tokens of added_tokens.json: id -> (text, False)."""
    return {at: (text, False) for text, at in read_json(folder / "added_tokens.json", {}).items()}


def _templates(folder: Path, settings: Mapping[str, Any]) -> tuple[str | None, dict[str, str]]:
    """The default chat template and the named templates."""
    template = settings.get("chat_template")
    if template is None and (folder / "chat_template.jinja").is_file():
        template = read_text(folder / "chat_template.jinja")
    if template is None:
        template = read_json(folder / "chat_template.json", {}).get("chat_template")
    if isinstance(template, list):
        named = {t["name"]: t["template"] for t in template if isinstance(t, dict) and {"name", "template"} <= set(t)}
        return named.pop("default", None), named
    if template is not None and not isinstance(template, str):
        raise InputError("chat_template is not a text", path=folder / "tokenizer_config.json")
    return template, {}


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


def to_files(tokenizer: Tokenizer, vocabulary: Vocabulary, context: int) -> dict[str, bytes]:
    """Write a tokenizer as tokenizer.json, tokenizer.model, tokenizer_config.json and special_tokens_map.json.

    Args:
        tokenizer: The tokenizer.
        vocabulary: Its family's vocabulary.
        context: Longest context of the model, for `model_max_length`.
    """
    size = int(np.max(np.nonzero(tokenizer.types != UNUSED)[0])) + 1
    pieces, types = tokenizer.pieces[:size], tokenizer.types[:size].tolist()
    added = [at for at, kind in enumerate(types) if kind in (CONTROL, USER_DEFINED, UNKNOWN)]
    added_set = set(added)
    entry = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    special = {at: pieces[at] in vocabulary.SPECIAL or at in tokenizer.special.values() for at in added}
    for at in added:
        types[at] = CONTROL if special[at] else USER_DEFINED
    if "unk" in tokenizer.special:
        types[tokenizer.special["unk"]] = UNKNOWN
    scores = [0.0 if at in added_set else score for at, score in enumerate(tokenizer.scores[:size].tolist())]
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": at, "content": pieces[at], **entry, "special": special[at]} for at in added],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "post_processor": _post_processor(tokenizer),
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {piece: at for at, piece in enumerate(pieces)},
            "merges": merges(pieces, scores),
        },
    }
    roles = {f"{role}_token": pieces[at] for role, at in tokenizer.special.items() if at < size}
    settings: dict[str, Any] = {
        "add_bos_token": tokenizer.add.get("bos", True),
        "add_eos_token": tokenizer.add.get("eos", False),
        "added_tokens_decoder": {str(at): {"content": pieces[at], **entry, "special": special[at]} for at in added},
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
        "spaces_between_special_tokens": False,
        "tokenizer_class": vocabulary.TOKENIZER_CLASS,
        **roles,
    }
    image_roles = dict(vocabulary.IMAGE_ROLES)
    if image_roles.get("image_token") in pieces:  # the processor of images asks its tokenizer for them
        settings |= {**image_roles, "extra_special_tokens": image_roles}
    if tokenizer.named_templates:
        default = {"default": tokenizer.chat_template} if tokenizer.chat_template else {}
        named = {**default, **tokenizer.named_templates}
        settings["chat_template"] = [{"name": name, "template": text} for name, text in named.items()]
    elif tokenizer.chat_template:
        settings["chat_template"] = tokenizer.chat_template
    return {
        "tokenizer.json": json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(),
        "tokenizer.model": sentencepiece.write(zip(pieces, scores, types, strict=True), size),
        "tokenizer_config.json": _pretty(settings),
        "special_tokens_map.json": _pretty(roles),
    }


def _post_processor(tokenizer: Tokenizer) -> dict[str, Any]:
    """The post_processor of tokenizer.json: BOS in front and EOS behind, if the tokenizer adds them."""

    def wrap(letter: str, kind: int) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = [{"Sequence": {"id": letter, "type_id": kind}}]
        if tokenizer.add.get("bos") and "bos" in tokenizer.special:
            parts.insert(0, {"SpecialToken": {"id": bos, "type_id": kind}})
        if tokenizer.add.get("eos") and "eos" in tokenizer.special:
            parts.append({"SpecialToken": {"id": eos, "type_id": kind}})
        return parts

    bos, eos = (tokenizer.pieces[tokenizer.special.get(role, 0)] for role in ("bos", "eos"))
    used = {part["SpecialToken"]["id"] for part in wrap("A", 0) if "SpecialToken" in part}
    ids = {tokenizer.pieces[at]: at for at in tokenizer.special.values()}
    return {
        "type": "TemplateProcessing",
        "single": wrap("A", 0),
        "pair": wrap("A", 0) + wrap("B", 1),
        "special_tokens": {text: {"id": text, "ids": [ids[text]], "tokens": [text]} for text in sorted(used)},
    }


def merges(pieces: list[str], scores: list[float]) -> list[tuple[str, str]]:
    """BPE merges that are equivalent to SentencePiece's scores, best first.

    Every way to cut a piece into two pieces of the vocabulary is a merge; ties go to the longer left part, then to the
    longer right part.
    """
    ids = {piece: at for at, piece in enumerate(pieces)}
    ranked: list[tuple[float, int, int, str, str]] = []
    for at, piece in enumerate(pieces):
        if len(piece) < 2:
            continue
        cuts = []
        for k in range(1, len(piece)):
            left = ids.get(piece[:k])
            if left is not None:
                right = ids.get(piece[k:])
                if right is not None:
                    cuts.append((left, right))
        cuts.sort()
        score = scores[at]
        ranked += [(-score, -len(pieces[a]), -len(pieces[b]), pieces[a], pieces[b]) for a, b in cuts]
    ranked.sort(key=lambda cut: cut[:3])
    return [(left, right) for *_, left, right in ranked]


def _pretty(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()
