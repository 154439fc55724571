"""The registry: what entries say agrees with gguf-py, and a new type is one module and one entry."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from gguf import GGMLQuantizationType, LlamaFileType
from gguf.constants import GGML_QUANT_SIZES

from gemmaq.encodings import ENCODINGS, Codec, Encoding, Kind, Quantized, by_ggml_type, codec, dequantize, find
from gemmaq.encodings.bitstream import pack_codes, unpack_codes
from gemmaq.files.ggml_types import TYPES, GgmlType
from gemmaq.sources.open import open_source
from inprocess import refused, run
from oracles import read_gguf

IN_GGUF = [encoding for encoding in ENCODINGS.values() if encoding.ggml_type is not None]


@pytest.mark.parametrize("encoding", IN_GGUF, ids=lambda encoding: encoding.name)
def test_numbers_and_sizes_are_those_of_gguf_py(encoding: Encoding) -> None:
    ggml_type = GGMLQuantizationType[encoding.label]
    assert encoding.ggml_type == ggml_type and by_ggml_type(int(ggml_type)) == encoding
    assert GGML_QUANT_SIZES[ggml_type] == (encoding.block, encoding.block_bytes)
    names = [f"{kind}_{encoding.label}{suffix}" for kind in ("ALL", "MOSTLY") for suffix in ("", "_M", "_MOE")]
    assert encoding.file_type in [LlamaFileType[name] for name in names if name in LlamaFileType.__members__]


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=lambda encoding: encoding.name)
def test_entries_are_complete(encoding: Encoding) -> None:
    assert encoding.is_float == (encoding.bits == 0) == (encoding.block == 1) == (encoding.scales == "")
    assert encoding.codebook or encoding.kind not in (Kind.CODEBOOK, Kind.MINIFLOAT, Kind.GRID)
    assert not encoding.codebook or 1 << encoding.bits - 1 < len(encoding.codebook) <= 1 << encoding.bits
    assert encoding.kind is Kind.SUPER or (encoding.zero is not None) == (encoding.kind is Kind.LINEAR)
    assert encoding.fallback is None or ENCODINGS[encoding.fallback].block < encoding.block
    assert find(encoding.name.upper()) == encoding
    assert encoding.weighted == (codec(encoding).weighted is not None)
    assert encoding.weighted or not encoding.needs_importance


def add(monkeypatch: pytest.MonkeyPatch, encoding: Encoding, codec: Codec) -> None:
    """Register a type: a module of its own with the codec, and the entry."""
    module = ModuleType(f"gemmaq.encodings.{encoding.module}")
    module.__dict__["CODECS"] = {encoding.name: codec}
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(ENCODINGS, encoding.name, encoding)


FP4 = Encoding(
    "q4_9", Kind.CODEBOOK, 32, 17, "toy_fp4", bits=4, scales="exponents", ggml_type=99, file_type=99,
    codebook=(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12),
)  # fmt: skip
"""A type that only these tests know: an exponent and 16 bytes of codes a block, as in MXFP4."""


def fp4_codec() -> Codec:
    """Scales are powers of two, so that the largest weight of a block is near the largest level."""
    levels = np.array(FP4.codebook, np.float32)

    def nearest(x: np.ndarray) -> Quantized:
        blocks = x.reshape(-1, 32)
        largest = np.maximum(np.abs(blocks).max(axis=1, keepdims=True), np.float32(2.0**-100))
        scales = np.exp2(np.floor(np.log2(largest)) - 3).astype(np.float32)
        codes = np.abs(blocks[:, :, None] - scales[:, :, None] * levels).argmin(axis=2).astype(np.uint8)
        return Quantized(codes.reshape(x.shape), scales.reshape(len(x), -1))

    def pack(q: Quantized) -> np.ndarray:
        codes = q.codes.reshape(-1, 32)
        exponents = (np.log2(q.scales) + 128).astype(np.uint8).reshape(-1, 1)
        return np.hstack([exponents, codes[:, :16] | codes[:, 16:] << 4]).reshape(len(q.codes), -1)

    def read(raw: np.ndarray) -> Quantized:
        blocks = raw.reshape(-1, 17)
        codes = np.hstack([blocks[:, 1:] & 15, blocks[:, 1:] >> 4])
        scales = np.exp2(blocks[:, 0].astype(np.float32) - 128)
        return Quantized(codes.reshape(len(raw), -1), scales.reshape(len(raw), -1))

    return Codec(read, nearest, pack)


def test_a_new_type_of_gguf_is_one_module_and_one_entry(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    from gguf.quants import dequantize as gguf_dequantize

    add(monkeypatch, FP4, fp4_codec())
    monkeypatch.setitem(TYPES, 99, GgmlType(99, "Q4_9", 32, 17))
    monkeypatch.setitem(GGML_QUANT_SIZES, 99, (32, 17))  # for `read_gguf`
    options = ("--quant", "Q4_9", "-o", tmp_path / "out")
    (dry,) = json.loads(run("convert", tiny, *options, "--dry-run", "--json").stdout)["artifacts"]
    run("convert", tiny, *options, "-q")
    path = tmp_path / "out/gemma-3-tiny-Q4_9.gguf"
    assert path.stat().st_size == next(file["bytes"] for file in dry["files"] if file["path"] == path.name)
    keys, tensors = read_gguf(path)
    assert keys["general.file_type"][1] == FP4.file_type
    source, again = open_source(str(tiny)), open_source(str(path))
    name = next(t.name for t in source.tensors.values() if t.place.role.is_layer_matrix)
    assert again.tensors[name].encoding == FP4
    raw = np.frombuffer(tensors[source.family.names.to_gguf(name)][2], np.uint8).reshape(source.tensors[name].rows, -1)
    theirs = gguf_dequantize(raw, GGMLQuantizationType.MXFP4)
    assert np.array_equal(dequantize(FP4, fp4_codec().read(raw)), theirs)
    run("convert", path, "--quant", "auto", "-q", "-o", tmp_path / "kept")
    assert read_gguf(tmp_path / "kept/gemma-3-tiny-Q4_9.gguf")[1] == tensors
    run("convert", path, "--quant", "q4_1", "-q", "-o", tmp_path / "other")
    run("convert", path, "--to", "safetensors", "--quant", "bf16", "-q", "-o", tmp_path / "back")
    run("verify", tmp_path / "out", "--against", tiny, "-q")


def test_what_cannot_hold_or_choose_a_new_type_refuses_it(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    add(monkeypatch, FP4, fp4_codec())
    text = tmp_path / "text.txt"
    text.write_text("<b>words</b>\n\n<td>to calibrate on</td>\n" * 400)
    for container in ("mlx", "safetensors"):
        refused(
            3,
            (f"{container} cannot hold Q4_9",),
            "convert",
            tiny,
            "--to",
            container,
            "--quant",
            "q4_9",
            under=tmp_path,
        )
    for method in ("importance", "gptq"):
        arguments = ("convert", tiny, "--quant", "q4_9", "--method", method, "--text", text, "-o", tmp_path / "out")
        refused(3, (f"method {method} cannot write Q4_9", "q4_0"), *arguments, under=tmp_path)


def test_a_new_linear_type_goes_to_mlx_and_through_every_method(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    int3 = Encoding("int3", Kind.LINEAR, 32, 16, "toy_int3", bits=3, zero=4, scales="bf16", mlx=True)

    def nearest(x: np.ndarray) -> Quantized:
        blocks = x.reshape(-1, 32)
        scales = np.maximum(np.abs(blocks).max(axis=1, keepdims=True), np.float32(1e-30)) / np.float32(4)
        codes = np.clip(np.rint(blocks / scales) + 4, 0, 7).astype(np.uint8)
        return Quantized(codes.reshape(x.shape), scales.reshape(len(x), -1))

    add(monkeypatch, int3, Codec(nearest=nearest))
    run("convert", tiny, "--to", "mlx", "--quant", "int3", "--embedding", "int3", "-q", "-o", tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["quantization"] == {"group_size": 32, "bits": 3, "mode": "affine"}
    again = open_source(str(tmp_path / "out"))
    kinds = {t.encoding.name for t in again.tensors.values() if t.place.role.is_quantizable}
    assert kinds == {"int3"}
    codes = np.arange(64, dtype=np.uint8).reshape(2, 32) % 8
    assert np.array_equal(unpack_codes(3, pack_codes(3, codes)), codes)


def test_iq4_nl_is_for_gguf_alone(tiny: Path, tmp_path: Path) -> None:
    for container in ("mlx", "safetensors"):
        arguments = ("convert", tiny, "--to", container, "--quant", "iq4_nl", "-o", tmp_path / "out")
        refused(3, (f"{container} cannot hold IQ4_NL",), *arguments, under=tmp_path)


def test_iq4_nl_is_a_source_like_any_other(tiny: Path, tmp_path: Path) -> None:
    run("convert", tiny, "--quant", "iq4_nl", "-q", "-o", tmp_path / "out")
    path = tmp_path / "out/gemma-3-tiny-IQ4_NL.gguf"
    assert read_gguf(path)[0]["general.file_type"][1] == 25
    assert "iq4_nl" in json.loads(run("inspect", path, "--json").stdout)["types"]
    run("convert", path, "--quant", "auto", "-q", "-o", tmp_path / "kept")
    assert read_gguf(tmp_path / "kept/gemma-3-tiny-IQ4_NL.gguf")[1] == read_gguf(path)[1]
    run("convert", path, "--to", "mlx", "--quant", "q4_0", "-q", "-o", tmp_path / "mlx")
    estimates = json.loads(run("estimate-vram", path, "--quant", "iq4_nl", "--context", "512", "--json").stdout)[
        "estimates"
    ]
    assert estimates[0]["quant"] == "iq4_nl" and estimates[0]["bytes"]["weights"] > 0
