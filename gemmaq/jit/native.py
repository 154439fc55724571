"""Machine code of the compiled loops, as it comes with a wheel for Linux on x86-64.

`kernels.txt` lists the functions that gemmaq calls, with the types of their arguments and of what they return, one a
line. The build of a wheel compiles these (`.ci/hatch_build.py`), by numba and from the same source that numba compiles
on other machines, into a library for processors with AVX2 or one for those with AVX-512. They need neither numba nor
Python: a function takes an array as the fields of numba's array structure, and returns by reference.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent
LIST = FOLDER / "kernels.txt"
_AVX2 = {"avx2", "fma", "f16c", "bmi1", "bmi2", "movbe", "abm"}
LEVELS = {
    "x86-64-v4": _AVX2 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "x86-64-v3": _AVX2,
}
"""Level of processors that a library may be for, the best first -> what these have, in the words of Linux."""

_DONE = (0, -2)
"""What a function of numba returns unless something was raised: the second one is for None."""


def spelled(value: Any) -> str | None:
    """The type of an argument, in the words of `kernels.txt`; None for one that has none there.

    `float32[2]` is an array of two dimensions, C-contiguous, `float32[2]~` one with strides, `(int64,bool)` a tuple. A
    named tuple has the name of its class in front.
    """
    if isinstance(value, np.ndarray):
        flags = value.flags
        if not flags.aligned or not value.dtype.isnative:
            return None
        return f"{value.dtype.name}[{value.ndim}]{'' if flags.c_contiguous else '~'}"
    if isinstance(value, np.generic):
        return value.dtype.name
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int64" if -(1 << 63) <= value < 1 << 63 else None
    if isinstance(value, float):
        return "float64"
    if isinstance(value, tuple) and value:
        parts = [spelled(part) for part in value]
        named = f"{type(value).__module__}.{type(value).__qualname__}" if hasattr(value, "_fields") else ""
        return None if None in parts else f"{named}({','.join(map(str, parts))})"
    return None


def kind(value: Any) -> Any:
    """The type of an argument, as a key that is found faster than it is spelled."""
    if isinstance(value, np.ndarray):
        flags = value.flags
        return value.dtype, value.ndim, flags.c_contiguous, flags.aligned
    if isinstance(value, tuple):
        return type(value), *map(kind, value)
    return (int, -(1 << 63) <= value < 1 << 63) if type(value) is int else type(value)


def listed(path: Path | None = None) -> dict[str, dict[str, str]]:
    """Functions of such a list: name -> types of the arguments, with spaces between -> type of the result."""
    functions: dict[str, dict[str, str]] = {}
    for line in (path or LIST).read_text().splitlines():
        name, _, types = line.partition(" ")
        arguments, _, result = types.rpartition(" -> ")
        functions.setdefault(name, {})[arguments] = result
    return functions


def symbol(name: str, arguments: str) -> str:
    """Name of a function in the library."""
    return "".join(one if one.isalnum() else f"_{ord(one):x}_" for one in f"{name} {arguments}")


def members(kind: str) -> list[str]:
    """Types of the members of a tuple."""
    inside, parts, depth = kind[kind.index("(") + 1 : -1], [""], 0
    for one in inside:
        depth += (one == "(") - (one == ")")
        if one == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += one
    return parts


def _number(kind: str) -> Any:
    return ctypes.c_bool if kind == "bool" else np.ctypeslib.as_ctypes_type(np.dtype(kind))


def _result(kind: str) -> Any:
    """Where a result is put, as a class of ctypes."""
    if kind == "none":
        return ctypes.c_void_p
    if kind.startswith("("):
        fields = [(f"m{i}", _number(part)) for i, part in enumerate(members(kind))]
        return type("Result", (ctypes.Structure,), {"_fields_": fields})
    return _number(kind)


def _types(kind: str) -> list[Any]:
    """Classes of ctypes for an argument, with arrays and tuples taken apart."""
    if kind.endswith(")"):
        return [one for part in members(kind) for one in _types(part)]
    if "[" not in kind:
        return [_number(kind)]
    dimensions = int(kind[kind.index("[") + 1 : kind.index("]")])
    before = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    return before + [ctypes.c_int64] * (2 * dimensions)


def _flat(value: Any) -> tuple[Any, ...]:
    """An argument as a function of the library takes it."""
    if isinstance(value, np.ndarray):
        address = value.__array_interface__["data"][0]
        return (None, None, value.size, value.itemsize, address, *value.shape, *value.strides)
    if isinstance(value, tuple):
        return tuple(number for part in value for number in _flat(part))
    return (value.item(),) if isinstance(value, np.generic) else (value,)


def _caller(function: Any, arguments: str, result: str) -> Callable[..., Any]:
    returned = _result(result)
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *(one for kind in arguments.split() for one in _types(kind))]
    function.restype = ctypes.c_int32

    def call(*values: Any) -> Any:
        room, raised = returned(), ctypes.c_void_p()
        flat = [part for value in values for part in _flat(value)]
        if function(ctypes.addressof(room), ctypes.addressof(raised), *flat) not in _DONE:
            raise MemoryError  # all that can be raised in a compiled loop
        if result == "none":
            return None
        return tuple(getattr(room, name) for name, _ in returned._fields_) if result.startswith("(") else room.value

    return call


def library(level: str) -> Path:
    """Where the library for a level of processors is."""
    return FOLDER / f"kernels-{level}.so"


def level(cpuinfo: str) -> str | None:
    """The best level that a processor has; None for an older one, or one of another kind.

    Args:
        cpuinfo: what Linux tells about it.
    """
    flags = next((set(line.split()) for line in cpuinfo.splitlines() if line.startswith("flags")), set[str]())
    return next((name for name, needed in LEVELS.items() if needed <= flags), None)


def here() -> str | None:
    """The best level that this machine's processor has; None as in `level`, and on other systems than Linux."""
    try:
        with open("/proc/cpuinfo") as file:
            return level(file.read(1 << 13))  # the first core's; there may be hundreds
    except OSError:
        return None


@functools.cache
def opened() -> ctypes.CDLL | None:
    """The library for this processor; None where there is none."""
    if not any(library(name).exists() for name in LEVELS):
        return None
    found = here()
    try:
        return None if found is None else ctypes.CDLL(str(library(found)))
    except OSError:  # a library for another system
        return None


@functools.cache
def _functions() -> dict[str, dict[str, str]]:
    return listed() if opened() else {}


def functions(name: str) -> dict[str, Callable[..., Any]]:
    """What the library has of a function: types of the arguments, with spaces between -> a function to call.

    It releases the interpreter's lock, as numba's does here.

    Args:
        name: module and name, with dots.
    """
    found: dict[str, Callable[..., Any]] = {}
    for arguments, result in _functions().get(name, {}).items():
        here = getattr(opened(), symbol(name, arguments), None)
        if here is not None:
            found[arguments] = _caller(here, arguments, result)
    return found
