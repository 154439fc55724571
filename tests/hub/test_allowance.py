"""What an answer may take: bytes are counted, time ends, and progress prolongs it only so far."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemmaq.errors import NetworkError
from gemmaq.hub.allowance import Allowance, RefusedError


@given(st.lists(st.integers(0, 100)), st.integers(0, 1000))
def test_bytes_are_allowed_up_to_the_most(counts: list[int], most: int) -> None:
    allowance = Allowance("the server", most, 60, hint="look")
    total = 0
    for count in counts:
        total += count
        if total > most:
            with pytest.raises(RefusedError, match=f"the server sends more than the {most:,} bytes"):
                allowance.take(count)
            return
        allowance.expect(count)
        allowance.take(count)


def test_time_ends_and_is_prolonged_only_so_far() -> None:
    allowance = Allowance("the server", 1, 10, 30, hint="look")
    assert 9 < allowance.left() <= 10
    allowance.prolong(20)
    assert 19 < allowance.left() <= 20
    allowance.prolong(60)
    assert 29 < allowance.left() <= 30
    assert Allowance("the server", 1, 0, hint="look").left() <= 0
    assert isinstance(allowance.too_slow(), NetworkError) and "the server answers too slowly" in str(
        allowance.too_slow()
    )


@pytest.mark.parametrize("name", [None, "", "identity", " Identity "])
def test_no_encoding(name: str | None) -> None:
    Allowance("the server", 1, 1, hint="look").check_encoding(name)


@pytest.mark.parametrize("name", ["gzip", "br", "identity, gzip", "x" * 1000])
def test_encodings_are_refused(name: str) -> None:
    with pytest.raises(RefusedError, match="which nobody asked for") as failed:
        Allowance("the server", 1, 1, hint="look").check_encoding(name)
    assert failed.value.hint == "look" and len(failed.value.problem) < 150
