"""Models in types, by name, for estimates of memory."""

from __future__ import annotations

from functools import cache

from gemmaq import vram
from gemmaq.containers import gguf
from gemmaq.models.families import require_size
from gemmaq.vram.weights import Build, builds, checkpoint_of

LLAMA = vram.find("llama.cpp")


@cache
def build(name: str, quant: str = "q4_0") -> Build:
    """A published size as a GGUF file holds it."""
    return builds(checkpoint_of(require_size(name)), gguf.FORMAT, [quant], None)[0]
