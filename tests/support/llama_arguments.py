"""llama-server's command lines, read as it reads them: its parser of options, and what it takes from the Hub for them.

xllamacpp has no function for that, but exports llama.cpp's own. They end the process where they do not like something,
so this file is run as a program: `python llama_arguments.py -hf me/model:Q4_0` prints what the line comes to.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

_PARSE = "_Z19common_params_parseiPPcR13common_params13llama_examplePFviS0_E"
_INIT = "_Z26common_models_handler_initRK13common_params13llama_example"
_APPLY = "_Z27common_models_handler_applyR21common_models_handlerR13common_paramsP24common_download_callback"
_SERVER = 12
"""LLAMA_EXAMPLE_SERVER."""
_MARK = (123456789, 987654321)
"""Values of two neighbours, n_predict and n_ctx, by which `common_params` are found in the object around them."""
_ROOM = 1 << 16
"""More bytes than a common_models_handler has."""


def read(words: Sequence[str], env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What the options come to: paths of the `model`, `mmproj` and `draft`, the `types` of speculation.

    Raises:
        AssertionError: llama-server would refuse them.
    """
    command = [sys.executable, __file__, *words]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def params_of(words: Sequence[str]) -> Any:
    """xllamacpp's CommonParams for the options, files from the Hub downloaded."""
    from xllamacpp import xllamacpp

    library = ctypes.CDLL(xllamacpp.__file__)
    params = xllamacpp.CommonParams()
    values = [b"llama-server", *(word.encode() for word in words)]
    inner = ctypes.c_void_p(id(params) + _offset(xllamacpp))
    parse, init, apply = library[_PARSE], library[_INIT], library[_APPLY]
    parse.restype = ctypes.c_bool
    if not parse(len(values), (ctypes.c_char_p * (len(values) + 1))(*values, None), inner, _SERVER, None):
        raise SystemExit("llama-server refuses the options")
    handler = ctypes.create_string_buffer(_ROOM)
    init(handler, inner, _SERVER)
    apply(handler, inner, None)
    return params


def _offset(xllamacpp: Any) -> int:
    """Bytes before the `common_params` in a CommonParams."""
    params = xllamacpp.CommonParams()
    params.n_predict, params.n_ctx = _MARK
    raw = ctypes.string_at(id(params), type(params).__basicsize__)
    return raw.index(b"".join(value.to_bytes(4, "little") for value in _MARK))


if __name__ == "__main__":
    found = params_of(sys.argv[1:])
    types = [kind.name.rpartition("TYPE_")[2].lower() for kind in found.speculative.types]
    draft = found.speculative.draft.mparams.path
    print(json.dumps({"model": found.model.path, "mmproj": found.mmproj.path, "draft": draft, "types": types}))
