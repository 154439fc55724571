"""Vocabulary of Gemma 4: its merges are in tokenizer.json alone, and some tokens must stay visible to runtimes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gemmaq.files.sentencepiece import CONTROL, NORMAL, UNKNOWN, USER_DEFINED

TOKENIZER_CLASS = "GemmaTokenizer"
UNKNOWN_ID = 3
GGUF_MODEL = "gemma4"
GGUF_PRE: str | None = None
ADDS: Mapping[str, bool] = {"bos": True}
MERGES = ALWAYS_BOS = TEMPLATE_FILE = True

ROLES: Mapping[str, str] = {
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
    "sot_token": "<|turn>",
    "eot_token": "<turn|>",
    "soc_token": "<|channel>",
    "eoc_token": "<channel|>",
    "think_token": "<|think|>",
    "escape_token": '<|"|>',
    "str_token": "<|tool_response>",
    "etr_token": "<tool_response|>",
    "stc_token": "<|tool_call>",
    "etc_token": "<tool_call|>",
    "std_token": "<|tool>",
    "etd_token": "<tool|>",
}
"""Tokens of images, sounds, turns, thoughts and tools, by their keys in the published tokenizer_config.json."""

VISIBLE = frozenset(
    ROLES[key]
    for key in (
        "soc_token", "eoc_token", "stc_token", "etc_token", "str_token", "etr_token", "escape_token",
    )
)  # fmt: skip
"""Special tokens that llama.cpp prints, so that a parser of answers sees them: user-defined in GGUF files."""

_SCORE = -1000.0


def is_ours(vocabulary: Mapping[str, int]) -> bool:
    """Whether a vocabulary (piece -> id) has the layout of Gemma 4."""
    places = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3}
    turns = {ROLES["sot_token"], ROLES["eot_token"], "<0x00>", "<0xFF>"}
    return turns <= vocabulary.keys() and all(vocabulary.get(piece) == at for piece, at in places.items())


def is_trimmed(vocabulary: Mapping[str, int]) -> bool:
    """False: `is_ours` asks for no number of pieces, and all pieces have one score."""
    del vocabulary
    return False


def score(token_id: int) -> float:
    """Score of every piece: llama.cpp's converter writes the same for all, and llama.cpp reads none."""
    del token_id
    return _SCORE


def added_type(text: str, *, special: bool, base: bool) -> int:
    """Type of an added token, by llama.cpp's converter."""
    if text in VISIBLE:
        return USER_DEFINED
    if special:
        return CONTROL
    return NORMAL if base else USER_DEFINED


def is_special(text: str, kind: int) -> bool:
    """Whether tokenizer.json marks an added token special: those that control the model, and the visible ones."""
    return kind in (CONTROL, UNKNOWN) or text in VISIBLE


def name_special(texts: Sequence[str]) -> dict[str, Any]:
    """The tokens by their published roles, and a list of the others."""
    roles = {role: text for role, text in ROLES.items() if text in texts}
    others = [text for text in texts if text not in roles.values()]
    return {**roles, "extra_special_tokens": others} if others else dict(roles)


CONTROLS: Mapping[str, int] = {
    text: added_type(text, special=True, base=True)
    for text in ("<pad>", "<eos>", "<bos>", "<mask>", *ROLES.values(), "<|video|>")
}
