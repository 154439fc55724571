"""Memory in every engine: figures of llama.cpp's log, what is refused, and a new engine in the registry."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType

import pytest

from gemmaq import vram
from gemmaq.errors import UsageError
from gemmaq.models.families import require_size, size_by_name
from gemmaq.models.gemma3.sizes import SIZES
from gemmaq.models.size import Size
from gemmaq.vram import Engine, Estimate, Load, Model
from inprocess import run
from memory import GIB, MIB, K, at, estimates
from sparse_models import SHAPES

KV_MIB = {
    ("270m", "f16"): ((2 * K, 6, 15), (8 * K, 24, 15), (32 * K, 96, 15)),
    ("270m", "q8_0"): ((2 * K, 3.19, 7.97), (8 * K, 12.75, 7.97), (32 * K, 51, 7.97)),
    ("270m", "q4_0"): ((2 * K, 1.69, 4.22), (8 * K, 6.75, 4.22), (32 * K, 27, 4.22)),
    ("1b", "f16"): ((4 * K, 16, 22), (8 * K, 32, 22), (32 * K, 128, 22)),
    ("1b", "q8_0"): ((32 * K, 68, 11.69),),
    ("1b", "q4_0"): ((32 * K, 36, 6.19),),
    ("4b", "f16"): ((8 * K, 160, 174), (32 * K, 640, 174), (128 * K, 2560, 174)),
    ("4b", "q8_0"): ((128 * K, 1360, 92.44),),
    ("4b", "q4_0"): ((128 * K, 720, 48.94),),
    ("12b", "f16"): ((8 * K, 512, 480), (32 * K, 2048, 480), (128 * K, 8192, 480)),
    ("12b", "q8_0"): ((128 * K, 4352, 255),),
    ("12b", "q4_0"): ((128 * K, 2304, 135),),
    ("27b", "f16"): ((8 * K, 640, 624), (32 * K, 2560, 624), (128 * K, 10240, 624)),
    ("27b", "q8_0"): ((128 * K, 5440, 331.5),),
    ("27b", "q4_0"): ((128 * K, 2880, 175.5),),
}
"""Model and type of the cache -> context, MiB of the global and of the local layers, from llama.cpp's log."""

COMPUTE_MIB = {
    "270m": ((2 * K, 20.77, 31.76), (8 * K, 26.77, 91.76), (32 * K, 50.77, 331.76)),
    "1b": ((2 * K, 52.27, 59.26), (8 * K, 58.27, 94.76), (32 * K, 82.27, 334.76)),
    "4b": ((8 * K, 88.52, 178.01), (32 * K, 112.52, 610.01), (128 * K, 208.52, 2338.01)),
    "12b": ((8 * K, 130.02, 329.51), (32 * K, 154.02, 1145.51), (128 * K, 250.02, 4409.51)),
    "27b": ((8 * K, 175.02, 594.51), (32 * K, 199.02, 2178.51), (128 * K, 295.02, 8514.51)),
}
"""Model -> context and MiB of the compute buffer of llama.cpp's server, with and without flash attention."""


@pytest.mark.parametrize(("model", "kv_type"), KV_MIB)
def test_cache_is_what_llama_cpp_allocates(model: str, kv_type: str) -> None:
    for context, everything, window in KV_MIB[model, kv_type]:
        got = at(model, context, kv_types=(kv_type, kv_type))
        assert got.kv_global / MIB == pytest.approx(everything, abs=0.00501)
        assert got.kv_local / MIB == pytest.approx(window, abs=0.00501)


@pytest.mark.parametrize("model", COMPUTE_MIB)
def test_compute_buffer_is_what_llama_cpp_allocates(model: str) -> None:
    for context, flash, scores in COMPUTE_MIB[model]:
        assert at(model, context).compute / MIB == pytest.approx(flash, abs=0.00501)
        assert at(model, context, flash_attention=False).compute / MIB == pytest.approx(scores, abs=0.00501)


def test_slots_windows_and_batches_of_llama_cpp() -> None:
    """MiB of the local layers of 27B at 131,072 tokens, from llama.cpp's log."""
    expected = {
        624: {},
        1872: {"parallel": 4},
        2496: {"parallel": 4, "unified": False},
        53248: {"swa_full": True},
        1248: {"ubatch": 2048},
    }
    for mib, options in expected.items():
        got = at("27b", 128 * K, **options)
        assert (got.kv_global / MIB, got.kv_local / MIB) == (10240, mib)


def test_the_window_is_no_larger_than_the_context() -> None:
    small = at("4b", 1000)
    assert (small.kv_global, small.kv_local) == (5 * 4096 * 1024, 29 * 4096 * 1024)


def test_parts_and_total() -> None:
    with_vision = at("4b", 8 * K, vision=True)
    text_only = at("4b", 8 * K)
    assert (
        with_vision.total
        == with_vision.weights + with_vision.kv + with_vision.compute + with_vision.vision + with_vision.overhead
    )
    assert with_vision.vision == with_vision.vision_weights + with_vision.vision_compute
    assert with_vision.total - text_only.total == with_vision.vision > with_vision.vision_weights == 500_000
    assert text_only.vision == 0
    for slots, local in ((1, 1536), (2, 2560)):
        scratch = 2 * 512 * (8 * K + local) + 4 * 512 * 2 * 2560
        assert at("4b", 8 * K, parallel=slots).host == 100_000 + slots * 4 * 262208 + scratch


def test_tables_that_are_only_looked_up_stay_in_main_memory() -> None:
    """The scratch memory there is what llama.cpp's log says of Gemma 4 E2B, E4B, 12B and 31B on a Vulkan device."""
    runtime = vram.find("llama.cpp")
    for name, mib in {"E2B": 32.5, "E4B": 40, "12B": 24.5, "31B": 30.5}.items():
        config = SHAPES[f"gemma-4-{name}"].config
        estimate = vram.estimate(runtime, Model(name, config, 1_000_000, 100_000, layer_table=300_000), Load(8 * K))
        assert estimate.weights == 700_000
        assert estimate.host == 100_000 + 300_000 + 4 * 262144 + mib * MIB


@pytest.mark.parametrize(("flash", "mib"), ((True, 121), (False, 1132)))
def test_scratch_for_an_image(flash: bool, mib: int) -> None:
    """As users measured it on a real card."""
    assert round(at("12b", 8 * K, vision=True, flash_attention=flash).vision_compute / MIB) == mib


@pytest.mark.parametrize("engine", vram.NAMES)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.label)
def test_every_engine_runs_every_size(engine: str, size: Size) -> None:
    """More tokens and more sequences take more."""
    short, long = at(size.name, 2 * K, engine), at(size.name, 32 * K, engine)
    assert 0 < short.kv_global < long.kv_global and 0 < short.kv_local <= long.kv_local and short.compute > 0
    assert short.weights == 1_000_000 or engine == "transformers"  # which computes with BF16 whatever was stored
    assert short.total < long.total <= at(size.name, 32 * K, engine, parallel=2).total
    assert long.total < 100 * GIB
    runtime = vram.find(engine)
    assert runtime.kv_default in runtime.kv_types and len(runtime.quants) > 2
    for kind in runtime.kv_types:
        assert at(size.name, 2 * K, engine, kv_types=(kind, kind)).kv > 0


@pytest.mark.parametrize(
    ("name", "engine"),
    (
        ("LLAMA.CPP", "llama.cpp"),
        ("llamacpp", "llama.cpp"),
        ("llama_cpp", "llama.cpp"),
        ("llama-server", "llama.cpp"),
        ("LM Studio", "lmstudio"),
        ("lm-studio", "lmstudio"),
        ("mlx-lm", "mlx"),
        ("vLLM", "vllm"),
        ("Ollama", "ollama"),
    ),
)
def test_names_of_engines(name: str, engine: str) -> None:
    assert vram.find(name).name == engine


@pytest.mark.parametrize(
    ("engine", "context", "options", "words"),
    (
        ("llama.cpp", 0, {}, ("0 tokens", "1 to 32768")),
        ("llama.cpp", -1, {}, ("-1 tokens",)),
        ("llama.cpp", 32769, {}, ("32769", "32768")),
        ("llama.cpp", 4 * 32768 + 1, {"parallel": 4, "unified": False}, ("131073", "131072")),
        ("llama.cpp", K, {"parallel": 0}, ("--parallel",)),
        ("llama.cpp", K, {"parallel": 257}, ("256",)),
        ("ollama", K, {"parallel": 257}, ("256",)),
        ("llama.cpp", K, {"ubatch": 0}, ("--ubatch",)),
        ("llama.cpp", K, {"kv_types": ("q6_k", "q6_k")}, ("q6_k", "q8_0")),
        ("llama.cpp", K, {"kv_types": ("f16", "")}, ("''",)),
        ("llama.cpp", K, {"kv_types": ("f16", "q8_0"), "flash_attention": False}, ("flash", "K alone")),
        ("llama.cpp", K, {"vision": True}, ("no towers",)),
        ("ollama", K, {"kv_types": ("q8_0", "f16")}, ("one type",)),
        ("ollama", K, {"kv_types": ("q5_1", "q5_1")}, ("Ollama", "q5_1", "q8_0")),
        ("ollama", K, {"swa_full": True}, ("Ollama", "swa-full")),
        ("ollama", K, {"unified": True}, ("unified",)),
        ("lmstudio", K, {"swa_full": False}, ("LM Studio", "swa-full")),
        ("lmstudio", K, {"kv_types": ("bf16", "bf16")}, ("LM Studio", "bf16")),
        ("vllm", K, {"kv_types": ("q8_0", "q8_0")}, ("vLLM", "q8_0", "fp8")),
        ("vllm", K, {"flash_attention": False}, ("vLLM", "flash")),
        ("mlx", K, {"kv_types": ("q8_0", "q8_0")}, ("mlx", "q8_0", "bf16")),
        ("mlx", K, {"swa_full": True}, ("swa-full",)),
        ("mlx", K, {"unified": False}, ("unified",)),
        ("transformers", K, {"kv_types": ("q4_0", "q4_0")}, ("q4_0",)),
        ("transformers", K, {"swa_full": True}, ("swa-full",)),
        ("vllm", K, {"swa_full": True}, ("swa-full",)),
    ),
)
def test_what_is_impossible_is_refused(
    engine: str, context: int, options: dict[str, object], words: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError) as refusal:
        at("270m", context, engine, **options)
    message = f"{refusal.value.message} {refusal.value.hint}"
    assert all(word in message for word in words), message


def test_quantized_keys_alone_need_no_flash_attention() -> None:
    got = at("270m", 8 * K, kv_types=("q8_0", "f16"), flash_attention=False)
    assert got.kv_global / MIB == pytest.approx((12.75 + 24) / 2, abs=0.01)


def test_slots_with_a_cache_each_have_a_context_each() -> None:
    got = at("270m", 4 * 32 * K, parallel=4, unified=False)
    assert got.kv == 4 * at("270m", 32 * K).kv


def _toy_estimate(model: Model, load: Load) -> Estimate:
    return Estimate(model.weights, 10 * load.context, load.context, compute=1000, notes=("a toy",))


TOY = Engine(
    name="toy",
    title="Toy runtime",
    container="gguf",
    quants=("q8_0", "q4_0"),
    kv_types=("f16",),
    kv_default="f16",
    supports_vision=False,
    vision_by_default=False,
    options=frozenset(("ubatch",)),
    estimate=_toy_estimate,
)


def test_a_new_engine_is_one_file_and_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("gemmaq.vram.engines.toy")
    module.ENGINE = TOY  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(vram._MODULES, "toy", "toy")
    (entry,) = estimates("1b", "--engine", "toy", "--quant", "q4_0", "--context", 2048, "--ubatch", 8, "--gpu", "4GB")
    weights = entry["bytes"]["weights"]
    assert entry["engine"] == "toy" and entry["notes"] == ["a toy"]
    assert entry["bytes"]["total"] == weights + 11 * 2048 + 1000
    assert entry["gpus"][0]["fits"] and entry["gpus"][0]["max_quant"] == "q8_0"
    shown = run("estimate-vram", "1b", "--engine", "Toy").stdout
    assert "Memory in Toy runtime" in shown and "8,192 tokens" in shown
    assert "Toy runtime" in run("estimate-vram", "1b", "--engine", "toy", "--swa-full", code=2).stderr
    assert "text side only" in run("estimate-vram", "4b", "--engine", "toy", "--vision", code=2).stderr
    assert "did you mean toy?" in run("estimate-vram", "1b", "--engine", "toys", code=2).stderr


@pytest.mark.parametrize(
    ("engine", "name", "words"),
    [
        ("transformers", "E2B", ("on the GPU", "not measured for this kind")),
        ("vllm", "31B", ("not measured for this kind",)),
        ("mlx", "26B", ("experts is not measured",)),
        ("mlx", "12B", ("an eighth too low",)),
    ],
)
def test_engines_say_what_they_do_not_know_of_a_kind_of_model(engine: str, name: str, words: tuple[str, ...]) -> None:
    runtime = vram.find(engine)
    load = Load(8 * K, (runtime.kv_default,) * 2)
    config = SHAPES[f"gemma-4-{name}"].config
    table = 1000 if config.layer_embedding else 0
    notes = vram.estimate(runtime, Model(name, config, 10**10, 1000, layer_table=table), load).notes
    assert all(any(word in note for note in notes) for word in words), notes
    plain = vram.estimate(runtime, Model("4b", require_size("4b").config, 10**10, 1000), load).notes
    assert not any(word in note for note in plain for word in words)


def drafted(engine: str, **options: object) -> Estimate:
    """12B with its drafter, which weighs 70,000 bytes, at 8192 tokens."""
    size, drafter = require_size("gemma-4-12B"), size_by_name("gemma-4-12B-it-assistant")
    assert drafter is not None
    beside = Model(drafter.name, drafter.config, 70_000, 30_000)
    model = Model(size.name, size.config, 1_000_000, 100_000, drafter=beside)
    runtime = vram.find(engine)
    return vram.estimate(runtime, model, replace(Load(8 * K, (runtime.kv_default,) * 2), **options))  # type: ignore[arg-type]


def test_a_drafter_takes_weights_and_scratch_memory_and_no_cache() -> None:
    alone, both = at("gemma-4-12B", 8 * K), drafted("llama.cpp")
    assert (both.draft_weights, both.draft_compute / MIB) == (70_000, pytest.approx(65.0, abs=0.00501))
    assert both.total == alone.total + both.draft and both.kv == alone.kv and both.compute == alone.compute
    logits, states = 4 * 262144 * (3 + 1), 4 * 3840 * (2048 + 1)
    scratch = 2 * 512 * (8 * K + 1536) + 2 * 4 * 512 * 3840
    assert both.host == alone.host + 30_000 + logits + states + scratch
    assert any("gemma-4-12B-it-assistant" in note for note in both.notes)


def test_ollama_proposes_a_token_more() -> None:
    """Of each, the model's logits come to main memory."""
    assert drafted("ollama").host == drafted("llama.cpp").host + 4 * 262144
    assert drafted("ollama").draft == drafted("llama.cpp").draft


@pytest.mark.parametrize("engine", ["libllama", "lmstudio", "mlx", "transformers", "vllm"])
def test_engines_whose_memory_for_a_drafter_is_not_known_say_so(engine: str) -> None:
    with pytest.raises(UsageError, match="memory of a drafter"):
        drafted(engine)


def test_towers_of_any_image_size_take_what_the_largest_image_takes() -> None:
    size = require_size("gemma-4-E2B")
    model = Model(size.name, size.config, 1_000_000, 100_000, towers=500_000, towers_config=size.towers_config)
    alone = vram.estimate(vram.find("llama.cpp"), model, Load(8 * K))
    seen = vram.estimate(vram.find("llama.cpp"), model, Load(8 * K, vision=True))
    assert (alone.vision, seen.vision_weights) == (0, 500_000)
    assert seen.vision_compute / MIB == pytest.approx(443.05 + 101.19, abs=0.01002)
    assert any("1120 tokens" in note and "750 tokens" in note for note in seen.notes)
