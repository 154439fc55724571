"""Cards by name, and whether a model fits them: by how much, up to which context, in which type."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmaq import vram
from gemmaq.errors import UsageError
from gemmaq.vram.cards import CARDS, Card, find
from inprocess import run

MIB = 1 << 20
GIB = 1 << 30


def estimates(*arguments: object) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = json.loads(run("estimate-vram", *arguments, "--json").stdout)["estimates"]
    return result


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
    said = f"{refusal.value.message} {refusal.value.hint}"
    assert repr(text) in said and all(word in said for word in words), said


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


def on(card: str, *options: object) -> tuple[dict[str, Any], dict[str, Any]]:
    """The one estimate asked for, and the verdict on a card."""
    (entry,) = estimates(*options, "--gpu", card)
    (verdict,) = entry["gpus"]
    return entry, verdict


FITS = (
    ("24GB", "27b --quant q4_0"),
    ("24GB", "27b --quant q4_0 --kv-type q8_0 --parallel 2 --no-kv-unified"),
    ("24GB", "27b --quant q4_0 --kv-type q4_0 --swa-full"),
    ("12GB", "12b --quant q4_0 --no-flash-attn"),
    ("4090", "27b --quant q4_0 --engine ollama --parallel 2"),
    ("24GB", "27b --quant q4_0 --engine lmstudio --no-vision"),
    ("40GB", "27b --quant q4_0 --engine vllm --parallel 2"),
    ("m4 max 36gb", "27b --quant q4_0 --engine mlx"),
    ("2x12GB", "27b --quant q4_0"),
)


@pytest.mark.parametrize(("card", "command"), FITS)
def test_the_largest_context_fits_and_the_next_does_not(card: str, command: str) -> None:
    longest = on(card, *command.split(), "--context", 1024)[1]["max_context"]
    assert longest % 256 == 0 and 1024 < longest < 262144
    fitting, over = (on(card, *command.split(), "--context", context)[1] for context in (longest, longest + 256))
    assert fitting["fits"] and fitting["room"] >= 0
    assert not over["fits"] and over["room"] < 0
    assert fitting["max_context"] == over["max_context"] == longest


@pytest.mark.parametrize("engine", vram.NAMES)
def test_room_is_what_is_left_of_what_the_engine_may_use(engine: str) -> None:
    entry, verdict = on("4090", "12b", "--quant", "q4_0", "--engine", engine)
    share = 0.9 if engine == "vllm" else 1
    assert verdict["name"] == "RTX 4090" and verdict["bytes"] == 24564 * MIB
    assert verdict["usable"] == int(24564 * MIB * share)
    assert verdict["room"] == verdict["usable"] - entry["bytes"]["total"]
    assert verdict["fits"] == (verdict["room"] >= 0)


def test_to_the_last_byte() -> None:
    """A card on which nothing is left fits, one a little smaller does not."""
    total = estimates("27b", "--quant", "q4_0")[0]["bytes"]["total"]
    above, below = -(-total * 1000 // GIB) / 1000, total * 1000 // GIB / 1000
    assert on(f"{above:.3f}GB", "27b", "--quant", "q4_0")[1]["fits"]
    assert not on(f"{below:.3f}GB", "27b", "--quant", "q4_0")[1]["fits"]


def test_several_cards_each_have_scratch_of_their_own() -> None:
    entry, one = on("48GB", "27b", "--quant", "q4_0")
    _, two = on("2x24GB", "27b", "--quant", "q4_0")
    parts = entry["bytes"]
    assert one["room"] - two["room"] == parts["compute"] + parts["overhead"]
    assert one["max_context"] >= two["max_context"]


@pytest.mark.parametrize(
    ("card", "command"),
    (
        ("24GB", "27b"),
        ("16GB", "12b"),
        ("8GB", "4b --context 32768"),
        ("24GB", "27b --engine vllm"),
        ("m4 max 36gb", "27b --engine mlx"),
        ("6GB", "4b --engine ollama"),
    ),
)
def test_the_largest_type_that_fits(card: str, command: str) -> None:
    engine = vram.find(command.partition("--engine ")[2] or "llama.cpp")
    types = [part for quant in engine.quants for part in ("--quant", quant)]
    entries = estimates(*command.split(), *types, "--gpu", card)
    fitting = [entry["quant"] for entry in entries if entry["gpus"][0]["fits"]]
    assert 0 < len(fitting) < len(entries)
    assert {entry["gpus"][0]["max_quant"] for entry in entries} == {fitting[0]}


@pytest.mark.parametrize("engine", vram.NAMES)
def test_types_are_compared_from_the_largest_to_the_smallest(engine: str) -> None:
    types = [part for quant in vram.find(engine).quants for part in ("--quant", quant)]
    for label in ("270m", "1b", "27b"):
        sizes = [entry["bytes"]["weights"] for entry in estimates(label, "--engine", engine, *types)]
        assert sizes == sorted(sizes, reverse=True)


def test_where_nothing_fits() -> None:
    _, verdict = on("8GB", "27b", "--quant", "q4_0")
    assert not verdict["fits"] and verdict["room"] < 0
    assert (verdict["max_context"], verdict["max_quant"]) == (0, None)
    shown = run("estimate-vram", "27b", "--quant", "q4_0", "--gpu", "8GB").stdout
    (line,) = [line for line in shown.splitlines() if "8 GB" in line]
    assert f"too large by {-verdict['room'] / GIB:.2f} GiB" in line and line.split()[-2:] == ["none", "none"]


def test_where_everything_fits() -> None:
    _, verdict = on("h200", "27b", "--quant", "q4_0")
    assert (verdict["max_context"], verdict["max_quant"]) == (131072, "bf16")
    shown = run("estimate-vram", "27b", "--quant", "q4_0", "--gpu", "h200").stdout
    (line,) = [line for line in shown.splitlines() if "H200" in line]
    assert f"fits, {verdict['room'] / GIB:.2f} GiB free" in line and line.split()[-2:] == ["131,072", "bf16"]


def test_every_card_has_its_verdict() -> None:
    entries = estimates("4b", "--gpu", "4090", "--gpu", "8GB", "--gpu", "4090")
    assert [[gpu["name"] for gpu in entry["gpus"]] for entry in entries] == [["RTX 4090", "8 GB", "RTX 4090"]] * 2


def test_quiet_says_nothing_of_cards() -> None:
    assert run("estimate-vram", "27b", "--gpu", "4090", "-q").stdout == run("estimate-vram", "27b", "-q").stdout
