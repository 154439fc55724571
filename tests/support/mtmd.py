"""llama.cpp's own encoders of images and sound: what a GGUF file and its mmproj make of them.

xllamacpp exports llama.cpp's C interface. It is called in a process of its own, where a failed assertion of ggml ends
no test but its own: this file is that program, too.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

_THREADS = 2
_Pointer, _Number = ctypes.c_void_p, ctypes.c_int32


def encode(text: Path, mmproj: Path, *media: np.ndarray) -> list[np.ndarray]:
    """Embeddings f32 [tokens, width of the text model] of every image and sound.

    Args:
        text: GGUF file of the text model.
        mmproj: Its projector file.
        media: Images u8 [height, width, 3] and sounds f32 [samples] at 16 kHz.

    Raises:
        AssertionError: llama.cpp cannot load or encode them; with its log.
    """
    with tempfile.TemporaryDirectory() as name:
        given, out = Path(name) / "given.npz", Path(name) / "out.npz"
        np.savez(given, *media)
        command = [sys.executable, __file__, *map(str, (text, mmproj, given, out))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{mmproj}: {done.returncode}\n{done.stderr[-3000:]}"
        with np.load(out) as found:
            return [found[key] for key in found.files]


class _ModelParams(ctypes.Structure):
    """llama_model_params of llama.cpp b11549; only passed on."""

    _fields_ = (("all", ctypes.c_byte * 80),)


class _ContextParams(ctypes.Structure):
    """mtmd_context_params of llama.cpp b11549."""

    _fields_ = (
        ("use_gpu", ctypes.c_bool),
        ("device", _Pointer),
        ("print_timings", ctypes.c_bool),
        ("n_threads", ctypes.c_int),
        ("image_marker", ctypes.c_char_p),
        ("media_marker", ctypes.c_char_p),
        ("flash_attn_type", ctypes.c_int),
        ("warmup", ctypes.c_bool),
        ("image_min_tokens", ctypes.c_int),
        ("image_max_tokens", ctypes.c_int),
        ("cb_eval", _Pointer),
        ("cb_eval_user_data", _Pointer),
        ("batch_max_tokens", _Number),
        ("progress_callback", _Pointer),
        ("progress_callback_user_data", _Pointer),
    )


class _InputText(ctypes.Structure):
    """mtmd_input_text."""

    _fields_ = (
        ("text", ctypes.c_char_p),
        ("text_len", ctypes.c_size_t),
        ("add_special", ctypes.c_bool),
        ("parse_special", ctypes.c_bool),
    )


_TEXT = 0
"""mtmd_input_chunk_type of a piece of text."""
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "llama_backend_init": (None, []),
    "llama_model_default_params": (_ModelParams, []),
    "llama_model_load_from_file": (_Pointer, [ctypes.c_char_p, _ModelParams]),
    "llama_model_n_embd_inp": (_Number, [_Pointer]),
    "mtmd_context_params_default": (_ContextParams, []),
    "mtmd_init_from_file": (_Pointer, [ctypes.c_char_p, _Pointer, _ContextParams]),
    "mtmd_bitmap_init": (_Pointer, [ctypes.c_uint32, ctypes.c_uint32, _Pointer]),
    "mtmd_bitmap_init_from_audio": (_Pointer, [ctypes.c_size_t, _Pointer]),
    "mtmd_input_chunks_init": (_Pointer, []),
    "mtmd_input_chunks_size": (ctypes.c_size_t, [_Pointer]),
    "mtmd_input_chunks_get": (_Pointer, [_Pointer, ctypes.c_size_t]),
    "mtmd_input_chunk_get_type": (_Number, [_Pointer]),
    "mtmd_input_chunk_get_n_tokens": (ctypes.c_size_t, [_Pointer]),
    "mtmd_tokenize": (_Number, [_Pointer, _Pointer, ctypes.POINTER(_InputText), _Pointer, ctypes.c_size_t]),
    "mtmd_encode_chunk": (_Number, [_Pointer, _Pointer]),
    "mtmd_get_output_embd": (ctypes.POINTER(ctypes.c_float), [_Pointer]),
}


def _library() -> ctypes.CDLL:
    spec = find_spec("xllamacpp")
    assert spec is not None and spec.submodule_search_locations
    (path,) = Path(spec.submodule_search_locations[0]).glob("*.so")
    library = ctypes.CDLL(str(path))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.llama_backend_init()
    return library


class _Encoder:
    """A text model and its projector; they are freed with the process."""

    def __init__(self, text: str, mmproj: str) -> None:
        self._library = library = _library()
        model = library.llama_model_load_from_file(text.encode(), library.llama_model_default_params())
        assert model, f"llama.cpp cannot load {text}"
        self.width: int = library.llama_model_n_embd_inp(model)
        params = library.mtmd_context_params_default()
        known = (params.use_gpu, params.n_threads, params.media_marker, params.warmup, params.image_max_tokens)
        assert known == (True, 4, b"<__media__>", True, -1), f"other defaults: {known}"
        params.use_gpu = params.print_timings = params.warmup = False
        params.n_threads = _THREADS
        self._marker = params.media_marker
        self._context = library.mtmd_init_from_file(mmproj.encode(), model, params)
        assert self._context, f"llama.cpp cannot load {mmproj}"

    def encode(self, given: np.ndarray) -> np.ndarray:
        """F32 [tokens, width] of an image or a sound, all its pieces one after the other."""
        library = self._library
        given = np.ascontiguousarray(given)
        if given.dtype == np.uint8:
            bitmap = library.mtmd_bitmap_init(given.shape[1], given.shape[0], given.ctypes.data)
        else:
            assert given.dtype == np.float32
            bitmap = library.mtmd_bitmap_init_from_audio(given.size, given.ctypes.data)
        chunks, prompt = library.mtmd_input_chunks_init(), _InputText(self._marker, len(self._marker), False, True)
        assert library.mtmd_tokenize(self._context, chunks, ctypes.byref(prompt), (_Pointer * 1)(bitmap), 1) == 0
        pieces = []
        for at in range(library.mtmd_input_chunks_size(chunks)):
            chunk = library.mtmd_input_chunks_get(chunks, at)
            if library.mtmd_input_chunk_get_type(chunk) != _TEXT:
                assert library.mtmd_encode_chunk(self._context, chunk) == 0
                shape = (library.mtmd_input_chunk_get_n_tokens(chunk), self.width)
                pieces.append(np.ctypeslib.as_array(library.mtmd_get_output_embd(self._context), shape).copy())
        return np.concatenate(pieces)


def _main(text: str, mmproj: str, given: str, out: str) -> None:
    encoder = _Encoder(text, mmproj)
    with np.load(given) as media:
        np.savez(out, *(encoder.encode(media[key]) for key in media.files))


if __name__ == "__main__":
    _main(*sys.argv[1:])
