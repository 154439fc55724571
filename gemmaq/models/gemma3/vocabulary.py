"""Vocabulary of Gemma 3: ranges of ids, scores, and the tokens that control the model.

Checked against the published tokenizer.model for all 262,144 ids.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from gemmaq.files.sentencepiece import BYTES, CONTROL, USER_DEFINED

TOKENIZER_CLASS = "GemmaTokenizer"
UNKNOWN_ID = 3
GGUF_MODEL = "llama"
GGUF_PRE: str | None = "default"
ADDS: Mapping[str, bool] = {"bos": True, "eos": False, "sep": False}
MERGES = ALWAYS_BOS = TEMPLATE_FILE = False
FIRST_BYTE, LAST_BYTE = 238, 493
LAST_PIECE = 236742
LAST_CHARACTER = 255967

SPECIAL = frozenset(
    {
        "<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>",
        "<start_of_image>", "<end_of_image>", "<image_soft_token>",
    }
)  # fmt: skip
"""Tokens that the published tokenizer.json marks special."""

IMAGE_ROLES: Mapping[str, str] = {
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
}
"""Tokens around an image and in its place, by their keys in tokenizer_config.json."""


def is_ours(vocabulary: Mapping[str, int]) -> bool:
    """Whether a vocabulary (piece -> id) has the layout of Gemma 3."""
    places = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<0x00>": FIRST_BYTE, "<0xFF>": LAST_BYTE}
    return len(vocabulary) > LAST_CHARACTER and all(vocabulary.get(piece) == at for piece, at in places.items())


CONTROLS: Mapping[str, int] = dict.fromkeys(sorted(SPECIAL - {"<unk>"}), CONTROL)
_FIRST = ("<pad>", "<eos>", "<bos>", "<unk>")


def is_trimmed(vocabulary: Mapping[str, int]) -> bool:
    """Whether a vocabulary (piece -> id) is a part of Gemma 3's: fewer pieces, but all bytes and the first four."""
    whole = all(byte in vocabulary for byte in BYTES) and all(vocabulary.get(p) == at for at, p in enumerate(_FIRST))
    return whole and len(vocabulary) <= LAST_CHARACTER and _OF_GEMMA4 not in vocabulary


_OF_GEMMA4 = "<|turn>"


def score(token_id: int) -> float:
    """SentencePiece score of a base piece.

    Scores of merged pieces count down from 0. Those of single characters continue 31 further on: that many ids of
    merged pieces are hand-made runs of newlines and the like.
    """
    if LAST_BYTE < token_id <= LAST_PIECE:
        return -float(token_id - LAST_BYTE - 1)  # -0 for the first, as in the published model
    if LAST_PIECE < token_id <= LAST_CHARACTER:
        return float(LAST_BYTE - 30 - token_id)
    return 0.0


_CONTROL_FORM = re.compile(r"<\|.*\|>|<\uff5c.*\uff5c>|<unused.*>", re.DOTALL)
_CONTROL_NAMES = frozenset(("<pad>", "<mask>", "<2mass>", "[@BOS@]"))


def added_type(text: str, *, special: bool, base: bool) -> int:
    """Type of an added token, by llama.cpp's converter: some control the model though they are marked as text."""
    del base
    controls = special or text in _CONTROL_NAMES or _CONTROL_FORM.fullmatch(text)
    return CONTROL if controls else USER_DEFINED


def is_special(text: str, kind: int) -> bool:
    """Whether the published tokenizer.json marks a token special."""
    del kind
    return text in SPECIAL


def name_special(texts: Sequence[str]) -> dict[str, Any]:
    """The tokens of images, for which the processor of images asks its tokenizer; none without the placeholder."""
    return {**IMAGE_ROLES, "extra_special_tokens": IMAGE_ROLES} if IMAGE_ROLES["image_token"] in texts else {}
