"""Folders as other programs quantize them, made of random codes: what every weight is follows from the scheme alone.

Codes are packed here number by number, as the libraries' documents say, so that nothing is shared with what is tested.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from damage import header_of, safetensors_bytes, small_model
from gemmaq.checkpoint.rows import weights
from gemmaq.files.span import Reader
from gemmaq.models.gemma3.config import pattern
from gemmaq.sources.open import open_source
from synthetic import EVEN, bf16

CONFIG = replace(EVEN, num_hidden_layers=2, layer_pattern=pattern(2, 2), query_pre_attn_scalar=64)
"""Rows of 128 and 256 weights."""
Stored = dict[str, tuple[str, np.ndarray]]
"""Suffix, or name of an array -> dtype in safetensors, content."""
Make = Callable[[np.random.Generator, tuple[int, int]], tuple[Stored, np.ndarray]]
"""(random, shape) -> arrays of a matrix by suffix, its weights f32."""


def write(folder: Path, settings: Mapping[str, Any] | None, make: Make, *, others: Make | None = None) -> dict:
    """A folder in which every matrix of the layers is quantized; name -> weights that it must be read as.

    Args:
        folder: New folder.
        settings: quantization_config, None for none.
        make: Makes the arrays of a matrix.
        others: Makes those of every second matrix, None for the same way.
    """
    small_model(folder, CONFIG)
    header, data = header_of(folder / "model.safetensors")
    header.pop("__metadata__", None)
    random, arrays, expected = np.random.default_rng(7), {}, {}
    for number, (name, entry) in enumerate(header.items()):
        raw = np.frombuffer(data[slice(*entry["data_offsets"])], np.uint16).reshape(entry["shape"])
        if "_proj" not in name:
            arrays[name] = ("BF16", raw)
            continue
        stored, weights = (others if others is not None and number % 2 else make)(random, tuple(entry["shape"]))
        stem = name.removesuffix(".weight")
        arrays |= {f"{stem}.{suffix}": array for suffix, array in stored.items()}
        expected[name] = weights.astype(np.float32)
    save(folder / "model.safetensors", arrays)
    if settings is not None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    return expected


def save(path: Path, arrays: Mapping[str, tuple[str, np.ndarray]]) -> None:
    """A safetensors file."""
    header, blobs, at = {}, [], 0
    for name, (dtype, array) in arrays.items():
        blob = np.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    path.write_bytes(safetensors_bytes(header, b"".join(blobs)))


def scales_of(random: np.random.Generator, shape: tuple[int, ...], dtype: str) -> tuple[tuple[str, np.ndarray], Any]:
    """Random scales as they are stored, and in f32."""
    numbers = random.uniform(0.002, 0.02, shape).astype(np.float32)
    if dtype == "F16":
        return ("F16", numbers.astype(np.float16)), numbers.astype(np.float16).astype(np.float32)
    if dtype == "F32":
        return ("F32", numbers), numbers
    bits = bf16(numbers)
    return ("BF16", bits), (bits.astype(np.uint32) << 16).view(np.float32)


def stream(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes [n, count] one behind the other, lowest bit first, in words i32 [n, ceil(count * bits / 32)]."""
    words = np.zeros((len(codes), -(-codes.shape[1] * bits // 32)), np.uint32)
    for row, line in enumerate(codes):
        number = 0
        for place, code in enumerate(line.tolist()):
            number |= int(code) << (bits * place)
        words[row] = np.frombuffer(number.to_bytes(4 * words.shape[1], "little"), "<u4")
    return words.view(np.int32)


def gptq(
    bits: int = 4, group: int = 128, *, sym: bool = True, order: bool = False, version: int = 1, dtype: str = "F16"
) -> Make:
    """Matrices of AutoGPTQ and GPTQModel; `group` -1 for one a row, `order` for columns of groups in any order."""

    def make(random: np.random.Generator, shape: tuple[int, int]) -> tuple[Stored, np.ndarray]:
        rows, columns = shape
        size = columns if group == -1 else group
        groups = -(-columns // size)
        codes = random.integers(0, 1 << bits, shape)
        zeros = np.full((groups, rows), 1 << bits - 1) if sym else random.integers(1, 1 << bits, (groups, rows))
        index = np.arange(columns) // size
        if order:
            index = random.permutation(index)
        stored, scales = scales_of(random, (groups, rows), dtype)
        written = zeros - 1 if version == 1 else zeros
        arrays: Stored = {
            "qweight": ("I32", stream(codes, bits).T),
            "qzeros": ("I32", stream(written, bits)),
            "scales": stored,
            "g_idx": ("I32", index.astype(np.int32)),
        }
        return arrays, (scales[index] * (codes.T - zeros[index])).T

    return make


def awq(group: int = 128, *, middle: bool = False, dtype: str = "F16") -> Make:
    """Matrices of AutoAWQ, version gemm."""

    def make(random: np.random.Generator, shape: tuple[int, int]) -> tuple[Stored, np.ndarray]:
        rows, columns = shape
        codes, groups = random.integers(0, 16, (columns, rows)), columns // group
        zeros = np.full((groups, rows), 8) if middle else random.integers(0, 16, (groups, rows))
        stored, scales = scales_of(random, (groups, rows), dtype)
        weights = (codes - zeros.repeat(group, axis=0)) * scales.repeat(group, axis=0)
        return {"qweight": ("I32", awq_words(codes)), "qzeros": ("I32", awq_words(zeros)), "scales": stored}, weights.T

    return make


def awq_words(codes: np.ndarray) -> np.ndarray:
    """Codes [n, count] of four bits, eight in a word in the order of AutoAWQ's packer, i32."""
    words = np.zeros((len(codes), codes.shape[1] // 8), np.uint32)
    for place, which in enumerate((0, 2, 4, 6, 1, 3, 5, 7)):
        words |= codes[:, which::8].astype(np.uint32) << np.uint32(4 * place)
    return words.view(np.int32)


NF4 = np.array(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
        *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
        *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ],
    np.float32,
)


def four_bits(kind: str = "nf4", block: int = 64, *, nested: bool = False) -> Make:
    """Matrices of bitsandbytes with four bits."""

    def make(random: np.random.Generator, shape: tuple[int, int]) -> tuple[Stored, np.ndarray]:
        count = shape[0] * shape[1]
        codes, book = random.integers(0, 16, count), NF4 if kind == "nf4" else np.sort(NF4)[::-1].copy()
        state: dict[str, Any] = {"quant_type": kind, "blocksize": block, "dtype": "bfloat16", "shape": list(shape)}
        _, magnitudes = scales_of(random, (-(-count // block),), "F32")
        arrays: Stored = {
            "weight": ("U8", (codes[::2] << 4 | codes[1::2]).astype(np.uint8).reshape(-1, 1)),
            "weight.absmax": ("F32", magnitudes),
            "weight.quant_map": ("F32", book),
        }
        if nested:
            inner = random.integers(0, 256, magnitudes.size).astype(np.uint8)
            table = np.linspace(-1, 1, 256, dtype=np.float32)
            _, outer = scales_of(random, (-(-inner.size // 256),), "F32")
            state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.03125}
            magnitudes = table[inner] * outer.repeat(256)[: inner.size] + np.float32(0.03125)
            arrays |= {"weight.absmax": ("U8", inner), "weight.nested_absmax": ("F32", outer)}
            arrays["weight.nested_quant_map"] = ("F32", table)
        text = json.dumps(state).encode()
        arrays[f"weight.quant_state.bitsandbytes__{kind}"] = ("U8", np.frombuffer(text, np.uint8))
        return arrays, (book[codes] * magnitudes.repeat(block)[:count]).reshape(shape)

    return make


def int8(random: np.random.Generator, shape: tuple[int, int]) -> tuple[Stored, np.ndarray]:
    """Matrices of bitsandbytes with eight bits."""
    codes = random.integers(-127, 128, shape).astype(np.int8)
    magnitudes = random.uniform(0.1, 2, shape[0]).astype(np.float32)
    weights = codes.astype(np.float32) * magnitudes[:, None] * np.float32(7.874015718698502e-3)
    return {
        "weight": ("I8", codes),
        "SCB": ("F32", magnitudes),
        "weight_format": ("U8", np.zeros((), np.uint8)),
    }, weights


def fp8(block: tuple[int, int] | str, *, suffix: str = "weight_scale_inv", dtype: str = "F32") -> Make:
    """Matrices of FP8 numbers: with blocks, or with scales of `rows`, or one (`tensor`)."""

    def make(random: np.random.Generator, shape: tuple[int, int]) -> tuple[Stored, np.ndarray]:
        from gemmaq.encodings.small_floats import E4M3  # its numbers are held against torch's by another test

        codes = random.integers(0, 127, shape) + 128 * random.integers(0, 2, shape)
        height, width = {"rows": (1, shape[1]), "tensor": shape}.get(str(block), block)
        down, across = -(-shape[0] // height), -(-shape[1] // width)
        stored, scales = scales_of(random, (down, across), dtype)
        if block == "tensor":
            stored = (stored[0], stored[1].reshape(()))
        spread = scales.repeat(height, axis=0).repeat(width, axis=1)[: shape[0], : shape[1]]
        weights = np.array(E4M3, np.float32)[codes] * spread
        return {"weight": ("F8_E4M3", codes.astype(np.uint8)), suffix: stored}, weights

    return make


def compressed(
    bits: int = 4,
    group: int = 128,
    *,
    sym: bool = True,
    order: bool = False,
    packed: bool = True,
    loose: bool = False,
    points: bool = False,
    dtype: str = "BF16",
) -> Make:
    """Matrices of compressed-tensors.

    `group` is 0 for one a row and -1 for one a matrix, `loose` makes words as earlier versions did, `points` stores
    zero points though all are in the middle.
    """

    def make(random: np.random.Generator, shape: tuple[int, int]) -> tuple[Stored, np.ndarray]:
        rows, columns = shape
        size = group if group > 0 else columns
        groups = columns // size
        codes = random.integers(0, 1 << bits, shape)
        zeros = np.full((rows, groups), 1 << bits - 1) if sym else random.integers(0, 1 << bits, (rows, groups))
        stored, scales = scales_of(random, (1, 1) if group == -1 else (rows, groups), dtype)
        index = np.arange(columns) // size
        if order:
            index = random.permutation(index)
        weights = (codes - zeros[:, index]) * np.broadcast_to(scales, (rows, groups))[:, index]
        arrays: Stored = {"weight_scale": stored if group != -1 else (stored[0], stored[1].reshape(1))}
        if packed:
            words = loosely(codes, bits) if loose else stream(codes, bits)
            arrays |= {"weight_packed": ("I32", words), "weight_shape": ("I64", np.array(shape))}
        else:
            arrays["weight"] = ("I8", (codes - (1 << bits - 1)).astype(np.int8))
        if not sym or points:
            arrays["weight_zero_point"] = (
                ("I32", stream(zeros.T, bits).T) if packed else ("I8", (zeros - (1 << bits - 1)).astype(np.int8))
            )
        if order:
            arrays["weight_g_idx"] = ("I32", index.astype(np.int32))
        return arrays, weights

    return make


def loosely(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes [n, count] as many in a word as it holds whole, i32."""
    each = 32 // bits
    words = np.zeros((len(codes), -(-codes.shape[1] // each)), np.uint32)
    for column in range(codes.shape[1]):
        words[:, column // each] |= codes[:, column].astype(np.uint32) << np.uint32(bits * (column % each))
    return words.view(np.int32)


def settings_of(
    bits: int, group: int, *, sym: bool = True, strategy: str = "group", form: str = "pack-quantized"
) -> Any:
    """quantization_config of compressed-tensors."""
    weights = {"num_bits": bits, "type": "int", "symmetric": sym, "strategy": strategy, "group_size": group or None}
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        "ignore": ["lm_head"],
    }


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}
BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
FP8 = {"quant_method": "fp8", "weight_block_size": [48, 128]}
CT = settings_of

KINDS: dict[str, tuple[Any, Make, str]] = {
    "gptq": (GPTQ, gptq(), "int4-g128"),
    "gptq of 32": (GPTQ | {"group_size": 32}, gptq(4, 32), "q4_0"),
    "gptq with a tail": (GPTQ | {"group_size": 96}, gptq(4, 96), "gptq4-g96"),
    "gptq a row": (GPTQ | {"group_size": -1}, gptq(4, -1), "int4-channel"),
    "gptq asymmetric": (GPTQ | {"sym": False, "group_size": 64}, gptq(4, 64, sym=False), "affine4-g64"),
    "gptq in order": (GPTQ | {"desc_act": True}, gptq(4, 32, order=True), "gptq4-g32"),
    "gptq v2": (
        GPTQ | {"checkpoint_format": "gptq_v2", "sym": False},
        gptq(4, 128, sym=False, version=2, dtype="BF16"),
        "affine4-g128",
    ),
    "gptq of 2 bits": (GPTQ | {"bits": 2}, gptq(2, 64), "int2-g64"),
    "gptq of 3 bits": (GPTQ | {"bits": 3, "sym": False}, gptq(3, 32, sym=False), "affine3"),
    "gptq of 8 bits": (GPTQ | {"bits": 8}, gptq(8, 32), "q8_0"),
    "auto-round": (
        {"quant_method": "auto-round", "bits": 4, "group_size": 128, "packing_format": "auto_round:auto_gptq"},
        gptq(sym=False),
        "affine4-g128",
    ),
    "awq": (AWQ, awq(), "affine4-g128"),
    "awq of 32": (AWQ | {"group_size": 32}, awq(32, dtype="BF16"), "affine4"),
    "awq symmetric": (AWQ, awq(64, middle=True), "int4-g64"),
    "nf4": (BNB, four_bits(), "nf4"),
    "nf4 nested": (BNB | {"bnb_4bit_use_double_quant": True}, four_bits(nested=True), "nf4"),
    "nf4 of blocks across rows": (BNB, four_bits(block=256), "nf4"),
    "fp4": (BNB | {"bnb_4bit_quant_type": "fp4"}, four_bits("fp4"), "fp4"),
    "llm.int8": ({"quant_method": "bitsandbytes", "load_in_8bit": True}, int8, "llm.int8"),
    "fp8 in blocks": (FP8, fp8((48, 128)), "fp8-block128"),
    "fp8 in blocks, bf16": (FP8, fp8((48, 128), dtype="BF16"), "fp8-block128"),
    "fp8 of matrices": ({"quant_method": "fp8"}, fp8("tensor", suffix="weight_scale"), "fp8-tensor"),
    "fp8 of rows": ({"quant_method": "fbgemm_fp8"}, fp8("rows", suffix="weight_scale"), "fp8"),
    "modelopt": ({"quant_method": "modelopt", "quant_algo": "FP8"}, fp8("tensor"), "fp8-tensor"),
    "fp8 of compressed-tensors": (
        CT(8, 0, strategy="tensor", form="float-quantized"),
        fp8("tensor", suffix="weight_scale", dtype="BF16"),
        "fp8-tensor",
    ),
    "fp8 blocks of compressed-tensors": (
        CT(8, 0, strategy="block", form="float-quantized"),
        fp8((64, 64), suffix="weight_scale"),
        "fp8-block64",
    ),
    "int4 of 128": (CT(4, 128), compressed(), "int4-g128"),
    "int4 of 128 in f16": (CT(4, 128), compressed(dtype="F16"), "int4-g128"),
    "int4 of rows": (CT(4, 0, strategy="channel"), compressed(4, 0), "int4-channel"),
    "int4 asymmetric": (CT(4, 64, sym=False), compressed(4, 64, sym=False), "affine4-g64"),
    "int4 asymmetric of rows": (
        CT(4, 0, sym=False, strategy="channel"),
        compressed(4, 0, sym=False),
        "affine4-g",
    ),
    "int4 in order": (CT(4, 32), compressed(4, 32, order=True), "int4-g32"),
    "int4 asymmetric in order": (CT(4, 32, sym=False), compressed(4, 32, sym=False, order=True), "int4-g32"),
    "int3": (CT(3, 32), compressed(3, 32), "int3-g32"),
    "int3 in loose words": (CT(3, 32), compressed(3, 32, loose=True), "int3-g32"),
    "int6": (CT(6, 64), compressed(6, 64), "int6-g64"),
    "int8 of 128": (CT(8, 128), compressed(8, 128), "int8-g128"),
    "int8 bytes": (
        CT(8, 0, strategy="channel", form="int-quantized"),
        compressed(8, 0, packed=False),
        "int8-channel",
    ),
    "int8 bytes of groups": (CT(8, 64, form="naive-quantized"), compressed(8, 64, packed=False), "int8-g64"),
    "int8 bytes of matrices": (
        CT(8, 0, strategy="tensor", form="int-quantized"),
        compressed(8, -1, packed=False),
        "int8-channel",
    ),
    "int8 bytes with idle zero points": (
        CT(8, 0, sym=False, strategy="channel", form="int-quantized"),
        compressed(8, 0, packed=False, points=True),
        "int8-channel",
    ),
    "int8 bytes asymmetric": (
        CT(8, 32, sym=False, form="int-quantized"),
        compressed(8, 32, sym=False, packed=False),
        "affine8",
    ),
}
"""Kind -> settings, how matrices are made, and how the name of their type begins."""


def check(folder: Path, kind: str) -> None:
    """Whether every weight of a folder of that kind is read as it must be, bit by bit, and any rows likewise."""
    settings, make, label = KINDS[kind]
    expected = write(folder, settings, make)
    checkpoint = open_source(str(folder))
    assert len(expected) == 14
    with Reader() as reader:
        for name, wanted in expected.items():
            tensor = checkpoint.tensors[name]
            if tensor.columns == 256:  # one group of 128 is a row elsewhere
                assert tensor.encoding.name.startswith(label), tensor.encoding.name
            np.testing.assert_array_equal(weights(tensor, 0, tensor.rows, reader), wanted, err_msg=name)
            for first, count in ((0, 1), (tensor.rows // 3, 5), (tensor.rows - 7, 7)):
                np.testing.assert_array_equal(weights(tensor, first, count, reader), wanted[first : first + count])


def weights_of(source: Path, name: str) -> np.ndarray:
    """Weights of a tensor of a folder or file."""
    tensor = open_source(str(source)).tensors[name]
    with Reader() as reader:
        return weights(tensor, 0, tensor.rows, reader)


def kinds(*starts: str) -> list[str]:
    """The kinds whose names begin so."""
    return [kind for kind in KINDS if kind.startswith(starts)]


def fp8_alone(random: np.random.Generator, shape: tuple[int, int]) -> tuple[Stored, np.ndarray]:
    """Matrices of FP8 numbers without scales, as a cast makes them."""
    arrays, weights = fp8("tensor")(random, shape)
    scale = next(array for suffix, (_, array) in arrays.items() if suffix != "weight")
    return {"weight": arrays["weight"]}, weights / np.float32(scale)


def as_torch(dtype: str, array: np.ndarray) -> Any:
    """A stored array as a tensor of torch."""
    import torch

    array = np.ascontiguousarray(array)
    if dtype == "BF16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    tensor = torch.from_numpy(array.copy())
    return tensor.view(torch.float8_e4m3fn) if dtype == "F8_E4M3" else tensor
