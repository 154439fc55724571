"""Pages of vLLM's cache, by its design notes, and of layers whose rows differ."""

from __future__ import annotations

import pytest

from gemmaq import vram
from gemmaq.models.config import Layer
from gemmaq.vram import Load, Model
from memory import GIB, K, MixedConfig, at


@pytest.mark.parametrize(
    ("context", "options", "gib"),
    (
        (32 * K, {}, 3.91),
        (128 * K, {}, 11.41),
        (128 * K, {"ubatch": 8192}, 14.23),
        (128 * K, {"kv_types": ("fp8", "fp8")}, 11.41 / 2),
        (32 * K, {"parallel": 2}, 2 * 3.91),
    ),
)
def test_pages_of_vllm(context: int, options: dict[str, object], gib: float) -> None:
    """27B, by vLLM's notes on its hybrid cache: groups of ten layers, the last one padded."""
    assert at("27b", context, "vllm", **options).kv / GIB == pytest.approx(gib, abs=0.01)


def test_a_page_holds_more_tokens_of_a_narrower_layer() -> None:
    """Ten global layers of rows twice as wide: 16 tokens a page there, 32 in the others."""
    wide, narrow = Layer(8, 4, 512, 4096, None), Layer(8, 4, 256, 4096, 1024)
    config = MixedConfig(((narrow,) * 5 + (wide,)) * 10, 2048)
    got = vram.estimate(vram.find("vllm"), Model("mixed", config, 0, 0), Load(16 * K, ("bf16", "bf16")))
    page = 10 * 16 * 2048 * 2 * 2
    assert got.kv_global == 16 * K // 16 * page
    assert got.kv_local == 5 * (-(-(1023 + 2048) // 32) + 1) * page
