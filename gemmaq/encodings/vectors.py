"""Eight f32 numbers as one value of compiled loops, where the compiler does not see by itself that lanes are alike.

It vectorises long loops over arrays. Loops over eight lanes it unrolls, and leaves as they are. A vector is read from
an array or made of a number, has + - *, and is written to an array. Processors without registers of this width get by
with narrower ones.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic
from numba.extending import models, overload, register_model

WIDTH = 8
intrinsic: Any = _intrinsic  # as a call of it looks from inside a compiled function
_VECTOR = ir.VectorType(ir.FloatType(), WIDTH)


class _Vector(types.Type):
    """Numba's type of a vector."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{WIDTH}")


_TYPE = _Vector()


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)  # type: ignore[no-untyped-call]


def _address(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    """Pointer to a vector in a contiguous array."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(cgutils.gep(builder, data, index), _VECTOR.as_pointer())  # type: ignore[no-untyped-call]


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """The numbers of a f32 array, contiguous, from an index on; nothing checks the bounds."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_address(context, builder, signature.args[0], *arguments), align=4)

    return _TYPE(array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, index: Any, vector: Any) -> Any:
    """Write a vector into a f32 array from an index on; nothing checks the bounds."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, signature.args[0], *arguments[:2])
        builder.store(arguments[2], address, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def spread(typing: Any, number: Any) -> Any:
    """A vector of the same f32 number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), arguments[0], ir.Constant(ir.IntType(32), 0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
        return builder.shuffle_vector(first, ir.Constant(_VECTOR, ir.Undefined), lanes)

    return _TYPE(types.float32), generate


@intrinsic
def where_less(typing: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """Lanes of `yes` where a < b, of `no` where it is not."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        is_less = builder.fcmp_ordered("<", arguments[0], arguments[1])
        return builder.select(is_less, arguments[2], arguments[3])

    return _TYPE(_TYPE, _TYPE, _TYPE, _TYPE), generate


def _binary(name: str) -> Any:
    """An operation of LLVM on two vectors."""

    @intrinsic
    def operation(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, name)(*arguments)

        return _TYPE(_TYPE, _TYPE), generate

    return operation


def _overload(function: Any, name: str) -> None:
    operation = _binary(name)

    @overload(function, inline="always", strict=False)
    def operate(a: Any, b: Any) -> Any:
        if isinstance(a, _Vector) and isinstance(b, _Vector):
            return lambda a, b: operation(a, b)
        return None


for _function, _name in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul")):
    _overload(_function, _name)
