"""What types are for, in words."""

from __future__ import annotations

import pytest

from gemmaq.encodings import ENCODINGS
from gemmaq.planning.mixtures import MIXTURES
from gemmaq.planning.uses import recommended, use_of


def test_every_type_is_for_something() -> None:
    for name in ENCODINGS:
        assert use_of(name.upper(), name)
    for mixture in MIXTURES.values():
        assert use_of(mixture.label, mixture.body.name)
    assert use_of("Q8_0", "q8_0") == use_of("AFFINE8", "affine8") == "nearly the original"
    assert use_of("Q2_K", "q2_k") == use_of("IQ2_S", "iq2_s") == "only where nothing else fits"
    assert use_of("4.60bpw", "q8_0") == "small with little loss"
    assert "ARM" in use_of("Q4_0", "q4_0") and "ARM" not in use_of("Q4_0", "q4_0", cpus=False)
    assert use_of("IQ3_M", "iq3_s") == use_of("Q3_K_M", "q3_k") == "where nothing larger fits"


@pytest.mark.parametrize(
    ("labels", "on_grid", "first"),
    [
        (("Q8_0", "Q4_K_M", "Q4_0"), False, "Q4_K_M"),
        (("Q8_0", "Q4_K_M", "Q4_0"), True, "Q4_0"),
        (("Q8_0", "BF16"), False, "Q8_0"),
        (("BF16",), True, "BF16"),
        (("UD-Q4_K_XL",), False, "UD-Q4_K_XL"),
    ],
)
def test_the_one_to_start_with(labels: tuple[str, ...], on_grid: bool, first: str) -> None:
    assert recommended(labels, on_grid=on_grid) == first
