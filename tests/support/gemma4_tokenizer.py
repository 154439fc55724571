"""A small tokenizer in the layout of Gemma 4's: merges in tokenizer.json, bytes, special tokens, a chat template."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SIZE = 512
SPACE = "\u2581"
USUAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
NAMED = {
    "boi_token": "<|image>", "eoi_token": "<image|>", "image_token": "<|image|>",
    "boa_token": "<|audio>", "eoa_token": "<audio|>", "audio_token": "<|audio|>",
    "sot_token": "<|turn>", "eot_token": "<turn|>", "think_token": "<|think|>",
    "soc_token": "<|channel>", "eoc_token": "<channel|>", "escape_token": '<|"|>',
    "std_token": "<|tool>", "etd_token": "<tool|>", "stc_token": "<|tool_call>", "etc_token": "<tool_call|>",
    "str_token": "<|tool_response>", "etr_token": "<tool_response|>",
}  # fmt: skip
SPECIAL = (*USUAL, *NAMED.values(), "<|video|>")
CHARACTERS = "\n\t" + "".join(map(chr, range(33, 127))) + SPACE + "éßя日本🙂"
RUNS = ("\n\n", "\n\n\n", "\n\n\n\n", "\t\t", SPACE * 2, SPACE * 3, SPACE * 4, SPACE * 8)
_WORDS = (
    "th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as ou io le ve co me de hi ri ro ic "
    "the and ing ion tion ent her tha that was for ere ati ation all with this not you his are 12 00 20 日本 é🙂"
)
WORDS = tuple(_WORDS.split())
SPACED = ("t", "a", "th", "the", "an", "and", "of", "i", "in", "is", "to", "w", "was", "h", "he", "🙂")
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<turn|>\n{% endfor %}{% if add_generation_prompt %}<|turn>model\n{% endif %}"
)


def vocabulary(size: int = SIZE) -> dict[str, int]:
    """Piece -> id: special tokens, bytes, pieces to merge, and unused ones up to the size."""
    merged = (*RUNS, *WORDS, *(SPACE + word for word in SPACED))
    pieces = dict.fromkeys((*SPECIAL, *(f"<0x{value:02X}>" for value in range(256)), *CHARACTERS, *merged))
    unused = (f"<unused{number}>" for number in range(size - len(pieces)))
    return {piece: at for at, piece in enumerate((*pieces, *unused))}


def merges(pieces: dict[str, int]) -> list[list[str]]:
    """Every way to join two pieces into a third, the joined ones in the order of their ids."""
    usual = [piece for piece in pieces if len(piece) > 1 and not (piece.startswith("<") and piece.endswith(">"))]
    cuts = ([piece[:at], piece[at:]] for piece in usual for at in range(1, len(piece)))
    return [cut for cut in cuts if cut[0] in pieces and cut[1] in pieces]


def documents(size: int = SIZE, more: Sequence[str] = ()) -> dict[str, Any]:
    """Content of tokenizer.json and tokenizer_config.json; `more` are special tokens behind the vocabulary."""
    pieces = vocabulary(size)
    added = {piece: pieces[piece] for piece in SPECIAL} | {text: size + at for at, text in enumerate(more)}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    bos, first = {"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [{"id": at, "content": text, **flags, "special": True} for text, at in added.items()],
        "normalizer": spaces,
        "pre_tokenizer": {
            "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, first],
            "pair": [bos, first, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {
            "type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True,
            "vocab": pieces, "merges": merges(pieces),
        },
    }  # fmt: skip
    settings = {f"{text[1:-1]}_token": text for text in USUAL} | NAMED
    settings |= {"extra_special_tokens": ["<|video|>", *more], "tokenizer_class": "GemmaTokenizer"}
    return {"tokenizer.json": tokenizer, "tokenizer_config.json": settings}


def write(folder: Path, size: int = SIZE, more: Sequence[str] = (), template: str | None = TEMPLATE) -> Path:
    """Write the files of the tokenizer into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, document in documents(size, more).items():
        (folder / name).write_text(json.dumps(document, ensure_ascii=False))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def texts(count: int, seed: int = 5) -> list[str]:
    """Random texts of words, runs of spaces and newlines, emoji, characters that are no pieces, and marks of turns."""
    draw = random.Random(seed)
    parts = [
        *WORDS, *CHARACTERS, *(" " * n for n in range(1, 12)), *("\n" * n for n in range(1, 9)), " the", " and", " \n",
        "👍🏽", "👨‍👩‍👧‍👦", "e\u0301", "\u00a0", "\u3000", "\r\n",
        "한국어", "🇩🇪", SPACE, "<0x41>", "<unused3>", "<|turn", "turn|>",
    ]  # fmt: skip
    return ["".join(draw.choices(parts, k=draw.randrange(1, 40))) for _ in range(count)]
