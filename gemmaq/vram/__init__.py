"""How much memory a model takes: one memory model per engine, and Google's published figures.

An engine module has one name, ENGINE; `find` gives it. What is to be run is a `Model`, how it is run a `Load`, and the
answer an `Estimate`. Nothing here opens a file: `vram.weights` says what a checkpoint weighs.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from gemmaq.errors import UsageError
from gemmaq.models.gemma3.config import TextConfig


@dataclass(frozen=True, slots=True)
class Model:
    """What is to be run.

    Attributes:
        name: what the user calls it.
        config: of the text model.
        weights: bytes of the text tensors as the engine holds them.
        embedding: bytes of the embedding among them.
        vision: bytes of the vision tower and projector as the engine holds them, 0 where there is none.
    """

    name: str
    config: TextConfig
    weights: int
    embedding: int
    vision: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """How it is run; None leaves a question to the engine's own default.

    Attributes:
        context: tokens, as the engine's own option counts them.
        kv_types: types of the K and the V cache.
        parallel: sequences at a time.
        ubatch: tokens computed at a time.
        flash_attention: whether attention is computed without storing the scores.
        swa_full: whether sliding-window layers keep the whole context (llama.cpp).
        unified: whether all sequences share one cache (llama.cpp).
        vision: whether the vision side is loaded.
    """

    context: int
    kv_types: tuple[str, str] = ("f16", "f16")
    parallel: int = 1
    ubatch: int | None = None
    flash_attention: bool = True
    swa_full: bool | None = None
    unified: bool | None = None
    vision: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes a running model takes on the accelerator, and beside it.

    Attributes:
        weights: the text tensors.
        kv_global: cache of the layers that see the whole context.
        kv_local: cache of the sliding-window layers.
        compute: scratch of the text model for one batch, logits included.
        vision_weights: vision tower and projector.
        vision_compute: scratch for one image.
        overhead: the driver's and the framework's own, a round figure and not the engine's to choose.
        host: main memory beside the accelerator's; not part of the total.
        notes: what the figures take for granted, a sentence each.
    """

    weights: int
    kv_global: int
    kv_local: int
    compute: int
    vision_weights: int = 0
    vision_compute: int = 0
    overhead: int = 0
    host: int = 0
    notes: tuple[str, ...] = ()

    @property
    def vision(self) -> int:
        """Everything the vision side takes."""
        return self.vision_weights + self.vision_compute

    @property
    def kv(self) -> int:
        """The whole cache."""
        return self.kv_global + self.kv_local

    @property
    def total(self) -> int:
        """All that is on the accelerator."""
        return self.weights + self.vision + self.kv + self.compute + self.overhead


@dataclass(frozen=True, slots=True)
class Engine:
    """A runtime and its memory model.

    Attributes:
        name: as users type it.
        title: as its makers write it.
        container: what it loads: `gguf`, `mlx` or `safetensors`.
        quants: types worth comparing, from the largest to the smallest.
        kv_types: types its cache can have, each for K and V.
        kv_default: the type it takes if nothing is said.
        sees: whether it loads the vision side of a multimodal model by itself; None where it cannot.
        options: the fields of Load it knows beyond context, kv_types, parallel and vision.
        estimate: the memory model; raises UsageError for what the runtime refuses.
        share: of a card's memory it lets itself use.
        kv_reason: why its cache has no other types, where that surprises.
    """

    name: str
    title: str
    container: str
    quants: tuple[str, ...]
    kv_types: tuple[str, ...]
    kv_default: str
    sees: bool | None
    options: frozenset[str]
    estimate: Callable[[Model, Load], Estimate]
    share: float = 1.0
    kv_reason: str = ""


_MODULES = {
    "llama.cpp": "llama_cpp",
    "libllama": "libllama",
    "ollama": "ollama",
    "lmstudio": "lmstudio",
    "mlx": "mlx",
    "transformers": "transformers",
    "vllm": "vllm",
}
NAMES = tuple(_MODULES)


def find(name: str) -> Engine:
    """The engine a user means.

    Raises:
        UsageError: there is none of that name.
    """
    wanted = name.lower().replace("_", "").replace(" ", "").removesuffix("-lm")
    wanted = {"llamacpp": "llama.cpp", "llama-server": "llama.cpp", "lm-studio": "lmstudio"}.get(wanted, wanted)
    if wanted not in _MODULES:
        near = difflib.get_close_matches(wanted, NAMES, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"unknown engine {name!r}", f"{hint}engines: {', '.join(NAMES)}")
    engine: Engine = import_module(f"{__name__}.engines.{_MODULES[wanted]}").ENGINE
    return engine


def longest(model: Model, load: Load) -> int:
    """The largest context: the model's own, as many times as there are sequences that share it out among them."""
    return model.config.max_position_embeddings * (load.parallel if load.unified is False else 1)


def estimate(engine: Engine, model: Model, load: Load) -> Estimate:
    """Memory of a model in an engine.

    Raises:
        UsageError: the model or the engine cannot do what is asked.
    """
    if load.parallel < 1 or (load.ubatch is not None and load.ubatch < 1):
        raise UsageError("--parallel and --ubatch are at least 1")
    if not 1 <= load.context <= longest(model, load):
        raise UsageError(
            f"a context of {load.context} tokens is impossible", f"{model.name} takes 1 to {longest(model, load)}"
        )
    for kind in load.kv_types:
        if kind not in engine.kv_types:
            raise UsageError(
                f"{engine.title} has no KV cache of type {kind!r} for Gemma 3",
                f"it has: {', '.join(engine.kv_types)}{engine.kv_reason and f' ({engine.kv_reason})'}",
            )
    if load.vision and engine.sees is None:
        raise UsageError(f"{engine.title} runs the text side only", "leave out --vision")
    if load.vision and not model.vision:
        raise UsageError(f"{model.name} has no vision side", "leave out --vision")
    for field in ("ubatch", "swa_full", "unified"):
        if getattr(load, field) is not None and field not in engine.options:
            raise UsageError(f"{engine.title} has no option {field.replace('_', '-')}", "leave it out")
    if not load.flash_attention and "flash_attention" not in engine.options:
        raise UsageError(f"{engine.title} has no switch for flash attention", "leave it out")
    return engine.estimate(model, load)
