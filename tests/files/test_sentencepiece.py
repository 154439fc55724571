"""SentencePiece models: written ones come back, damaged ones are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmaq.errors import InputError
from gemmaq.files.protobuf import scan_pieces
from gemmaq.files.sentencepiece import BYTE, NORMAL, UNUSED, read, write

PIECES = st.lists(
    st.tuples(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
        st.floats(width=32, allow_nan=False),
        st.integers(NORMAL, BYTE),
    ),
    max_size=20,
)


@settings(max_examples=100, deadline=None)
@given(pieces=PIECES)
def test_pieces_come_back(pieces: list[tuple[str, float, int]]) -> None:
    texts, scores, kinds = read(write(pieces, len(pieces)), "tokenizer.model")
    assert list(zip(texts, scores.tolist(), kinds.tolist(), strict=True)) == pieces


def test_the_library_reads_it() -> None:
    library = pytest.importorskip("sentencepiece")
    special = [("<pad>", 0.0, 3), ("<eos>", 0.0, 3), ("<bos>", 0.0, 3), ("<unk>", 0.0, 2)]
    pieces = [*special, *((f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)), ("a", -1.0, 1), ("b", -2.0, 1)]
    pieces += [("ab", -0.5, NORMAL), ("unused", 0.0, UNUSED)]
    model = library.SentencePieceProcessor(model_proto=write(pieces, len(pieces)))
    assert model.encode("ab", out_type=str) == ["ab"]
    assert model.encode("é", out_type=str) == ["<0xC3>", "<0xA9>"]
    assert (model.bos_id(), model.eos_id(), model.unk_id(), model.pad_id()) == (2, 1, 3, 0)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        texts, scores, kinds = read(data, "tokenizer.model")
    except InputError as error:
        assert "tokenizer.model is not a SentencePiece model" in error.message or data.startswith(b"version https://")
    else:
        assert len(texts) == len(scores) == len(kinds)


def test_a_cut_model_is_refused() -> None:
    data = write([("a piece of text", 0.0, NORMAL)], 1)
    with pytest.raises(InputError, match="not a SentencePiece model"):
        read(data[:10], "tokenizer.model")


@pytest.mark.parametrize("piece", [b"\n\x00", b"\n\x02\n\x00", b"\n\x05\x15\x00\x00\x00\x00", b"\n\x02\x18\x01"])
def test_as_many_empty_pieces_as_a_file_can_hold_are_read(piece: bytes) -> None:
    texts, scores, kinds = read(piece * 5000, "tokenizer.model")
    assert texts == [""] * 5000 and len(scores) == len(kinds) == 5000


@pytest.mark.parametrize("short", range(4))
def test_arrays_that_are_too_short_are_not_overrun(short: int) -> None:
    columns = [np.full(8, 7, kind) for kind in (np.int64, np.int64, np.uint32, np.int32)]
    given = [column[:3] if at == short else column for at, column in enumerate(columns)]
    data = np.frombuffer(b"\n\x00" * 4, np.uint8)
    assert scan_pieces(data, *given) == -1
    assert (columns[short][3:] == 7).all()
