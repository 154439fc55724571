"""Memory estimates for tests: by the library and by the command line, and a model whose layers differ."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from gemmaq import vram
from gemmaq.models.config import Layer, Rope
from gemmaq.models.families import require_size
from gemmaq.vram import Estimate, Load, Model
from inprocess import run

MIB = 1 << 20
GIB = 1 << 30
K = 1024


def at(model: str, context: int, engine: str = "llama.cpp", **options: object) -> Estimate:
    """Estimate for a size that weighs 1,000,000 bytes, a tenth of them embedding, and 500,000 for the vision side."""
    size = require_size(model)
    runtime = vram.find(engine)
    load = replace(Load(context, (runtime.kv_default,) * 2), **options)  # type: ignore[arg-type]
    vision = 500_000 if size.towers_config else 0
    loaded = Model(size.name, size.config, 1_000_000, 100_000, towers=vision, towers_config=size.towers_config)
    return vram.estimate(runtime, loaded, load)


def parts(estimate: Estimate) -> tuple[int, ...]:
    """Figures of an estimate, without its notes."""
    kv = (estimate.kv_global, estimate.kv_local)
    return (estimate.weights, *kv, estimate.compute, estimate.vision, estimate.overhead, estimate.host)


def estimates(*arguments: object) -> list[dict[str, Any]]:
    """Entries that `gemmaq estimate-vram --json` prints."""
    answer = json.loads(run("estimate-vram", *arguments, "--json").stdout)
    assert list(answer) == ["schema", "estimates"] and answer["schema"] == "gemmaq.estimate-vram/1"
    result: list[dict[str, Any]] = answer["estimates"]
    return result


@dataclass(frozen=True, slots=True)
class MixedConfig:
    """A text model of no known family: any layers beside each other."""

    layers: tuple[Layer, ...]
    hidden_size: int
    vocab_size: int = 262144
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1e-6
    final_logit_softcapping: float | None = None
    bos_token_id: int | None = 2
    eos_token_ids: tuple[int, ...] = (1,)
    pad_token_id: int | None = 0
    layer_embedding: int = 0
    streams: int = 1
    normed_values: bool = False

    @property
    def rope(self) -> Rope:
        return Rope(1e6, 1e4, 1.0)

    @property
    def num_hidden_layers(self) -> int:
        return len(self.layers)

    @property
    def layer_parameters(self) -> tuple[int, ...]:
        return tuple(
            self.hidden_size * (2 * layer.query_width + 2 * layer.kv_width + 3 * layer.ffn) for layer in self.layers
        )

    @property
    def parameters(self) -> int:
        return self.vocab_size * self.hidden_size + sum(self.layer_parameters)
