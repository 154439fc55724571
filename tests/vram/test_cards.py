"""Cards by name, and the memory that they report."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmaq.errors import UsageError
from gemmaq.vram.cards import CARDS, Card, find

MIB = 1 << 20
GIB = 1 << 30


@pytest.mark.parametrize(
    ("text", "name"),
    (
        ("4090", "RTX 4090"),
        ("rtx-4090", "RTX 4090"),
        ("RTX4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("4090 laptop", "RTX 4090 Laptop"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "RTX 4090 Laptop"),
        ("4060", "RTX 4060"),
        ("4060 ti 16gb", "RTX 4060 Ti 16GB"),
        ("5060ti-16gb", "RTX 5060 Ti 16GB"),
        ("Tesla T4", "T4"),
        ("a100 80gb", "A100 80GB"),
        ("7900xtx", "RX 7900 XTX"),
        ("9070xt", "RX 9070 XT"),
        ("AMD Radeon RX 7900 XTX", "RX 7900 XTX"),
        ("Intel Arc A770 Graphics", "Arc A770"),
        ("b580", "Arc B580"),
        ("AMD Instinct MI300X", "MI300X"),
        ("pro 6000", "RTX PRO 6000"),
        ("RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("dgx spark", "DGX Spark"),
        ("spark", "DGX Spark"),
        ("m4 max 64gb", "M4 Max 64GB"),
        ("Apple M4 Max, 64 GB", "M4 Max 64GB"),
        ("H100", "H100"),
    ),
)
def test_ways_to_name_a_card(text: str, name: str) -> None:
    assert find(text) is CARDS[name]


@pytest.mark.parametrize("name", CARDS)
def test_every_card_by_its_own_name(name: str) -> None:
    card = CARDS[name]
    assert find(name) == find(name.lower()) == find(name.replace(" ", "-")) == card
    assert card.name == name and card.count == 1
    assert 0 < card.usable <= card.bytes < 600 * GIB and card.bytes > 7 * GIB
    twice = find(f"2x {name}")
    assert (twice.name, twice.count) == (f"2x {name}", 2)
    assert (twice.bytes, twice.usable) == (2 * card.bytes, 2 * card.usable)


@pytest.mark.parametrize(
    ("text", "name", "gib"), (("24GB", "24 GB", 24), ("16 gib", "16 GB", 16), ("7.5gb", "7.5 GB", 7.5))
)
def test_a_card_by_its_memory_alone(text: str, name: str, gib: float) -> None:
    assert find(text) == Card(name, int(gib * GIB), int(gib * GIB))


@pytest.mark.parametrize(
    ("text", "count", "gib"), (("2x24GB", 2, 48), ("8x h100", 8, 8 * 81559 / 1024), ("4 x 3090", 4, 96))
)
def test_several_cards(text: str, count: int, gib: float) -> None:
    card = find(text)
    assert (card.count, card.bytes, card.usable) == (count, gib * GIB, gib * GIB)


def test_memory_is_what_drivers_report() -> None:
    """24,564 MiB on a 4090, 143,771 on an H200 of 141 decimal GB."""
    assert find("4090").bytes == 24564 * MIB
    assert find("h200").bytes == 143771 * MIB < 141e9 * 1.08


@pytest.mark.parametrize(
    ("name", "share"), (("m2 8gb", 2 / 3), ("m3 pro 36gb", 2 / 3), ("m4 pro 48gb", 3 / 4), ("m2 ultra 192gb", 3 / 4))
)
def test_what_a_mac_lets_models_use(name: str, share: float) -> None:
    card = find(name)
    assert card.usable == int(card.bytes * share)


def test_shared_memory_is_not_all_for_models() -> None:
    assert find("spark").usable == pytest.approx(0.9 * find("spark").bytes, rel=1e-6)


@pytest.mark.parametrize(
    ("text", "words"),
    (
        ("3080", ("RTX 3080 10GB", "RTX 3080 12GB")),
        ("4060 ti", ("RTX 4060 Ti 8GB", "RTX 4060 Ti 16GB")),
        ("m4 max", ("M4 Max 36GB", "M4 Max 128GB")),
        ("a100", ("A100 40GB", "A100 80GB")),
        ("4091", ("RTX 4090", "24GB")),
        ("rtx 4090 super", ("RTX 4090", "24GB")),
        ("h300", ("H200",)),
        ("voodoo", ("24GB",)),
        ("", ("24GB",)),
        ("gpu", ("24GB",)),
        ("0GB", ("24GB",)),
        ("0x4090", ("0 cards",)),
        ("65x4090", ("65 cards",)),
        ("2x", ("24GB",)),
        ("-1GB", ("24GB",)),
    ),
)
def test_a_name_that_means_no_one_card(text: str, words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as refusal:
        find(text)
    message = f"{refusal.value.message} {refusal.value.hint}"
    assert repr(text) in message and all(word in message for word in words), message


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.text(max_size=30),
        st.from_regex(r"\d{1,400}x?\s?(\d{1,400}(\.\d+)?(gb|gib)|4090|m4 max 64gb)", fullmatch=True),
    )
)
def test_any_text_is_a_card_or_a_refusal(text: str) -> None:
    try:
        card = find(text)
    except UsageError:
        return
    assert 0 < card.usable <= card.bytes and 1 <= card.count <= 64
