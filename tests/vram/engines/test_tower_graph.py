"""Graphs of towers: compute buffers as llama.cpp's log prints them, and llama.cpp itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import clip
import sparse_towers
from gemmaq.models.gemma4 import sizes as gemma4
from gemmaq.models.towers_config import Encoder
from gemmaq.vram.engines.ggml_allocator import buffer_bytes
from gemmaq.vram.engines.tower_graph import image, sound
from memory import MIB
from oracles import need

SIZES = {size.name.removesuffix("-A4B"): size for size in gemma4.SIZES}
LOGGED = {
    "gemma-4-E2B": ((101.27, 430.78, 443.05), (276.77, 4540.9, 4798.91)),
    "gemma-4-12B": ((13.53, 57.46, 59.1), (13.53, 57.46, 59.1)),
    "gemma-4-26B": ((150.63, 640.75, 658.99), (381.39, 6107.16, 6452.66)),
}
"""MiB of llama.cpp's log for images of 256, 1089 and 1120 tokens, with flash attention and without."""
TOKENS = (256, 1089, 1120)
PIXELS = [(768, 768), (1584, 1584), (1920, 1344)]


def images(name: str, *, flash: bool) -> list[float]:
    size = SIZES[name]
    assert size.towers_config is not None and size.towers_config.sees is not None
    tower, hidden = size.towers_config.sees, size.config.hidden_size
    return [buffer_bytes(image(tower, hidden, tokens, flash=flash)) / MIB for tokens in TOKENS]


def sounds(name: str, *frames: int) -> list[float]:
    size = SIZES[name]
    tower = size.towers_config and size.towers_config.hears
    return [buffer_bytes(sound(tower, size.config.hidden_size, count)) / MIB for count in frames] if tower else []


@pytest.mark.parametrize("name", LOGGED)
def test_buffers_for_images_are_those_of_llama_cpp(name: str) -> None:
    for flash, logged in zip((True, False), LOGGED[name], strict=True):
        assert images(name, flash=flash) == pytest.approx(logged, abs=0.00501)


def test_buffers_for_sound_are_those_of_llama_cpp() -> None:
    made = sounds("gemma-4-E2B", 3000, 6000) + sounds("gemma-4-12B", 3000)
    assert made == pytest.approx([101.19, 202.34, 58.59], abs=0.00501)


@pytest.mark.oracle
@pytest.mark.parametrize("name", sparse_towers.SHAPES)
def test_llama_cpp_itself(name: str, tmp_path: Path, require: Callable[[bool, str], None]) -> None:
    """What is reserved when an mmproj file is loaded, and for larger images."""
    need(require, "xllamacpp", "gguf")
    size = sparse_towers.write(tmp_path / "mmproj.gguf", sparse_towers.SHAPES[name])
    for flash in (True, False):
        found = clip.reserved(tmp_path / "mmproj.gguf", PIXELS, flash=flash)
        ours = images(name, flash=flash)
        assert found["weights"][0] == pytest.approx(size / MIB, abs=0.00501)
        assert found["prepared"] == pytest.approx([ours[0], *sounds(name, 3000)], abs=0.00501)
        assert found["images"] == pytest.approx(ours, abs=0.00501)


@pytest.mark.oracle
@pytest.mark.parametrize("sizes", [(128, 256, 2, 2), (288, 304, 2, 4), (64, 1024, 3, 1)], ids=str)
def test_towers_of_other_widths(
    sizes: tuple[int, int, int, int], tmp_path: Path, require: Callable[[bool, str], None]
) -> None:
    """Where pixels take more than layers, and where they do not."""
    need(require, "xllamacpp", "gguf")
    tower = Encoder(*sizes, patches=2520, tokens=280, inputs=768)
    sparse_towers.write(tmp_path / "mmproj.gguf", sparse_towers.Shape(256, sparse_towers.Tower(*sizes)))
    for flash in (True, False):
        ours = [buffer_bytes(image(tower, 256, tokens, flash=flash)) / MIB for tokens in TOKENS]
        theirs = clip.reserved(tmp_path / "mmproj.gguf", PIXELS, flash=flash)["images"]
        assert theirs == pytest.approx(ours, abs=0.00501)
