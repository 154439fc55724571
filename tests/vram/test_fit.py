"""Whether a model fits a card: by how much, up to which context, in which type."""

from __future__ import annotations

from typing import Any

import pytest

from gemmaq import vram
from inprocess import run
from memory import GIB, MIB, estimates


def on(card: str, *options: object) -> tuple[dict[str, Any], dict[str, Any]]:
    """The only estimate, and how it fits a card."""
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


def test_the_plain_answer_keeps_the_order_of_models_and_cards() -> None:
    shown = run("estimate-vram", "1b", "4b", "--quant", "q4_0", "--gpu", "4090", "--gpu", "8GB").stdout
    table = shown.partition("On these cards")[2].splitlines()
    rows = [line.split() for line in table if "GiB free" in line or "too large" in line]
    assert [(row[0], row[2]) for row in rows] == [("1b", "RTX"), ("1b", "8"), ("4b", "RTX"), ("4b", "8")]
