"""Several numbers as one value of compiled loops, where the compiler does not see by itself that lanes are alike.

It vectorises long loops over arrays. Loops over eight lanes it unrolls, and leaves as they are; of loops over 32 it
spends much of the time around them. A vector is read from an array or made of a number; it has + - * / with vectors of
its kind and with numbers. Processors without registers of this width get by with narrower ones.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

from gemmaq.jit import intrinsic, refresh

WIDTH = 8
"""Numbers of a vector of `load` and `spread`."""


@functools.cache
def _kinds() -> Any:
    """The type of vectors in numba; makes them known to numba."""
    from llvmlite import ir
    from numba import types
    from numba.extending import models, overload, register_model

    elements = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}
    elements |= {types.int16: ir.IntType(16), types.int32: ir.IntType(32)}

    class Vector(types.Type):
        def __init__(self, element: Any, width: int) -> None:
            self.element, self.width = element, width
            self.lanes = ir.VectorType(elements[element], width)
            super().__init__(name=f"{element}x{width}")

    @register_model(Vector)
    class Model(models.PrimitiveModel):
        def __init__(self, manager: Any, kind: Any) -> None:
            super().__init__(manager, kind, kind.lanes)  # type: ignore[no-untyped-call]

    def add(function: Any, operation: Any) -> None:
        @overload(function, inline="always", strict=False)
        def operate(a: Any, b: Any) -> Any:
            if isinstance(a, Vector) and b in (a, a.element):
                return lambda a, b: operation(a, b)
            return None

    for function, name in ((operator.add, "add"), (operator.sub, "sub"), (operator.mul, "mul")):
        add(function, _binary(name))
    add(operator.truediv, _binary("div"))
    refresh()
    return Vector


@functools.cache
def vector(element: str, width: int) -> Any:
    """The type of vectors of so many numbers: float32, float64, int32 or int16."""
    from numba import types

    return _kinds()(getattr(types, element), width)


def _binary(name: str) -> Any:
    """An operation of LLVM on two vectors, or on a vector and a number."""

    @intrinsic
    def operation(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            second = arguments[1] if b == a else spread_out(builder, a.lanes, arguments[1])
            return getattr(builder, f"f{name}" if a.element.name.startswith("float") else name)(arguments[0], second)

        return a(a, b), generate

    return operation


def spread_out(builder: Any, lanes: Any, number: Any) -> Any:
    """A value of LLVM in all lanes of a vector type."""
    from llvmlite import ir

    nothing, index = ir.Constant(lanes, ir.Undefined), ir.IntType(32)
    first = builder.insert_element(nothing, number, ir.Constant(index, 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(index, lanes.count), [0] * lanes.count))


def address(context: Any, builder: Any, array: Any, lanes: Any, arguments: Any) -> Any:
    """Pointer to a vector type in a contiguous array; the arguments are the array and an index."""
    from numba.core import cgutils

    data = context.make_array(array)(context, builder, arguments[0]).data
    return builder.bitcast(cgutils.gep(builder, data, arguments[1]), lanes.as_pointer())  # type: ignore[no-untyped-call]


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """The numbers of a f32 array, contiguous, from an index on; nothing checks the bounds."""
    from numba import types

    kind = vector("float32", WIDTH)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(address(context, builder, signature.args[0], kind.lanes, arguments), align=4)

    return kind(array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, index: Any, numbers: Any) -> Any:
    """Write a vector into a f32 array from an index on; nothing checks the bounds."""
    from numba import types

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], address(context, builder, array, numbers.lanes, arguments), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, numbers), generate


@intrinsic
def spread(typing: Any, number: Any) -> Any:
    """A vector of the same f32 number."""
    from numba import types

    kind = vector("float32", WIDTH)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return spread_out(builder, kind.lanes, arguments[0])

    return kind(types.float32), generate


@intrinsic
def where_less(typing: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """Lanes of `yes` where a < b, of `no` where it is not."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        is_less = builder.fcmp_ordered("<", arguments[0], arguments[1])
        return builder.select(is_less, arguments[2], arguments[3])

    return yes(a, b, yes, no), generate
