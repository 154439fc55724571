"""tokenizer.model, SentencePiece's protobuf, read and written as far as a BPE vocabulary goes.

Source of the field numbers: sentencepiece_model.proto.
"""

from __future__ import annotations

import struct

from gemmaq.errors import InputError
from gemmaq.gemma.tokens import NORMAL

Piece = tuple[str, float, int]
"""Text, score, type."""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def read(data: bytes, name: str) -> list[Piece]:
    """The pieces of a model, in id order.

    Args:
        data: the file.
        name: what to call it in an error.

    Raises:
        InputError: not a SentencePiece model.
    """
    pieces: list[Piece] = []
    at, end = 0, len(data)
    try:
        while at < end:
            tag, at = _varint(data, at)
            if tag & 7 != 2:
                raise ValueError
            length, at = _varint(data, at)
            stop = at + length
            if stop > end:
                raise ValueError
            if tag == 0x0A:
                pieces.append(_piece(data, at, stop))
            at = stop
    except (IndexError, ValueError, struct.error):
        raise InputError(f"{name} is not a SentencePiece model") from None
    return pieces


def _piece(data: bytes, at: int, end: int) -> Piece:
    text, score, kind = "", 0.0, NORMAL
    while at < end:
        tag = data[at]
        at += 1
        if tag == 0x0A:
            length, at = _varint(data, at)
            text = data[at : at + length].decode()
            at += length
        elif tag == 0x15:
            (score,) = struct.unpack_from("<f", data, at)
            at += 4
        elif tag == 0x18:
            kind, at = _varint(data, at)
        else:
            raise ValueError
    return text, score, kind


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


def write(pieces: list[Piece]) -> bytes:
    """A BPE model with byte fallback and no text normalisation, as Gemma's is."""
    out = bytearray()
    for text, score, kind in pieces:
        body = _message(1, text.encode()) + b"\x15" + struct.pack("<f", score)
        out += _message(1, body if kind == NORMAL else body + _integer(3, kind))
    trainer = (
        _integer(3, 2)  # model_type: BPE
        + _integer(4, len(pieces))  # vocab_size
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
