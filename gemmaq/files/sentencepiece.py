"""Reads and writes the BPE vocabulary in a SentencePiece model (tokenizer.model), a protobuf message.

Source of the field numbers: sentencepiece_model.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gemmaq.errors import InputError
from gemmaq.files import lfs

UNDEFINED, NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(7)
"""Types of pieces, the same numbers in SentencePiece and GGUF; only GGUF has the first."""

SPACE = "\u2581"
"""Character in place of a space in pieces."""

BYTES = tuple(f"<0x{value:02X}>" for value in range(256))
"""Texts of the pieces that stand for bytes."""

Pieces = tuple[list[str], NDArray[np.float32], NDArray[np.int32]]
"""Texts in the order of their ids, their scores and their types."""


def read(data: bytes, name: str) -> Pieces:
    """Decode the pieces of a model.

    Args:
        data: Content of the file.
        name: Name of the file in errors.

    Raises:
        InputError: It is not a SentencePiece model.
    """
    from gemmaq.files.protobuf import scan_pieces
    from gemmaq.files.strings import decode

    lfs.refuse(data, name)
    array = np.frombuffer(data, np.uint8)
    room = len(data) // 2  # the shortest piece: a tag, and a length of 0
    starts, ends = np.empty(room, np.int64), np.empty(room, np.int64)
    scores, kinds = np.empty(room, np.uint32), np.empty(room, np.int32)  # of empty room, only what is filled takes time
    count = scan_pieces(array, starts, ends, scores, kinds)
    try:
        if count < 0:
            raise ValueError
        texts = decode(data, starts[:count], ends[:count])
    except ValueError:
        raise InputError("is not a SentencePiece model", path=name) from None
    return texts, scores[:count].view(np.float32), kinds[:count]


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _message(field: int, body: bytes) -> bytes:
    return _number(field << 3 | 2) + _number(len(body)) + body


def _integer(field: int, value: int) -> bytes:
    return _number(field << 3) + _number(value)


def write(pieces: Iterable[tuple[str, float, int]], count: int) -> bytes:
    """Encode a BPE model with byte fallback and without text normalisation, like Gemma's.

    Args:
        pieces: Text, score and type of each piece in the order of their ids.
        count: Number of pieces.
    """
    out = bytearray()
    for text, score, kind in pieces:
        body = _message(1, text.encode()) + b"\x15" + struct.pack("<f", score)
        out += _message(1, body if kind == NORMAL else body + _integer(3, kind))
    trainer = (
        _integer(3, 2)  # model_type: BPE
        + _integer(4, count)  # vocab_size
        + _integer(35, 1)  # byte_fallback
        + _integer(40, 3)  # unk_id
        + _integer(41, 2)  # bos_id
        + _integer(42, 1)  # eos_id
        + _integer(43, 0)  # pad_id
        + _message(45, b"<unk>")
        + _message(46, b"<bos>")
        + _message(47, b"<eos>")
        + _message(48, b"<pad>")
    )
    normalizer = _message(1, b"identity") + _integer(3, 0) + _integer(4, 0) + _integer(5, 1)
    return bytes(out + _message(2, trainer) + _message(3, normalizer))
