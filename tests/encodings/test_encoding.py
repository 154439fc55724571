"""Codes of one encoding as those of another, and as weights."""

from __future__ import annotations

from gemmaq.encodings import ENCODINGS


def test_codes_mean_the_same_only_where_kind_and_levels_agree() -> None:
    same = {(a, b) for a, one in ENCODINGS.items() for b, other in ENCODINGS.items() if a < b and one.same_codes(other)}
    assert same == {("affine4", "q4_1"), ("affine5", "q5_1")}
    assert all(encoding.same_codes(encoding) for encoding in ENCODINGS.values())
