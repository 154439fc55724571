"""Real runtimes to compare with."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

import numpy as np

FILE_TYPES = {"q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "q6_k": 18}
"""llama.cpp's numbers of whole-file types."""


def ggml_folder() -> Path | None:
    """The llama.cpp libraries of the npm package @node-llama-cpp/linux-x64, under $GEMMAQ_ORACLES."""
    root = Path(os.environ.get("GEMMAQ_ORACLES", ".oracles"))
    folder = root / "node_modules/@node-llama-cpp/linux-x64/bins/linux-x64"
    return folder if folder.is_dir() else None


@cache
def _library(name: str) -> ctypes.CDLL:
    folder = ggml_folder()
    assert folder is not None
    if name != "libggml-base.so":
        _library("libggml-base.so")
    return ctypes.CDLL(str(next(folder.glob(name))), mode=ctypes.RTLD_GLOBAL)


def ggml_quantize(ggml_type: int, x: np.ndarray, row_bytes: int) -> np.ndarray:
    """Rows f32 [rows, columns] -> u8 [rows, row bytes] by ggml itself."""
    function = _library("libggml-base.so").ggml_quantize_chunk
    function.restype = ctypes.c_size_t
    size = ctypes.c_int64
    function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, size, size, size, ctypes.c_void_p]
    x = np.ascontiguousarray(x, np.float32)
    out = np.empty((x.shape[0], row_bytes), np.uint8)
    function(ggml_type, x.ctypes.data, out.ctypes.data, 0, x.shape[0], x.shape[1], None)
    return out


class _QuantizeParams(ctypes.Structure):
    """llama_model_quantize_params: threads, file type, and more than this test needs to know."""

    _fields_ = (("threads", ctypes.c_int32), ("file_type", ctypes.c_int32), ("rest", ctypes.c_byte * 248))


def llama_quantize(source: Path, target: Path, file_type: str) -> None:
    """What `llama-quantize SOURCE TARGET TYPE` does."""
    library = _library("libllama.v*.so")
    library.llama_backend_init()
    library.llama_model_quantize_default_params.restype = _QuantizeParams
    params = library.llama_model_quantize_default_params()
    params.threads, params.file_type = 2, FILE_TYPES[file_type]
    library.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(_QuantizeParams)]
    assert library.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)) == 0


def gguf_tensors(path: Path) -> dict[str, tuple[int, bytes]]:
    """Tensor -> type and bytes, as gguf-py reads a file."""
    from gguf import GGUFReader

    return {t.name: (int(t.tensor_type), t.data.tobytes()) for t in GGUFReader(path).tensors}


def gguf_keys(path: Path) -> dict[str, object]:
    """Key -> types and value, as gguf-py reads a file."""
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    return {k: ([int(t) for t in f.types], f.contents()) for k, f in fields.items() if not k.startswith("GGUF.")}
