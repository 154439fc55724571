"""Goals: no card is overshot, and no byte of files; what is left is less than any better type would take."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

import gemma4
import made_up
from damage import small_model
from gemmaq import vram
from gemmaq.budget.choose import Source, choose, space
from gemmaq.budget.goal import Bits, FileBytes, Fit, described, file_bytes, room
from gemmaq.errors import UsageError
from gemmaq.models.families import require_size
from gemmaq.planning.recipe import of
from gemmaq.planning.request import Request
from gemmaq.sources.open import open_source
from gemmaq.vram import Load
from gemmaq.vram.cards import find
from gemmaq.vram.placement import place
from gemmaq.vram.weights import checkpoint_of, of_plan

CARDS = {
    "270M": ("0.9GB", "0.95GB", "1GB"),
    "1B": ("1.5GB", "2GB", "2.5GB"),
    "4B": ("RTX 4060", "4GB"),
    "E2B": ("4GB", "6GB"),
    "12B": ("RTX 4070",),
    "26B-A4B": ("RTX 4080", "RTX 4090"),
}
"""Size -> cards that it fits in some types but not in all."""
CACHES = {
    "llama.cpp": (("f16", "f16"), ("q8_0", "q4_0")),
    "ollama": (("q8_0", "q8_0"),),
    "lmstudio": (("f16", "f16"),),
    "mlx": (("bf16", "bf16"),),
    "vllm": (("fp8", "fp8"),),
    "transformers": (("bf16", "bf16"),),
}
"""Engine -> types of its cache."""
LOADS = [
    (name, Load(context, kinds, parallel=2 if context == 8192 else 1))
    for name, caches in CACHES.items()
    for kinds, context in itertools.product(caches, (2048, 8192, 20000))
]


def test_there_are_enough_combinations() -> None:
    assert sum(len(cards) for cards in CARDS.values()) * len(LOADS) >= 200


@pytest.mark.parametrize("size", CARDS)
def test_no_card_is_overshot_and_no_room_for_a_better_type_is_left(size: str) -> None:
    checkpoint = checkpoint_of(require_size(size))
    known, spaces, met = {}, {}, 0
    for container in ("gguf", "mlx", "safetensors"):
        request = Request(of("q4_0"), (container,), mmproj=None)
        losses = made_up.sensitivities(checkpoint, container)
        known[container] = Source(checkpoint, request, Bits(4), losses, {})
        spaces[container] = space(known[container])
    for card, (name, load) in itertools.product(map(find, CARDS[size]), LOADS):
        engine = vram.find(name)
        goal = Fit(engine, load, (card,))
        try:
            choice = choose(replace(known[engine.container], goal=goal), spaces[engine.container])
        except UsageError as error:
            assert "cannot be met" in error.message
            continue
        met += 1
        assert 0 <= choice.room == room(goal, checkpoint, choice.plan)
        assert choice.room < 0.03 * card.usable or choice.plan.body.is_float, (size, described(goal), choice.room)
    assert met > len(CARDS[size]) * len(LOADS) / 2


def test_bits_per_weight_are_met_almost_wholly() -> None:
    checkpoint = checkpoint_of(require_size("4B"))
    source = Source(checkpoint, Request(of("q4_0"), ("gguf",)), Bits(1), made_up.sensitivities(checkpoint), {})
    among = space(source)
    for bits in (2.9, 3.7, 4.25, 4.6, 5.5, 8.0):
        choice = choose(replace(source, goal=Bits(bits)), among)
        assert bits - 0.01 < choice.plan.bits_per_weight <= bits
        assert choice.plan.label == f"{choice.plan.bits_per_weight:.2f}bpw"
    with pytest.raises(UsageError, match="even in the smallest types gemma-3-4b takes"):
        choose(source, among)


@pytest.mark.parametrize("container", ["gguf", "mlx", "safetensors"])
def test_the_size_of_files_is_that_of_all_that_runtimes_read(container: str, tmp_path: Path) -> None:
    checkpoint = open_source(str(small_model(tmp_path / "model")))
    source = Source(
        checkpoint,
        Request(of("q4_0"), (container,)),
        FileBytes(1 << 40),
        made_up.sensitivities(checkpoint, container),
        {},
    )
    whole = choose(source)
    largest = file_bytes(checkpoint, whole.plan)
    assert whole.room == (1 << 40) - largest and whole.plan.body.is_float
    for limit in (largest - 1, largest - 10_000, largest - 20_000):
        choice = choose(replace(source, goal=FileBytes(limit)))
        assert file_bytes(checkpoint, choice.plan) == limit - choice.room <= limit


def test_a_table_that_stays_in_main_memory_keeps_the_containers_type() -> None:
    """Gemma 4 E2B: llama.cpp looks its per-layer embeddings up in main memory."""
    checkpoint = checkpoint_of(require_size("E2B"))
    goal = Fit(vram.find("llama.cpp"), Load(8192), (find("24GB"),))
    choice = choose(Source(checkpoint, Request(of("q4_0"), ("gguf",)), goal, made_up.sensitivities(checkpoint), {}))
    table = next(t for t in choice.plan.tensors if t.source.place.role == "layer embedding")
    assert choice.room > table.source.nbytes and table.source.name not in choice.plan.recipe.like


def test_towers_count_where_an_mmproj_file_is_written(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(require_size("4B"))
    goal = Fit(vram.find("llama.cpp"), Load(8192), (find("6GB"),))
    source = Source(checkpoint, Request(of("q4_0"), ("gguf",)), goal, made_up.sensitivities(checkpoint), {})
    with_towers, without = choose(source), choose(replace(source, request=replace(source.request, mmproj=None)))
    assert without.plan.tensor_bytes - with_towers.plan.tensor_bytes > 800e6


def test_goals_in_words() -> None:
    goal = Fit(vram.find("llama.cpp"), Load(16384, ("q8_0", "q8_0"), parallel=2), (find("4070"),))
    assert described(goal) == "RTX 4070 in llama.cpp at 16,384 tokens, q8_0 cache, 2 sequences"
    assert described(FileBytes(8_500_000_000)) == "8,500,000,000 bytes of files"
    assert described(Bits(4.6)) == "4.6 bits per weight"


def test_gemma_4_small_meets_a_size(tmp_path: Path) -> None:
    checkpoint = open_source(str(gemma4.write(tmp_path / "model", gemma4.EXPERTS)))
    source = Source(checkpoint, Request(of("q4_0"), ("gguf",)), Bits(5), made_up.sensitivities(checkpoint), {})
    choice = choose(source)
    assert 4.9 < choice.plan.bits_per_weight <= 5


def test_unequal_cards_and_main_memory_are_used_and_not_overshot() -> None:
    checkpoint = checkpoint_of(require_size("12B"))
    engine, load = vram.find("llama.cpp"), Load(8192)
    source = Source(
        checkpoint, Request(of("q4_0"), ("gguf",), mmproj=None), Bits(4), made_up.sensitivities(checkpoint), {}
    )
    among, bits = space(source), {}
    for name, cards, offload in (
        ("one", ("6GB",), 0),
        ("two", ("6GB", "4GB"), 0),
        ("alike", ("2x 6GB",), 0),
        ("beside", ("6GB",), 4 << 30),
    ):
        goal = Fit(engine, load, tuple(map(find, cards)), offload)
        choice = choose(replace(source, goal=goal), among)
        build = of_plan(checkpoint, choice.plan)
        model = replace(build.model, towers=0, towers_config=None)
        placed = place(engine, replace(build, model=model), load, goal.cards, offload=bool(offload))
        assert placed.fits and choice.room >= 0
        assert choice.room < 0.05 * (sum(card.usable for card in goal.cards) + offload), name
        bits[name] = choice.plan.bits_per_weight
    assert bits["one"] < bits["two"] < bits["alike"] and bits["one"] < bits["beside"]
    assert described(goal) == "6 GB and 4,294,967,296 bytes of main memory in llama.cpp at 8,192 tokens, f16 cache"
