"""Kept activations: what makes an entry, which ones go, and where they are."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from gemmaq.evaluate import cache
from gemmaq.sources.open import open_source
from synthetic import TINY, write_checkpoint


def test_other_tokens_weights_or_files_are_other_entries(pair, some, tmp_path):
    tokens = some.tokens
    folder = write_checkpoint(tmp_path / "gemma-3-tiny", TINY)
    model = open_source(str(folder))
    keys = [cache.key(model, tokens, "cpu"), cache.key(model, tokens[:3], "cpu"), cache.key(model, tokens, "cuda")]
    keys += [cache.key(model, tokens.reshape(14, -1), "cpu"), cache.key(pair[1], tokens, "cpu")]
    keys.append(cache.key(replace(model, config=replace(model.config, rope_factor=8.0)), tokens, "cpu"))
    path = folder / "model.safetensors"
    os.utime(path, ns=(1, 1))
    keys.append(cache.key(model, tokens, "cpu"))
    assert len(set(keys)) == len(keys)
    assert cache.key(model, tokens, "cpu") == keys[-1]


def test_the_oldest_entries_go(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "LIMIT", 3000)
    array = np.zeros((2, 100), np.float32)
    for at, name in enumerate("abc"):
        cache.store(tmp_path, name, array)
        if name != "c":
            os.utime(tmp_path / f"{name}.npy", (at, at))
    (tmp_path / "left.partial").write_bytes(bytes(100))
    os.utime(tmp_path / "left.partial", (0, 0))
    assert cache.load(tmp_path, "a", array.shape) is not None  # used last of all
    cache.store(tmp_path, "d", array)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "c.npy", "d.npy"]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3000
    cache.store(tmp_path, "huge", np.zeros((2, 1000), np.float32))
    assert not (tmp_path / "huge.npy").exists()
    assert cache.load(tmp_path, "a", (3, 3)) is None


def test_the_cache_is_where_the_platform_has_them(monkeypatch, tmp_path):
    monkeypatch.setenv("GEMMAQ_CACHE", str(tmp_path))
    assert cache.default_folder() == tmp_path / "evaluate"
    monkeypatch.delenv("GEMMAQ_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    monkeypatch.setattr("sys.platform", "linux")
    assert cache.default_folder() == tmp_path / "x/gemmaq/evaluate"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache.default_folder() == Path.home() / "Library/Caches/gemmaq/evaluate"
