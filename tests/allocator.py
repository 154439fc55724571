"""What llama.cpp's own allocator says: dry runs on files that have a header and a hole for the weights."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gemmaq.encodings import ENCODINGS
from gemmaq.gemma import gguf_keys, names
from gemmaq.gemma.config import TextConfig
from gemmaq.plan import Plan

GGML_TYPES = {name: ENCODINGS[name].ggml_type for name in ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")}


def sparse_gguf(path: Path, config: TextConfig, plan: Plan) -> Path:
    """A GGUF file of a plan's types and sizes, written by gguf-py, with a hole where its weights would be."""
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
        import numpy as np

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
class Allocation:
    """MiB as llama.cpp's log prints them."""

    model: float
    kv_global: float
    kv_local: float
    output: float
    compute: float


_SIZES = {
    "model": r"model buffer size =\s+([\d.]+) MiB",
    "output": r"output buffer size =\s+([\d.]+) MiB",
    "compute": r"compute buffer size =\s+([\d.]+) MiB",
}
_KV = re.compile(r"llama_kv_cache: size =\s+([\d.]+) MiB")


class Allocator:
    """A model loaded without its weights; make one with `load`."""

    def __init__(self, library: ctypes.CDLL, model: int, log: list[str]) -> None:
        self._library, self._model, self._log = library, model, log
        self._loaded = "".join(log)

    def allocate(
        self,
        context: int,
        kv: tuple[str, str] = ("f16", "f16"),
        *,
        slots: int = 1,
        unified: bool = True,
        ubatch: int = 512,
        batch: int = 2048,
        flash: bool = True,
        swa_full: bool = False,
        outputs: int | None = None,
    ) -> Allocation | None:
        """What a context takes, None where llama.cpp refuses it; `outputs` None is the server's, 0 the library's."""
        params = self._library.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = context, max(batch, ubatch), ubatch, slots
        params.n_outputs_max = slots if outputs is None else outputs
        params.flash_attn_type = int(flash)
        params.type_k, params.type_v = (GGML_TYPES[name] for name in kv)
        params.swa_full, params.kv_unified = swa_full, unified
        self._log.clear()
        made = self._library.llama_init_from_model(self._model, params)
        if not made:
            return None
        self._library.llama_free(made)
        text = "".join(self._log)
        caches = [float(size) for size in _KV.findall(text)]
        found = {
            part: sum(float(size) for size in re.findall(pattern, self._loaded if part == "model" else text))
            for part, pattern in _SIZES.items()
        }
        return Allocation(kv_global=caches[0], kv_local=caches[1], **found)


@contextmanager
def load(path: Path) -> Iterator[Allocator]:
    """Load a GGUF file in llama.cpp without reading or allocating its weights."""
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
        ("free", None, [ctypes.c_void_p]),
        ("model_free", None, [ctypes.c_void_p]),
    ):
        function = getattr(own, f"llama_{name}")
        function.restype, function.argtypes = result, arguments
    own.llama_log_set(listen, None)
    params = own.llama_model_default_params()
    params.no_alloc, params.load_mode = True, 0
    model = own.llama_model_load_from_file(str(path).encode(), params)
    assert model, "".join(log)[-2000:]
    try:
        yield Allocator(own, model, log)
    finally:
        own.llama_model_free(model)
        own.llama_log_set(oracles.silence, None)
