"""MLX's allocations by its schedule: published peaks of a GPU, and layers that differ."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gemmaq.models.config import Layer
from gemmaq.vram.engines.mlx_allocator import METAL, Room, Step, peak_bytes, steps
from memory import MixedConfig

LOCAL = Layer(heads=32, kv_heads=16, head_dim=256, ffn=21504, window=1024)
GLOBAL = Layer(heads=32, kv_heads=4, head_dim=512, ffn=21504, window=None)
LARGE = MixedConfig(layers=((LOCAL,) * 5 + (GLOBAL,)) * 10, hidden_size=5376)
"""Gemma 4 31B, whose global layers have heads of their own."""


@pytest.mark.parametrize(("fused_dims", "gigabytes"), [((), 23.952), ((256,), 23.9515), ((256, 512), 22.0368)])
def test_a_gpu_is_as_far_behind_as_published_peaks_say(fused_dims: tuple[int, ...], gigabytes: float) -> None:
    """Peaks of Gemma 4 31B in nvfp4 (4.5 bits) at 16K: M3 Ultra, M5, M5 with attention of heads of 512 fused.

    Source: ml-explore/mlx#4518 and #4487, the columns `main`, `main` and `this branch`.
    """
    schedule = replace(METAL, fused=frozenset(fused_dims))
    peaks = [
        peak_bytes(LARGE, step, sequences=1, width=2, density=5.5 / 32, schedule=schedule)
        for step in steps(16_385, 2048, (1024, None))[-4:]
    ]
    weights = 30.7e9 * 4.5 / 8
    assert weights + max(peaks) == pytest.approx(gigabytes * 1e9, rel=0.01)


def test_caches_grow_by_the_windows_of_their_layers() -> None:
    whole, window, last = (
        [step.room(kind).after for step in steps(700, 256, (None, 100, 512))] for kind in (None, 100, 512)
    )
    assert whole == [256, 512, 768, 768, 768]
    assert window == [256, 99 + 256, 99 + 186, 100, 100]
    assert last == [256, 512, 511 + 186, 512, 512]
    assert steps(3, 256, (None,))[0].room(None) == Room(0, 256)


def test_a_single_wide_layer_counts_by_itself() -> None:
    small = Layer(heads=4, kv_heads=2, head_dim=64, ffn=512, window=None)
    wide = replace(small, ffn=4096)
    (step, *_) = steps(130, 128, (None,))

    def peak(*layers: Layer) -> int:
        return peak_bytes(MixedConfig(layers, 128, vocab_size=512), step, sequences=1, width=2, density=1.0)

    alike, mixed, all_wide = peak(*[small] * 7), peak(*[small] * 3, wide, *[small] * 3), peak(*[wide] * 7)
    assert alike < mixed < all_wide


def test_layers_that_read_another_cache_have_none() -> None:
    """They take what a layer takes beside its cache, and are not evaluated at all while a chunk is read."""
    own = Layer(heads=4, kv_heads=2, head_dim=64, ffn=512, window=None)
    shared = replace(own, kv_from=1)
    chunk, *_, last = steps(130, 128, (None,))

    def peak(step: Step, *layers: Layer) -> int:
        return peak_bytes(MixedConfig(layers, 128, vocab_size=512), step, sequences=1, width=2, density=1.0)

    assert peak(chunk, own, own, shared) == peak(chunk, own, own)
    assert peak(last, own, own) <= peak(last, own, own, shared) < peak(last, own, own, own)


def test_inputs_of_every_layer_take_their_room() -> None:
    layer = Layer(heads=4, kv_heads=2, head_dim=64, ffn=512, window=None)
    config = MixedConfig((layer,) * 4, 128, vocab_size=512)
    (step, *_) = steps(130, 128, (None,))
    with_them, without = (
        peak_bytes(replace(config, layer_embedding=width), step, sequences=1, width=2, density=1.0) for width in (64, 0)
    )
    assert with_them >= without + 2 * 128 * 4 * 64
