"""How much memory a model takes while it runs: one memory model per engine, and what publishers state.

An engine is a file of `engines/` with one name, ENGINE, and an entry of `_MODULES`; `find` returns it. It turns a
`Model` and a `Load`, the settings of a run, into an `Estimate`. Nothing here opens a file: `vram.weights` counts the
bytes of a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from gemmaq.errors import UsageError, unknown
from gemmaq.models.config import Layer, TextConfig
from gemmaq.models.towers_config import Encoder, TowersConfig
from gemmaq.vram.kv_costs import KVCost


@dataclass(frozen=True, slots=True)
class Model:
    """A model to run.

    Attributes:
        name: Name that the user calls it by.
        config: Dimensions of the text model.
        weights: Bytes of the text model's tensors as the engine holds them.
        embedding: Bytes of the embedding, which are part of `weights`.
        layer_table: Bytes of the embeddings of every layer, which are part of `weights`; 0 without such a table.
        towers: Bytes of the towers and their projectors as the engine holds them, 0 for a text-only model.
        towers_config: Dimensions of the towers, None for a text-only model.
        encoder: Whether it turns texts into vectors instead of continuing them: it has no cache.
        drafter: Model that proposes tokens for it and reads its cache, None for none.
        by_layer: Bytes of every layer's tensors, of which the rest of the text model are embeddings and the last norm;
            empty where they are not known.
        experts: Bytes of every layer's experts, which are part of `by_layer`.
        largest: Bytes of the largest matrix of a layer, experts not counted.
    """

    name: str
    config: TextConfig
    weights: int
    embedding: int
    layer_table: int = 0
    towers: int = 0
    towers_config: TowersConfig | None = None
    encoder: bool = False
    drafter: Model | None = None
    by_layer: tuple[int, ...] = ()
    experts: tuple[int, ...] = ()
    largest: int = 0

    @property
    def sees(self) -> Encoder | None:
        """Encoder of images, None for a model without."""
        return None if self.towers_config is None else self.towers_config.sees

    @property
    def hears(self) -> Encoder | None:
        """Encoder of sound, None for a model without."""
        return None if self.towers_config is None else self.towers_config.hears

    @property
    def global_layers(self) -> tuple[Layer, ...]:
        """Layers that attend to the whole context and have a cache of their own."""
        return self._cached(local=False)

    @property
    def local_layers(self) -> tuple[Layer, ...]:
        """Layers with a sliding window and a cache of their own."""
        return self._cached(local=True)

    def _cached(self, *, local: bool) -> tuple[Layer, ...]:
        layers = () if self.encoder else self.config.layers
        return tuple(layer for layer in layers if layer.is_local == local and layer.kv_from is None)


@dataclass(frozen=True, slots=True)
class Load:
    """Settings of a run; None stands for the engine's own default.

    Attributes:
        context: Tokens of context, as the engine's own option counts them.
        kv_types: Types of the K cache and of the V cache.
        parallel: Sequences that run at a time.
        ubatch: Tokens that are computed at a time.
        flash_attention: Whether attention is computed without storing its scores.
        swa_full: Whether sliding-window layers keep the whole context (llama.cpp).
        unified: Whether all sequences share one cache (llama.cpp).
        vision: Whether the towers are loaded, for images and for sound.
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
    """Bytes that a running model takes on the accelerator and in main memory.

    Attributes:
        weights: Tensors of the text model.
        kv_global: KV cache of the layers that attend to the whole context.
        kv_local: KV cache of the sliding-window layers.
        compute: Scratch memory of the text model for one batch, logits included.
        vision_weights: Towers and projectors, for images and for sound.
        vision_compute: Scratch memory for one image, and for one sound.
        draft_weights: Tensors of the drafter.
        draft_compute: Scratch memory of the drafter for one batch.
        overhead: Memory of the driver and the framework, a round figure that the engine has no say in.
        host: Main memory; not part of the total.
        notes: Assumptions behind the figures, a sentence each, and what else is worth to know.
        kv_cost: What the types of the cache cost in quality, None where it was not measured.
    """

    weights: int
    kv_global: int
    kv_local: int
    compute: int
    vision_weights: int = 0
    vision_compute: int = 0
    draft_weights: int = 0
    draft_compute: int = 0
    overhead: int = 0
    host: int = 0
    notes: tuple[str, ...] = ()
    kv_cost: KVCost | None = None

    @property
    def vision(self) -> int:
        """Bytes of the towers, weights and scratch memory."""
        return self.vision_weights + self.vision_compute

    @property
    def draft(self) -> int:
        """Bytes of the drafter, weights and scratch memory; it has no cache of its own."""
        return self.draft_weights + self.draft_compute

    @property
    def kv(self) -> int:
        """Bytes of the whole KV cache."""
        return self.kv_global + self.kv_local

    @property
    def total(self) -> int:
        """Bytes of everything on the accelerator."""
        return self.weights + self.vision + self.draft + self.kv + self.compute + self.overhead


@dataclass(frozen=True, slots=True)
class Engine:
    """A runtime and its memory model.

    Attributes:
        name: Name as users type it.
        title: Name as its makers write it.
        container: Container that it loads: `gguf`, `mlx` or `safetensors`.
        quants: Types worth comparing, from the largest to the smallest.
        kv_types: Types that the K cache and the V cache can have.
        kv_default: Type of the cache unless one is chosen.
        supports_vision: Whether it can run the towers of a model.
        vision_by_default: Whether it loads the towers without being asked to.
        options: Fields of `Load` that it knows beyond context, kv_types, parallel and vision.
        estimate: Memory model; raises UsageError for what the runtime refuses.
        share: Part of a card's memory that it takes at most.
        kv_reason: Reason why its cache has no other types, where that surprises.
        encodes: Whether its memory model knows models that turn texts into vectors.
        drafts: Whether its memory model knows drafters.
        drafts_by_default: Whether it loads the drafter of a model without being asked to.
    """

    name: str
    title: str
    container: str
    quants: tuple[str, ...]
    kv_types: tuple[str, ...]
    kv_default: str
    supports_vision: bool
    vision_by_default: bool
    options: frozenset[str]
    estimate: Callable[[Model, Load], Estimate]
    share: float = 1.0
    kv_reason: str = ""
    encodes: bool = False
    drafts: bool = False
    drafts_by_default: bool = False


_MODULES = {
    "llama.cpp": "llama_cpp",
    "libllama": "libllama",
    "ollama": "ollama",
    "lmstudio": "lmstudio",
    "mlx": "mlx",
    "transformers": "transformers",
    "vllm": "vllm",
}
"""Name of an engine -> its file in `engines/`."""
NAMES = tuple(_MODULES)


def find(name: str) -> Engine:
    """Engine that a user means.

    Raises:
        UsageError: There is no engine of that name.
    """
    wanted = name.lower().replace("_", "").replace(" ", "").removesuffix("-lm")
    wanted = {"llamacpp": "llama.cpp", "llama-server": "llama.cpp", "lm-studio": "lmstudio"}.get(wanted, wanted)
    if wanted not in _MODULES:
        raise unknown("engine", name, _MODULES)
    engine: Engine = import_module(f"{__name__}.engines.{_MODULES[wanted]}").ENGINE
    return engine


def longest(model: Model, load: Load) -> int:
    """Largest context in tokens: the model's own, once for every sequence where each has a cache of its own."""
    return model.config.max_position_embeddings * (load.parallel if load.unified is False else 1)


def estimate(engine: Engine, model: Model, load: Load) -> Estimate:
    """Memory that a model takes in an engine.

    Raises:
        UsageError: The model or the engine does not support these settings.
    """
    _check(engine, model, load)
    return engine.estimate(model, load)


def kv_types(text: str) -> tuple[str, str]:
    """Types of the K cache and of the V cache as users write them: `q8_0` for both, or `q8_0,q4_0`."""
    k, _, v = text.lower().partition(",")
    return k.strip(), v.strip() or k.strip()


def require_kv_types(engine: Engine, kinds: tuple[str, str]) -> None:
    """Refuse types that the cache of an engine cannot have.

    Raises:
        UsageError: It cannot.
    """
    for kind in kinds:
        if kind not in engine.kv_types:
            raise UsageError(
                f"{engine.title} has no KV cache of type {kind!r}",
                f"choose one of {', '.join(engine.kv_types)}{engine.kv_reason and f' ({engine.kv_reason})'}",
            )


def require_drafts(engine: Engine) -> None:
    """Refuse a drafter where an engine's memory model knows none.

    Raises:
        UsageError: It does not.
    """
    if not engine.drafts:
        raise UsageError(
            f"the memory of a drafter in {engine.title} is not known", "leave out --draft, or take --engine llama.cpp"
        )


def _check(engine: Engine, model: Model, load: Load) -> None:
    if load.parallel < 1 or (load.ubatch is not None and load.ubatch < 1):
        raise UsageError("--parallel and --ubatch are at least 1")
    if not 1 <= load.context <= longest(model, load):
        raise UsageError(
            f"{model.name} has no context of {load.context} tokens", f"choose 1 to {longest(model, load)} tokens"
        )
    require_kv_types(engine, load.kv_types)
    if model.encoder and not engine.encodes:
        raise UsageError(
            f"{model.name} turns texts into vectors; its memory in {engine.title} is not known",
            "take llama.cpp: --engine llama.cpp",
        )
    if model.drafter is not None:
        require_drafts(engine)
    if load.vision and not engine.supports_vision:
        raise UsageError(f"{engine.title} runs the text side only", "leave out --vision")
    if load.vision and model.towers_config is None:
        raise UsageError(f"{model.name} has no towers for images or sound", "leave out --vision")
    for field in ("ubatch", "swa_full", "unified"):
        if getattr(load, field) is not None and field not in engine.options:
            raise UsageError(f"{engine.title} has no option {field.replace('_', '-')}", "leave it out")
    if not load.flash_attention and "flash_attention" not in engine.options:
        raise UsageError(f"{engine.title} has no switch for flash attention", "leave it out")
