"""Where llama.cpp puts the parts of a model, against figures of its Vulkan backend (tests/benchmarks/placement.py)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gemmaq import vram
from gemmaq.containers import gguf, mlx
from gemmaq.errors import UsageError
from gemmaq.models.families import require_size
from gemmaq.planning import recipe
from gemmaq.planning.planner import make_plan
from gemmaq.planning.request import Request
from gemmaq.vram import Load, cards, fit
from gemmaq.vram.placement import Placement, each, place
from gemmaq.vram.weights import builds, checkpoint_of, of_plan
from placements import LLAMA, build

GIB = 1 << 30


def placed(name: str, *gpus: str, offload: bool = True, context: int = 8192) -> Placement:
    return place(LLAMA, build(name), Load(context), [cards.find(gpu) for gpu in gpus], offload=offload)


def test_a_model_that_fits_lies_on_the_card_and_is_the_usual_estimate() -> None:
    whole = placed("4b", "12GB")
    needed = vram.estimate(LLAMA, build("4b").model, Load(8192))
    (device,) = whole.devices
    assert (device.total, whole.host, whole.ngl, whole.split) == (needed.total, needed.host, 35, (35,))
    assert whole.room == fit.room(LLAMA, build("4b"), Load(8192), cards.find("12GB"))


LLAMA_CPP = (
    ("4b", 12, (12,), 0, [(1135045888, 123731968, 109120512)], 1772561664 + 226492416),
    ("27b", 18, (18,), 0, [(5105972864, 377487360, 222317056)], 11611198080 + 947912704),
    ("E2B", 20, (20,), 0, [(1025876272, 0, 197528576)], 2638127104 + 62914560),
    (
        "gemma-4-12b",
        30,
        (18, 12),
        0,
        [(2300357920, 239075328, 153766912), (2233202864, 146800640, 120080400)],
        3252250816 + 251658240,
    ),
    (
        "27b",
        63,
        (42, 21),
        0,
        [(9757870080, 910163968, 254877696), (5802963584, 415236096, 298917952)],
        1156337280,
    ),
    ("26b-a4b", 31, (31,), 3, [(13138900960, 482344960, 330049536)], 1890190848),
    ("26b-a4b", 31, (31,), 20, [(5859284448, 482344960, 456009728)], 9169807360),
    (
        "26b-a4b",
        31,
        (20, 11),
        30,
        [(645025088, 314572800, 456009728), (932133024, 167772160, 66603008)],
        13451934720,
    ),
)
"""Size, -ngl, -ts, --n-cpu-moe -> bytes of model, context and compute buffer of every device, and those of model and
context in main memory: llama.cpp v0.5.0's dry run with its Vulkan backend, Q4_0, 8,192 tokens."""
LONG = (
    ("26b-a4b", 24, 30, 32768, (1351804272, 775946240, 525470720), 13677288896 + 209715200),
    ("27b", 31, 0, 131072, (8126265984, 5683281920, 1246759424), 8590904960 + 5708447744),
    ("E4B", 20, 0, 131072, (1544628528, 536870912, 731515904), 4144993728 + 1652555776),
)
"""The same for one card, a part of the layers and longer contexts: size, -ngl, --n-cpu-moe, tokens."""


@pytest.mark.parametrize(("name", "ngl", "split", "moe", "devices", "host"), LLAMA_CPP)
def test_bytes_of_every_device_are_those_of_llama_cpp(
    name: str, ngl: int, split: tuple[int, ...], moe: int, devices: list[tuple[int, int, int]], host: int
) -> None:
    """On cards that hold just what llama.cpp puts there, one layer more has no room."""
    model = build(name)
    overhead = vram.estimate(LLAMA, model.model, Load(8192)).overhead
    sizes = [int(sum(parts) * 1.01) + overhead for parts in devices]
    result = place(LLAMA, model, Load(8192), [cards.Card("a card", size, size) for size in sizes], offload=True)
    assert (result.ngl, result.split, result.cpu_moe, result.fits) == (ngl, split, moe, True)
    for device, parts in zip(result.devices, devices, strict=True):
        assert device.weights == pytest.approx(parts[0], abs=16_000) and device.kv == parts[1]
        assert device.weights + device.kv + device.compute == pytest.approx(sum(parts), rel=0.01)
    needed = vram.estimate(LLAMA, model.model, Load(8192)).host - model.model.embedding - model.model.layer_table
    assert result.host - needed == pytest.approx(host, abs=16_000)


@pytest.mark.parametrize(("name", "ngl", "moe", "context", "device", "host"), LONG)
def test_attention_over_caches_in_main_memory_takes_a_copy_of_them(
    name: str, ngl: int, moe: int, context: int, device: tuple[int, int, int], host: int
) -> None:
    """With long contexts these copies are the largest part of the scratch memory."""
    load, model = Load(context), build(name)
    size = int(sum(device) * 1.007) + vram.estimate(LLAMA, model.model, load).overhead
    result = place(LLAMA, model, load, [cards.Card("a card", size, size)], offload=True)
    assert (result.ngl, result.cpu_moe, result.fits) == (ngl, moe, True)
    (ours,) = result.devices
    assert ours.weights == pytest.approx(device[0], abs=16_000) and ours.kv == device[1]
    assert ours.compute == pytest.approx(device[2], rel=0.02)
    needed = vram.estimate(LLAMA, model.model, load).host - model.model.embedding - model.model.layer_table
    assert result.host - needed == pytest.approx(host, abs=16_000)


def test_without_main_memory_too_large_a_model_has_no_room() -> None:
    whole = placed("27b", "12GB", offload=False)
    assert whole.ngl == 63 and whole.room < 0 and not whole.fits
    assert placed("27b", "12GB").fits


def test_unequal_cards_are_about_equally_full() -> None:
    result = placed("27b", "4090", "rtx 3060", offload=False)
    rooms = [device.room for device in result.devices]
    layer = max(build("27b").model.by_layer)
    assert result.fits and sum(result.split) == result.ngl == 63
    assert max(rooms) - min(rooms) < 3 * layer + build("27b").model.embedding


def test_experts_go_to_main_memory_before_layers_do() -> None:
    some, more = placed("26b-a4b", "12GB"), placed("26b-a4b", "8GB")
    assert 0 < some.cpu_moe < more.cpu_moe <= 30 and some.ngl == more.ngl == 31
    fewer = placed("26b-a4b", "12GB", context=131072)
    assert fewer.cpu_moe > some.cpu_moe


def test_layers_go_to_main_memory_when_all_experts_are_there() -> None:
    small = placed("26b-a4b", "2.8GB")
    assert small.fits and small.cpu_moe == 30 and 20 < (small.ngl or 0) < 31
    whole = build("26b-a4b").model
    assert small.host > sum(whole.experts) + whole.embedding


def test_several_of_a_kind_are_cards_of_their_own() -> None:
    names = [(card.name, card.bytes) for card in each([cards.find("2x3090"), cards.find("8GB")])]
    assert names == [("RTX 3090", 24 * GIB)] * 2 + [("8 GB", 8 * GIB)]
    assert len(placed("27b", "2x12GB", offload=False).devices) == 2


def test_engines_whose_placement_is_not_known() -> None:
    engine = vram.find("mlx")
    (model,) = builds(checkpoint_of(require_size("1b")), mlx.FORMAT, ["q4_0"], None)
    card = cards.find("2x8GB")
    alike = place(engine, model, Load(8192), [card])
    assert alike.ngl is None and alike.room == fit.room(engine, model, Load(8192), card) // 2
    with pytest.raises(UsageError, match="unequal cards"):
        place(engine, model, Load(8192), [card], offload=True)
    with pytest.raises(UsageError, match="unequal cards"):
        place(engine, model, Load(8192), [card, cards.find("4090")])
    unknown = replace(build("1b"), model=replace(build("1b").model, by_layer=()))
    with pytest.raises(UsageError, match="layers of"):
        place(LLAMA, unknown, Load(8192), [card])


def test_a_plan_is_placed_as_its_file_will_be() -> None:
    checkpoint = checkpoint_of(require_size("1b"))
    wanted = Request(recipe.of("q4_k_m", method="nearest"), ("gguf",), mmproj=None)
    plan = make_plan(checkpoint, wanted, gguf.FORMAT)
    made = of_plan(checkpoint, plan)
    assert made.model.weights == plan.tensor_bytes
    assert made.model.weights - sum(made.model.by_layer) - made.model.embedding == 1152 * 4
    assert made == build("1b", "q4_k_m")
