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
from gemmaq.encodings import ENCODINGS
from gemmaq.errors import UsageError
from gemmaq.models.gemma3 import gguf_keys, names
from gemmaq.models.gemma3.config import TextConfig
from gemmaq.planning.plan import Plan

GGML_TYPES = {
    name: ENCODINGS[name].ggml_type for name in ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
}


def sparse_gguf(path: Path, config: TextConfig, plan: Plan) -> Path:
    """A GGUF file of a plan's types and sizes, written by gguf-py, with a hole where its weights would be."""
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter

    writer = GGUFWriter(path, gguf_keys.ARCHITECTURE)
    for key, value in gguf_keys.from_config(config).items():
        name = f"{gguf_keys.ARCHITECTURE}.{key}"
        if isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        elif isinstance(value, list):
            writer.add_array(name, value)
        else:
            writer.add_uint32(name, value)
    writer.add_uint32(f"{gguf_keys.ARCHITECTURE}.vocab_size", config.vocab_size)
    writer.add_string("tokenizer.ggml.model", "no_vocab")
    for tensor in plan.tensors:
        kind = GGMLQuantizationType(tensor.encoding.ggml_type)
        shape = (*tensor.source.shape[:-1], tensor.encoding.row_bytes(tensor.source.columns))
        writer.add_tensor_info(names.to_gguf(tensor.source.name), shape, np.dtype(np.uint8), tensor.nbytes, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    head = -(-path.stat().st_size // 32) * 32
    with path.open("r+b") as file:
        file.truncate(head + sum(-(-tensor.nbytes // 32) * 32 for tensor in plan.tensors))
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
        ("middle", ctypes.c_byte * 28),
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
        ("rest", ctypes.c_byte * 122),
    )


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

    def estimate(self, config: TextConfig) -> vram.Estimate | None:
        """What gemmaq says of it, None where it refuses."""
        engine = vram.find("libllama" if self.library else "llama.cpp")
        load = vram.Load(
            self.context, self.kv, self.slots, self.ubatch, self.flash, swa_full=self.swa_full, unified=self.unified
        )
        try:
            return vram.estimate(engine, vram.Model("a model", config, 0, 0), load)
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
    """MiB as llama.cpp's log prints them, to two places."""

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
_COMPUTE = re.compile(r"compute buffer size =\s+([\d.]+) MiB")
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
        params = self._library.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.n_ubatch = setting.context, setting.slots, setting.ubatch
        params.n_batch = max(2048, setting.ubatch)
        params.n_outputs_max = 0 if setting.library else setting.slots
        params.flash_attn_type = int(setting.flash)
        params.type_k, params.type_v = (GGML_TYPES[name] for name in setting.kv)
        params.swa_full, params.kv_unified = setting.swa_full, setting.unified
        self._log.clear()
        made = self._library.llama_init_from_model(self._model, params)
        if not made:
            return None
        self._library.llama_free(made)
        text = "".join(self._log)
        kv_global, kv_local = map(float, _KV.findall(text))
        (output,), (compute,) = (map(float, pattern.findall(text)) for pattern in (_OUTPUT, _COMPUTE))
        return Allocation(kv_global, kv_local, output, compute)


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
