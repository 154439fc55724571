"""The type that codes in groups have."""

from __future__ import annotations

import pytest

from gemmaq.checkpoint.schemes.grouped import encoding_of, opaque
from gemmaq.encodings import ENCODINGS, Kind


@pytest.mark.parametrize(
    ("kind", "bits", "group", "columns", "name"),
    [
        (Kind.LINEAR, 4, 32, 256, "q4_0"),
        (Kind.LINEAR, 4, 128, 256, "int4-g128"),
        (Kind.LINEAR, 4, 128, 128, "int4-g128"),
        (Kind.LINEAR, 4, 256, 256, "int4-channel"),
        (Kind.LINEAR, 8, 64, 256, "int8-g64"),
        (Kind.LINEAR, 3, 32, 256, "int3-g32"),
        (Kind.MINIMA, 4, 32, 256, "affine4"),
        (Kind.MINIMA, 4, 96, 192, "affine4-g96"),
        (Kind.OPAQUE, 4, 32, 256, "label"),
    ],
)
def test_codes_get_a_type_of_gemmaq_if_one_holds_them(
    kind: Kind, bits: int, group: int, columns: int, name: str
) -> None:
    encoding = encoding_of(kind, bits, group, columns=columns, label="label")
    assert (encoding.name, encoding.kind, encoding.bits) == (name, kind, bits)
    assert kind is not Kind.LINEAR or encoding.zero == 1 << bits - 1


def test_parts_of_groups_hold_their_codes() -> None:
    wide = encoding_of(Kind.LINEAR, 4, 128, columns=256, label="")
    row = encoding_of(Kind.LINEAR, 4, 256, columns=256, label="")
    q4_0, q8_0 = ENCODINGS["q4_0"], ENCODINGS["q8_0"]
    assert q4_0.refines(wide, 256) and q4_0.refines(row, 256) and wide.refines(row, 256)
    assert not (wide.refines(q4_0, 256) or q8_0.refines(wide, 256) or q4_0.refines(q4_0, 256))
    assert ENCODINGS["q4_1"].refines(ENCODINGS["affine4-g64"], 256)
    assert not q4_0.refines(opaque("nf4", 4), 256)
