"""Memory that mtmd of llama.cpp reserves for images and sound: dry runs on mmproj files that have a header and a hole.

xllamacpp exports clip's C++ functions. They are called in a process of their own: this file is that program, too.
Signatures and offsets are those of llama.cpp b11549.
"""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_Pointer = ctypes.c_void_p
_WEIGHTS = re.compile(r"model size:\s+([\d.]+) MiB")
_BUFFER = re.compile(r"compute buffer size =\s+([\d.]+) MiB")
_SIZE_IN_IMAGE = 48


def reserved(mmproj: Path, sizes: Sequence[tuple[int, int]], *, flash: bool) -> dict[str, list[float]]:
    """MiB as llama.cpp's log prints them, to two places.

    Args:
        mmproj: The file.
        sizes: Width and height of images, each of more pixels than the one before.
        flash: Whether flash attention is used.

    Returns:
        `weights`, `prepared` for an image and, if the file has a tower for it, a sound when the file is loaded, and
        `images` for each size.
    """
    command = [sys.executable, __file__, str(mmproj), json.dumps(sizes), str(int(flash))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{mmproj}: {done.returncode}\n{done.stderr[-3000:]}"
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


class _Params(ctypes.Structure):
    """clip_context_params."""

    _fields_ = (
        ("use_gpu", ctypes.c_bool),
        ("device", _Pointer),
        ("flash_attn_type", ctypes.c_int),
        ("image_min_tokens", ctypes.c_int),
        ("image_max_tokens", ctypes.c_int),
        ("warmup", ctypes.c_bool),
        ("cb_eval", _Pointer),
        ("cb_eval_user_data", _Pointer),
        ("no_alloc", ctypes.c_bool),
        ("progress_callback", _Pointer),
        ("rest", ctypes.c_byte * 40),
    )


class _Contexts(ctypes.Structure):
    """clip_init_result."""

    _fields_ = (("image", _Pointer), ("sound", _Pointer), ("rest", _Pointer * 2))


_SIGNATURES: dict[str, tuple[str, Any, list[Any]]] = {
    "listen": ("mtmd_log_set", None, [_Pointer, _Pointer]),
    "load": ("_Z9clip_initPKc19clip_context_params", _Contexts, [ctypes.c_char_p, _Params]),
    "batch": ("_ZN17clip_model_loader15get_dummy_batchER8clip_ctx", None, [_Pointer, _Pointer]),
    "reserve": ("_ZN17clip_model_loader6warmupER8clip_ctxRK20clip_image_f32_batch", None, [_Pointer, _Pointer]),
}


def _main(mmproj: str, sizes: str, flash: str) -> None:
    spec = find_spec("xllamacpp")
    assert spec is not None and spec.submodule_search_locations
    (path,) = Path(spec.submodule_search_locations[0]).glob("*.so")
    library = ctypes.CDLL(str(path))
    calls: dict[str, Any] = {}
    for name, (symbol, result, arguments) in _SIGNATURES.items():
        calls[name] = getattr(library, symbol)
        calls[name].restype, calls[name].argtypes = result, arguments
    log: list[str] = []

    @ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, _Pointer)
    def listen(level: int, text: bytes, data: int) -> None:
        log.append(text.decode(errors="replace"))

    def said(pattern: re.Pattern[str]) -> list[float]:
        return [float(size) for size in pattern.findall("".join(log))]

    calls["listen"](ctypes.cast(listen, _Pointer), None)
    params = _Params(flash_attn_type=int(flash), image_min_tokens=-1, image_max_tokens=-1, warmup=True, no_alloc=True)
    contexts = calls["load"](mmproj.encode(), params)
    assert contexts.image, "".join(log)[-2000:]
    found = {"weights": said(_WEIGHTS), "prepared": said(_BUFFER), "images": []}
    for size in json.loads(sizes):
        batch = (ctypes.c_size_t * 64)()
        calls["batch"](ctypes.addressof(batch), contexts.image)
        (ctypes.c_int * 2).from_address(batch[0] + _SIZE_IN_IMAGE)[:] = size
        log.clear()
        calls["reserve"](contexts.image, ctypes.addressof(batch))
        found["images"] += said(_BUFFER)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
