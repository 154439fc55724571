"""What llama.cpp's own allocator says: dry runs on files that have a header and a hole for the weights.

Offsets in its structures are those of llama.cpp v0.5.0, which the npm package brings.
"""

from __future__ import annotations

import ctypes
import itertools
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gemmaq import vram
from gemmaq.containers import gguf
from gemmaq.encodings import ENCODINGS
from gemmaq.errors import UsageError
from gemmaq.models.config import TextConfig
from gemmaq.models.families import of_size
from gemmaq.models.family import Family
from gemmaq.models.size import Size
from gemmaq.planning import recipe
from gemmaq.planning.plan import Plan
from gemmaq.planning.planner import make_plan
from gemmaq.planning.request import Request
from gemmaq.vram.weights import checkpoint_of

GGML_TYPES = {
    name: ENCODINGS[name].ggml_type for name in ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
}


def file_of(size: Size, path: Path, quant: str = "q4_0", embedding: str | None = None) -> Path:
    """A file as gemmaq would write it of a size, with a hole where its weights would be."""
    wanted = Request(recipe.of(quant, embedding=embedding, method="nearest"), ("gguf",), mmproj=None)
    return sparse_gguf(path, of_size(size), size.config, make_plan(checkpoint_of(size), wanted, gguf.FORMAT))


def sparse_gguf(path: Path, family: Family, config: TextConfig, plan: Plan) -> Path:
    """A GGUF file of a plan's types and sizes, written by gguf-py, with a hole where its weights would be."""
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter

    architecture = family.gguf.ARCHITECTURE
    writer = GGUFWriter(path, architecture)
    for key, value in family.gguf.from_config(config).items():
        name = f"{architecture}.{key}"
        if isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        elif isinstance(value, (list, tuple)):
            writer.add_array(name, list(value))
        else:
            writer.add_uint32(name, value)
    writer.add_uint32(f"{architecture}.vocab_size", config.vocab_size)
    writer.add_string("tokenizer.ggml.model", "no_vocab")
    for tensor in plan.tensors:
        kind = GGMLQuantizationType(tensor.encoding.ggml_type)
        shape = (*tensor.source.shape[:-1], tensor.encoding.row_bytes(tensor.source.columns))
        writer.add_tensor_info(family.names.to_gguf(tensor.source.name), shape, np.dtype(np.uint8), tensor.nbytes, kind)
    for name, values in family.gguf.generated(config).items():
        writer.add_tensor_info(name, values.shape, values.dtype, values.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    head = -(-path.stat().st_size // 32) * 32
    with path.open("r+b") as file:
        file.truncate(head + plan.tensor_bytes + 32 * (len(plan.tensors) + len(plan.generated)))
    return path


class _ModelParams(ctypes.Structure):
    """llama_model_params of llama.cpp v0.5.0, as far as it is set here."""

    _fields_ = (
        ("head", ctypes.c_byte * 24),
        ("load_mode", ctypes.c_int32),
        ("pointers", ctypes.c_byte * 48),
        ("no_alloc", ctypes.c_bool),
        ("rest", ctypes.c_byte * 179),
    )


class _ContextParams(ctypes.Structure):
    """llama_context_params of llama.cpp v0.5.0, as far as it is set here."""

    _fields_ = (
        ("n_ctx", ctypes.c_uint32),
        ("n_batch", ctypes.c_uint32),
        ("n_ubatch", ctypes.c_uint32),
        ("n_seq_max", ctypes.c_uint32),
        ("n_rs_seq", ctypes.c_uint32),
        ("n_outputs_max", ctypes.c_uint32),
        ("middle", ctypes.c_byte * 12),
        ("ctx_type", ctypes.c_int32),
        ("rope_and_pooling", ctypes.c_byte * 12),
        ("flash_attn_type", ctypes.c_int32),
        ("rope", ctypes.c_byte * 48),
        ("type_k", ctypes.c_int32),
        ("type_v", ctypes.c_int32),
        ("abort", ctypes.c_byte * 16),
        ("embeddings", ctypes.c_bool),
        ("offload_kqv", ctypes.c_bool),
        ("no_perf", ctypes.c_bool),
        ("op_offload", ctypes.c_bool),
        ("swa_full", ctypes.c_bool),
        ("kv_unified", ctypes.c_bool),
        ("samplers", ctypes.c_void_p),
        ("n_samplers", ctypes.c_size_t),
        ("ctx_other", ctypes.c_void_p),
        ("rest", ctypes.c_byte * 96),
    )


class _Sampler(ctypes.Structure):
    """llama_sampler_seq_config."""

    _fields_ = (("sequence", ctypes.c_int32), ("sampler", ctypes.c_void_p))


@dataclass(frozen=True, slots=True)
class Setting:
    """How a model is loaded: as llama-server does it, or with the library's default of logits for a whole batch."""

    context: int
    kv: tuple[str, str] = ("f16", "f16")
    slots: int = 1
    unified: bool = True
    ubatch: int = 512
    flash: bool = True
    swa_full: bool = False
    library: bool = False

    @property
    def mode(self) -> tuple[str, str]:
        """Who runs it, and with which attention."""
        return ("library" if self.library else "server", "flash on" if self.flash else "flash off")

    def estimate(self, config: TextConfig, drafter: TextConfig | None = None) -> vram.Estimate | None:
        """What gemmaq says of it, beside a drafter or alone, None where it refuses."""
        engine = vram.find("libllama" if self.library else "llama.cpp")
        beside = None if drafter is None else vram.Model("a drafter", drafter, 0, 0)
        load = vram.Load(
            self.context, self.kv, self.slots, self.ubatch, self.flash, swa_full=self.swa_full, unified=self.unified
        )
        try:
            return vram.estimate(engine, vram.Model("a model", config, 0, 0, drafter=beside), load)
        except UsageError:
            return None


_TYPES = ("f16", "q8_0", "q4_0", "f32", "bf16")
_PAIRS = (*((kind, kind) for kind in _TYPES), ("q8_0", "f16"), ("f16", "q8_0"), ("q5_1", "q4_1"))
_CONTEXTS = (256, 1000, 2048, 4096, 8192, 32768, 131072)
_SLOTS = ((1, True), (2, True), (4, True), (4, False), (3, False))


def grid(longest: int) -> list[Setting]:
    """About four thousand settings, for a model of that longest context."""
    contexts = [context for context in _CONTEXTS if context <= longest]
    turns = (False, True)
    return [
        Setting(context, kv, slots, unified, ubatch, flash, full, library)
        for context, kv, (slots, unified), ubatch, flash, full, library in itertools.product(
            contexts, _PAIRS, _SLOTS, (128, 512, 2048), turns, turns, turns
        )
        if not library or (slots in (1, 3) and ubatch != 128)
    ]


def cache_grid() -> list[Setting]:
    """432 settings of the cache, of which a quarter are refused: V is quantized without flash attention."""
    pairs = (("f16", "f16"), ("q8_0", "q8_0"), ("q4_0", "f16"), ("f32", "q4_1"))
    slots = ((1, False), (4, True), (4, False))
    turns = (False, True)
    return [
        Setting(context, kv, count, unified, ubatch, flash, full)
        for context, kv, (count, unified), ubatch, full, flash in itertools.product(
            (1000, 8192, 65536), pairs, slots, (256, 512, 2048), turns, turns
        )
    ]


def compute_grid() -> list[Setting]:
    """48 settings of the compute buffer, a quarter of them of a server with flash attention."""
    turns = (False, True)
    return [
        Setting(context, ubatch=ubatch, flash=flash, library=library)
        for context, ubatch, flash, library in itertools.product(
            (2048, 8192, 32768, 131072), (256, 512, 2048), turns, turns
        )
    ]


def scattered(longest: int, chance: random.Random) -> Iterator[Setting]:
    """Settings without end, of odd numbers as well."""
    types = tuple(GGML_TYPES)
    while True:
        context = chance.choice([chance.randint(1, min(limit, longest)) for limit in (64, 1024, 8192, longest)])
        kind = chance.choice(types)
        yield Setting(
            context,
            (kind, chance.choice((kind, *types))),
            min(context, chance.choice((1, 2, 3, 5, 7, 8, 33))),
            chance.random() < 0.5,
            chance.choice((1, 7, 64, 100, 512, 1000, 2048, 3000)),
            chance.random() < 0.6,
            chance.random() < 0.3,
            chance.random() < 0.3,
        )


@dataclass(frozen=True, slots=True)
class Allocation:
    """MiB as llama.cpp's log prints them, to two places; caches of a drafter are its target's."""

    kv_global: float
    kv_local: float
    output: float
    compute: float

    def away(self, estimate: vram.Estimate) -> tuple[float, float]:
        """MiB by which an estimate is off, of the two caches and of the compute buffer."""
        caches = (estimate.kv_global - self.kv_global * MIB, estimate.kv_local - self.kv_local * MIB)
        return max(caches, key=abs) / MIB, estimate.compute / MIB - self.compute


MIB = 1 << 20
PRINTED = 0.00501
"""MiB within which a figure and its two printed places agree."""

_OUTPUT = re.compile(r"output buffer size =\s+([\d.]+) MiB")
COMPUTE = re.compile(r"compute buffer size =\s+([\d.]+) MiB")
_KV = re.compile(r"llama_kv_cache: size =\s+([\d.]+) MiB")


class Allocator:
    """A model in llama.cpp, with its weights or without; make one with `load`."""

    def __init__(self, library: ctypes.CDLL, model: int, log: list[str]) -> None:
        self._library, self._model, self._log = library, model, log

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return int(self._library.llama_model_size(self._model))

    def allocate(self, setting: Setting) -> Allocation | None:
        """What a context takes, None where llama.cpp refuses it."""
        made, found = self._made(setting, outputs=0 if setting.library else setting.slots)
        if made:
            self._library.llama_free(made)
        return found

    def allocate_drafter(self, target: Allocator, setting: Setting) -> tuple[Allocation, Allocation] | None:
        """What a context of the target takes, and beside it one of the model, its drafter, that proposes 3 tokens."""
        other, found = self._made(setting, outputs=4 * setting.slots, model=target._model)
        if found is None:
            return None
        made, drafter = self._made(setting, outputs=setting.slots, target=other)
        assert drafter is not None and "KV buffer" not in "".join(self._log), "".join(self._log)[-2000:]
        for context in (made, other):
            self._library.llama_free(context)
        return found, drafter

    def _made(
        self, setting: Setting, *, outputs: int, model: int | None = None, target: int | None = None
    ) -> tuple[int | None, Allocation | None]:
        """A context of a model or of its own, and what it takes; Nones where llama.cpp refuses it."""
        params = self._library.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.n_ubatch = setting.context, setting.slots, setting.ubatch
        params.n_batch = max(2048, setting.ubatch)
        params.n_outputs_max = outputs
        params.flash_attn_type = int(setting.flash)
        params.type_k, params.type_v = (GGML_TYPES[name] for name in setting.kv)
        params.swa_full, params.kv_unified = setting.swa_full, setting.unified
        params.ctx_type, params.ctx_other = int(target is not None), target
        samplers = self._samplers(setting.slots if target else 0)
        params.samplers, params.n_samplers = ctypes.addressof(samplers), len(samplers)
        self._log.clear()
        made = self._library.llama_init_from_model(model or self._model, params)
        if not made:
            return None, None
        text = "".join(self._log)
        kv_global, kv_local = map(float, _KV.findall(text))
        (output,), (compute,) = (map(float, pattern.findall(text)) for pattern in (_OUTPUT, COMPUTE))
        return made, Allocation(kv_global, kv_local, output, compute)

    def _samplers(self, count: int) -> ctypes.Array[_Sampler]:
        """What chooses a drafter's tokens in the graph, for each sequence."""
        made = (_Sampler * count)()
        for sequence, entry in enumerate(made):
            chain = self._library.llama_sampler_chain_init(False)
            self._library.llama_sampler_chain_add(chain, self._library.llama_sampler_init_top_k(10))
            entry.sequence, entry.sampler = sequence, chain
        return made


@contextmanager
def load(path: Path, *, for_real: bool = False) -> Iterator[Allocator]:
    """Load a GGUF file in llama.cpp; unless for real, nothing is read but its header, and nothing allocated."""
    import oracles

    library = oracles.llama()
    log: list[str] = []

    @ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
    def listen(level: int, text: bytes, data: int) -> None:
        log.append(text.decode(errors="replace"))

    own = ctypes.CDLL(library._name)
    for name, result, arguments in (
        ("model_default_params", _ModelParams, []),
        ("context_default_params", _ContextParams, []),
        ("model_load_from_file", ctypes.c_void_p, [ctypes.c_char_p, _ModelParams]),
        ("init_from_model", ctypes.c_void_p, [ctypes.c_void_p, _ContextParams]),
        ("model_size", ctypes.c_uint64, [ctypes.c_void_p]),
        ("free", None, [ctypes.c_void_p]),
        ("model_free", None, [ctypes.c_void_p]),
        ("sampler_chain_init", ctypes.c_void_p, [ctypes.c_bool]),
        ("sampler_init_top_k", ctypes.c_void_p, [ctypes.c_int32]),
        ("sampler_chain_add", None, [ctypes.c_void_p, ctypes.c_void_p]),
    ):
        function = getattr(own, f"llama_{name}")
        function.restype, function.argtypes = result, arguments
    own.llama_log_set(listen, None)
    params = own.llama_model_default_params()
    params.no_alloc, params.load_mode = not for_real, 0
    model = own.llama_model_load_from_file(str(path).encode(), params)
    assert model, "".join(log)[-2000:]
    try:
        yield Allocator(own, model, log)
    finally:
        own.llama_model_free(model)
        own.llama_log_set(oracles.silence, None)
