"""Types of a KV cache: rotation, rounding, and where a model's layers meet them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gemma4
from gemmaq.encodings import ENCODINGS
from gemmaq.errors import UsageError
from gemmaq.inference.decoder import decoder
from gemmaq.inference.device import open_device
from gemmaq.inference.kv_cache import KVCache, hadamard, round_trip
from gemmaq.sources.open import open_source
from gemmaq.vram.engines.llama_cpp import KV_TYPES
from synthetic import TINY, write_checkpoint

QUANTIZED = [name for name in KV_TYPES if ENCODINGS[name].bits]


@pytest.fixture(scope="module", autouse=True)
def _torch(require: Callable[[bool, str], None]) -> None:
    from oracles import need

    need(require, "torch", "transformers")


def cache(k: str, v: str | None = None) -> KVCache:
    return KVCache(ENCODINGS[k], ENCODINGS[v or k])


def heads(size: int, seed: int = 0):
    """Heads of which one number is much larger than the others, f32 [2, 3, 5, size]."""
    import torch

    values = torch.randn(2, 3, 5, size, generator=torch.Generator().manual_seed(seed))
    values[..., 3] *= 30
    return values


def error(found, wanted) -> float:
    return float(((found - wanted) ** 2).sum() / (wanted**2).sum())


@pytest.mark.parametrize("side", [1, 64, 256])
def test_the_matrix_is_its_own_inverse(side: int) -> None:
    matrix = hadamard(side).numpy()
    np.testing.assert_allclose(matrix @ matrix, np.eye(side), atol=1e-6)
    signs = [[-1 if bin(i & j).count("1") % 2 else 1 for j in range(side)] for i in range(side)]
    np.testing.assert_array_equal(np.sign(matrix), signs)


@settings(deadline=None, max_examples=60)
@given(name=st.sampled_from(QUANTIZED), seed=st.integers(0, 99), power=st.integers(-30, 10))
def test_errors_are_below_one_step_of_the_codes(name: str, seed: int, power: int) -> None:
    """Whatever the size of the numbers; the smallest that FP16 scales can be is the room beside it."""
    rows = np.random.default_rng(seed).standard_normal((3, 64)).astype(np.float32) * np.float32(2.0**power)
    found = round_trip(rows, ENCODINGS[name])
    blocks, back = rows.reshape(-1, 32), found.reshape(-1, 32)
    steps = (1 << (ENCODINGS[name].bits - 1)) - 1 if name != "iq4_nl" else 127 / 24
    room = np.abs(blocks).max(1, keepdims=True) / steps + 2.0**-24 * 256
    assert found.dtype == np.float32 and (np.abs(back - blocks) <= room).all()


def test_types_with_more_bits_err_less() -> None:
    states = heads(128)
    errors = [error(cache(name).stored(states, states)[0], states) for name in ("q8_0", "q5_0", "q4_0")]
    assert 0 < errors[0] < errors[1] / 20 and errors[1] < errors[2] / 2


def test_rotation_spreads_what_is_large() -> None:
    """Keys are rotated as a whole, values in parts of 64; where 64 does not divide a head, neither is."""
    states = heads(256)
    k, v = cache("q4_0").stored(states, states)
    plain = round_trip(states.reshape(-1, 256).numpy(), ENCODINGS["q4_0"]).reshape(states.shape)
    import torch

    alone = error(torch.from_numpy(plain), states)
    assert error(k, states) < alone and error(v, states) < alone and not torch.equal(k, v)
    odd = heads(96)
    k, v = cache("q4_0").stored(odd, odd)
    wanted = round_trip(odd.reshape(-1, 96).numpy(), ENCODINGS["q4_0"]).reshape(odd.shape)
    np.testing.assert_array_equal(k.numpy(), wanted)
    np.testing.assert_array_equal(v.numpy(), wanted)


def test_floats_are_rounded_without_a_rotation() -> None:
    import torch

    states = heads(64)
    assert torch.equal(cache("f32").stored(states, states)[0], states)
    k, v = cache("f16", "bf16").stored(states, states)
    assert torch.equal(k, states.half().float()) and torch.equal(v, states.bfloat16().float())


def test_names_and_blocks() -> None:
    assert cache("q8_0").label == "q8_0" and cache("q8_0", "f16").label == "q8_0,f16"
    cache("q8_0").check(TINY, "tiny")
    cache("f16").check(replace(TINY, head_dim=48), "odd")
    with pytest.raises(UsageError, match="odd has heads of 48 numbers"):
        cache("f16", "q4_0").check(replace(TINY, head_dim=48), "odd")


def hidden(path: Path, kv: KVCache | None, tokens: np.ndarray) -> np.ndarray:
    checkpoint = open_source(str(path))
    with open_device("cpu", 1) as device, decoder(checkpoint, device, kv) as model:
        batches = model.embed(tokens)
        for index in range(model.layers):
            model.through(model.layer(index), index, batches)
        return model.normed(batches[0].hidden).numpy()


def layers_of(path: Path) -> tuple[int, int]:
    """Layers of a model, and those with keys of their own."""
    config = open_source(str(path)).config
    return config.num_hidden_layers, sum(layer.kv_from is None for layer in config.layers)


@pytest.mark.parametrize("kind", ["gemma3", "dense", "effective"])
def test_every_layer_reads_what_the_cache_gives(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers that share keys and values read the same rounded ones as the layer that they are from."""
    folder = tmp_path / f"model-{kind}"
    if kind == "gemma3":
        write_checkpoint(folder, TINY, seed=4)
    else:
        gemma4.write(folder, gemma4.KINDS[kind])
    tokens = np.random.default_rng(1).integers(0, 300, (1, 40))
    seen = []
    plain_stored = KVCache.stored

    def stored(self, keys, values):
        found = plain_stored(self, keys, values)
        seen.append([part.numpy().copy() for part in found])
        return found

    monkeypatch.setattr(KVCache, "stored", stored)
    plain = hidden(folder, None, tokens)
    assert not seen
    same = hidden(folder, cache("f32"), tokens)
    np.testing.assert_array_equal(same, plain)
    layers, own = layers_of(folder)
    assert len(seen) == layers
    seen.clear()
    rounded = hidden(folder, cache("q4_0"), tokens)
    apart = np.sqrt(np.square(rounded - plain).mean() / np.square(plain).mean())
    assert 1e-4 < apart < 1
    distinct = {parts[0].tobytes() for parts in seen}
    assert len(seen) == layers and len(distinct) == own


def test_models_without_a_cache_are_not_touched_by_those_with_one(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "gemma-3-tiny", TINY, seed=4)
    tokens = np.random.default_rng(1).integers(0, 300, (1, 20))
    found = [hidden(folder, kv, tokens) for kv in (None, cache("q4_0"), cache("q8_0"), None, cache("q4_0"))]
    np.testing.assert_array_equal(found[0], found[3])
    np.testing.assert_array_equal(found[1], found[4])
    assert all((a != b).any() for a, b in itertools.combinations(found[:3], 2))
