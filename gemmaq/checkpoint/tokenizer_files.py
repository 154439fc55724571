"""Write a tokenizer as the files of a Hugging Face folder."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from gemmaq.checkpoint.chat_templates import as_files
from gemmaq.checkpoint.tokenizer import Tokenizer
from gemmaq.files import sentencepiece
from gemmaq.files.sentencepiece import CONTROL, SPACE, UNKNOWN, UNUSED, USER_DEFINED
from gemmaq.models.family import Vocabulary


def to_files(tokenizer: Tokenizer, vocabulary: Vocabulary, context: int) -> dict[str, bytes]:
    """Write a tokenizer as tokenizer.json, tokenizer_config.json and special_tokens_map.json.

    One with scores is also written as tokenizer.model; a chat template is a file of its own where the family has it so.

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
    roles = set(tokenizer.special.values())
    special = {at: at in roles or vocabulary.is_special(pieces[at], types[at]) for at in added}
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
            "merges": merges(pieces, scores)
            if tokenizer.merges is None
            else [m.split(" ", 1) for m in tokenizer.merges],
        },
    }
    named = {f"{role}_token": pieces[at] for role, at in tokenizer.special.items() if at < size}
    others = [pieces[at] for at in added if special[at] and at not in roles]
    settings: dict[str, Any] = {
        "add_bos_token": tokenizer.add.get("bos", True),
        "add_eos_token": tokenizer.add.get("eos", False),
        "added_tokens_decoder": {str(at): {"content": pieces[at], **entry, "special": special[at]} for at in added},
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
        "spaces_between_special_tokens": False,
        "tokenizer_class": vocabulary.TOKENIZER_CLASS,
        **named,
        **vocabulary.name_special(others),
    }
    files = {
        "tokenizer.json": json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(),
        "special_tokens_map.json": _pretty(named),
    }
    if tokenizer.merges is None:
        for at in added:
            types[at] = CONTROL if special[at] else USER_DEFINED
        if "unk" in tokenizer.special:
            types[tokenizer.special["unk"]] = UNKNOWN
        files["tokenizer.model"] = sentencepiece.write(zip(pieces, scores, types, strict=True), size)
    if tokenizer.named_templates or (tokenizer.chat_template and vocabulary.TEMPLATE_FILE):
        files |= as_files(tokenizer.chat_template, tokenizer.named_templates or {})
    elif tokenizer.chat_template:
        settings["chat_template"] = tokenizer.chat_template
    return {**files, "tokenizer_config.json": _pretty(settings)}


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
    lengths = sorted({len(piece) for piece in pieces if piece})  # few: a token of many letters has few cuts
    found: list[tuple[int, int, int]] = []
    for at, piece in enumerate(pieces):
        if len(piece) < 2:
            continue
        cuts = []
        for k in lengths:
            if k >= len(piece):
                break
            left = ids.get(piece[:k])
            if left is not None:
                right = ids.get(piece[k:])
                if right is not None:
                    cuts.append((left, right, at))
        cuts.sort()
        found += cuts
    if not found:
        return []
    lefts, rights, wholes = np.array(found).T
    sizes = np.array(list(map(len, pieces)))
    order = np.lexsort((-sizes[rights], -sizes[lefts], -np.array(scores)[wholes]))  # what is alike stays in order
    return [(pieces[a], pieces[b]) for a, b in zip(lefts[order].tolist(), rights[order].tolist(), strict=True)]


def _pretty(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()
