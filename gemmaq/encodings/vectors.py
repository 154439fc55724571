"""Eight f32 numbers as one value of compiled loops, where the compiler does not see by itself that lanes are alike.

It vectorises long loops over arrays. Loops over eight lanes it unrolls, and leaves as they are. A vector is read from
an array or made of a number, has + - *, and is written to an array. Processors without registers of this width get by
with narrower ones.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

from gemmaq.jit import intrinsic, refresh

WIDTH = 8


@functools.cache
def _vector() -> tuple[Any, Any]:
    """The type of a vector in numba, and in LLVM; makes them known to numba."""
    from llvmlite import ir
    from numba import types
    from numba.extending import models, overload, register_model

    class Vector(types.Type):
        def __init__(self) -> None:
            super().__init__(name=f"float32x{WIDTH}")

    kind, lanes = Vector(), ir.VectorType(ir.FloatType(), WIDTH)

    @register_model(Vector)
    class Model(models.PrimitiveModel):
        def __init__(self, manager: Any, kind: Any) -> None:
            super().__init__(manager, kind, lanes)  # type: ignore[no-untyped-call]

    def add(function: Any, operation: Any) -> None:
        @overload(function, inline="always", strict=False)
        def operate(a: Any, b: Any) -> Any:
            if isinstance(a, Vector) and isinstance(b, Vector):
                return lambda a, b: operation(a, b)
            return None

    for function, name in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul")):
        add(function, _binary(name, kind))
    refresh()
    return kind, lanes


def _binary(name: str, kind: Any) -> Any:
    """An operation of LLVM on two vectors."""

    @intrinsic
    def operation(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, name)(*arguments)

        return kind(kind, kind), generate

    return operation


def _address(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    """Pointer to a vector in a contiguous array."""
    from numba.core import cgutils

    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(cgutils.gep(builder, data, index), _vector()[1].as_pointer())  # type: ignore[no-untyped-call]


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """The numbers of a f32 array, contiguous, from an index on; nothing checks the bounds."""
    from numba import types

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_address(context, builder, signature.args[0], *arguments), align=4)

    return _vector()[0](array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, index: Any, vector: Any) -> Any:
    """Write a vector into a f32 array from an index on; nothing checks the bounds."""
    from numba import types

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, signature.args[0], *arguments[:2])
        builder.store(arguments[2], address, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def spread(typing: Any, number: Any) -> Any:
    """A vector of the same f32 number."""
    from llvmlite import ir
    from numba import types

    kind, vector = _vector()

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        nothing = ir.Constant(vector, ir.Undefined)
        first = builder.insert_element(nothing, arguments[0], ir.Constant(ir.IntType(32), 0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
        return builder.shuffle_vector(first, nothing, lanes)

    return kind(types.float32), generate


@intrinsic
def where_less(typing: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """Lanes of `yes` where a < b, of `no` where it is not."""
    kind = _vector()[0]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        is_less = builder.fcmp_ordered("<", arguments[0], arguments[1])
        return builder.select(is_less, arguments[2], arguments[3])

    return kind(kind, kind, kind, kind), generate
