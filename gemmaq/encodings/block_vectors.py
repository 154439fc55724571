"""Blocks of 32 weights as one value of compiled loops, from BF16 bits to bytes of codes, and back to numbers.

Operations of LLVM, for the loops of `fused`. Nothing checks the bounds of arrays, which are contiguous.
"""

from __future__ import annotations

from typing import Any

from gemmaq.encodings.vectors import address, spread_out, vector
from gemmaq.jit import intrinsic

BLOCK = 32


@intrinsic
def load_bits(typing: Any, array: Any, index: Any) -> Any:
    """The bits of 32 BF16 numbers in a u16 array, from an index on: int16 lanes."""
    from numba import types

    kind = vector("int16", BLOCK)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(address(context, builder, array, kind.lanes, arguments), align=2)

    return kind(array, types.intp), generate


def _all(kind: Any, number: int) -> Any:
    """A constant of LLVM: a number of a type, or in every lane of a vector type."""
    from llvmlite import ir

    return ir.Constant(kind, [number] * kind.count if hasattr(kind, "count") else number)


def _in_order(builder: Any, bits: Any) -> Any:
    """Bits of BF16 numbers -> integers in the order of the numbers, -0 below +0; its own reverse."""
    sign = builder.ashr(bits, _all(bits.type, 15))
    return builder.xor(bits, builder.and_(sign, _all(bits.type, 0x7FFF)))


def _reduction(operation: str, prepare: Any, finish: Any) -> Any:
    """The f32 number that is left of the lanes of BF16 bits."""

    def reduce(typing: Any, bits: Any) -> Any:
        from llvmlite import ir
        from numba import types

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            half, full = ir.IntType(16), ir.IntType(32)
            name = f"llvm.vector.reduce.{operation}.v{BLOCK}i16"
            function = builder.module.declare_intrinsic(name, (), ir.FunctionType(half, [bits.lanes]))
            found = finish(builder, builder.call(function, [prepare(builder, arguments[0])]))
            wide = builder.shl(builder.zext(found, full), ir.Constant(full, 16))
            return builder.bitcast(wide, ir.FloatType())

        return types.float32(bits), generate

    return intrinsic(reduce)


def _magnitude(builder: Any, bits: Any) -> Any:
    return builder.and_(bits, _all(bits.type, 0x7FFF))


smallest = _reduction("smin", _in_order, _in_order)
"""Of BF16 bits: the smallest number, f32; -0 is smaller than +0. For finite numbers."""
largest = _reduction("smax", _in_order, _in_order)
"""Of BF16 bits: the largest number, f32."""
largest_magnitude = _reduction("smax", _magnitude, _magnitude)
"""Of BF16 bits: the largest magnitude, f32."""


@intrinsic
def numbers(typing: Any, bits: Any) -> Any:
    """BF16 bits -> float32 lanes."""
    wide, kind = vector("int32", BLOCK), vector("float32", BLOCK)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        shifted = builder.shl(builder.zext(arguments[0], wide.lanes), _all(wide.lanes, 16))
        return builder.bitcast(shifted, kind.lanes)

    return kind(bits), generate


def _conversion(operation: str, element: str) -> Any:
    """An operation of LLVM that makes lanes of another type."""

    def convert(typing: Any, x: Any) -> Any:
        kind = vector(element, BLOCK)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, operation)(arguments[0], kind.lanes)

        return kind(x), generate

    return intrinsic(convert)


truncated = _conversion("fptosi", "int32")
"""The whole parts of float32 lanes that an i32 can hold: int32 lanes."""
floats = _conversion("sitofp", "float32")
"""Int32 lanes -> float32 lanes."""
doubles = _conversion("fpext", "float64")
"""Float32 lanes -> float64 lanes."""


@intrinsic
def reached(typing: Any, x: Any, number: Any) -> Any:
    """1 where x >= number, else 0: int32 lanes."""
    from numba import types

    kind = vector("int32", BLOCK)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        limit = spread_out(builder, x.lanes, arguments[1])
        return builder.zext(builder.fcmp_ordered(">=", arguments[0], limit), kind.lanes)

    return kind(x, types.float32), generate


def _limit(is_kept: str) -> Any:
    """The lanes that compare so with a number of their type, and the number for all others."""

    def limit(typing: Any, x: Any, number: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            end = spread_out(builder, x.lanes, arguments[1])
            return builder.select(builder.icmp_signed(is_kept, arguments[0], end), arguments[0], end)

        return x(x, x.element), generate

    return intrinsic(limit)


at_most = _limit("<")
"""The smaller one of each of int32 lanes and a number."""
at_least = _limit(">")
"""The larger one of each of int32 lanes and a number."""


@intrinsic
def to_even(typing: Any, x: Any) -> Any:
    """Float32 lanes rounded to whole numbers, ties to even."""
    from llvmlite import ir

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(x.lanes, [x.lanes])
        return builder.call(builder.module.declare_intrinsic(f"llvm.rint.v{BLOCK}f32", (), kind), arguments)

    return x(x), generate


@intrinsic
def total(typing: Any, x: Any) -> Any:
    """The sum of float64 lanes, in any order."""
    from llvmlite import ir

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        double = ir.DoubleType()
        kind = ir.FunctionType(double, [double, x.lanes])
        function = builder.module.declare_intrinsic(f"llvm.vector.reduce.fadd.v{BLOCK}f64", (), kind)
        return builder.call(function, [ir.Constant(double, -0.0), arguments[0]], fastmath=("reassoc",))

    return x.element(x), generate


@intrinsic
def load_bytes(typing: Any, array: Any, index: Any) -> Any:
    """32 signed bytes in a u8 array, from an index on: int32 lanes."""
    from llvmlite import ir
    from numba import types

    kind, raw = vector("int32", BLOCK), ir.VectorType(ir.IntType(8), BLOCK)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        read = builder.load(address(context, builder, array, raw, arguments), align=1)
        return builder.sext(read, kind.lanes)

    return kind(array, types.intp), generate


@intrinsic
def load_nibbles(typing: Any, array: Any, index: Any) -> Any:
    """The codes that `store_nibbles` wrote into a u8 array, from an index on: int32 lanes."""
    from llvmlite import ir
    from numba import types

    kind, raw = vector("int32", BLOCK), ir.VectorType(ir.IntType(8), BLOCK // 2)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        read = builder.load(address(context, builder, array, raw, arguments), align=1)
        low, high = builder.and_(read, _all(raw, 15)), builder.lshr(read, _all(raw, 4))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), BLOCK), list(range(BLOCK)))
        return builder.zext(builder.shuffle_vector(low, high, lanes), kind.lanes)

    return kind(array, types.intp), generate


@intrinsic
def store_bytes(typing: Any, array: Any, index: Any, codes: Any) -> Any:
    """Write the low bytes of int32 lanes into a u8 array from an index on."""
    from numba import types

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _store(context, builder, array, arguments)
        return context.get_dummy_value()

    return types.void(array, types.intp, codes), generate


@intrinsic
def store_nibbles(typing: Any, array: Any, index: Any, codes: Any) -> Any:
    """Write codes of four bits, int32 lanes: i in the low half of byte i, i + 16 in the high half, as ggml does."""
    from numba import types

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _store_pairs(context, builder, array, arguments, range(16), range(16, 32))
        return context.get_dummy_value()

    return types.void(array, types.intp, codes), generate


@intrinsic
def store_pairs(typing: Any, array: Any, index: Any, codes: Any) -> Any:
    """Write codes of four bits, int32 lanes: 2 i in the low half of byte i, 2 i + 1 in the high half, as MLX does."""
    from numba import types

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _store_pairs(context, builder, array, arguments, range(0, 32, 2), range(1, 32, 2))
        return context.get_dummy_value()

    return types.void(array, types.intp, codes), generate


def _store_pairs(context: Any, builder: Any, array: Any, arguments: Any, low: range, high: range) -> None:
    """Write bytes whose halves are the codes of these lanes."""
    from llvmlite import ir

    half = ir.VectorType(ir.IntType(32), BLOCK // 2)
    nothing = ir.Constant(arguments[2].type, ir.Undefined)
    first, second = (
        builder.shuffle_vector(arguments[2], nothing, ir.Constant(half, list(lanes))) for lanes in (low, high)
    )
    both = builder.or_(first, builder.shl(second, _all(half, 4)))
    _store(context, builder, array, (*arguments[:2], both))


def _store(context: Any, builder: Any, array: Any, arguments: Any) -> None:
    """Write the low bytes of int32 lanes; the arguments are the array, an index and the lanes."""
    from llvmlite import ir

    cut = builder.trunc(arguments[2], ir.VectorType(ir.IntType(8), arguments[2].type.count))
    builder.store(cut, address(context, builder, array, cut.type, arguments), align=1)
