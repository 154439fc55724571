"""Names of types in messages and help."""

from __future__ import annotations

from gemmaq.encodings.listing import listed


def test_types_that_differ_only_in_bits_and_group_share_an_entry() -> None:
    names = ["q4_0", "affine2", "affine2-g64", "affine8", "affine8-g128", "int4-g64", "mixed_2_6", "mixed_3_4"]
    assert listed(names) == ["q4_0", "affineN (N: 2 8; -g64 -g128)", "int4-g64", "mixed_N (N: 2_6 3_4)"]


def test_a_single_type_has_its_own_name() -> None:
    assert listed(["affine4"]) == ["affine4"]
    assert listed(["bf16", "affine4-g64"]) == ["bf16", "affine4-g64"]
