"""Whole GGUF files in every type and mixture: byte for byte those that llama-quantize makes of our BF16 file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import wide_models
from gemmaq.calibration import imatrix
from gemmaq.encodings import ENCODINGS, by_ggml_type
from gemmaq.planning.mixtures import MIXTURES
from inprocess import run
from oracles import FILE_TYPES, QUANTIZED_BY, llama_quantize, need_ggml, read_gguf

Require = Callable[[bool, str], None]


SOME = ("q4_0", "q2_k", "q3_k_m", "q4_k_m", "iq2_xs", "iq2_m", "iq3_xxs", "iq4_xs")
"""A type for every rule that depends on the kind of model; all of them are compared on the others."""


@dataclass(frozen=True)
class Source:
    """A model as folder and as BF16 file, and an importance matrix for it, as file and as numbers."""

    kind: str
    folder: Path
    bf16: Path
    matrix: Path
    importances: Mapping[str, np.ndarray]


@pytest.fixture(scope="module", params=wide_models.CONFIGS)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Source:
    root = tmp_path_factory.mktemp("source")
    folder = wide_models.write(request.param, root / "model")
    run("convert", folder, "--quant", "bf16", "-o", root / "bf16")
    numbers = wide_models.importances(folder)
    entries = {name: imatrix.Entry(values, np.ones(1, np.float32)) for name, values in numbers.items()}
    matrix = root / "imatrix.gguf"
    matrix.write_bytes(imatrix.document(imatrix.Imatrix(entries, ("text.txt",), 8, 512)))
    return Source(request.param, folder, next((root / "bf16").glob("*.gguf")), matrix, numbers)


def same(ours: Path, theirs: Path) -> None:
    """Compare two files; where they differ, by parts first, which says more."""
    if ours.read_bytes() == theirs.read_bytes():
        return
    (our_keys, our_tensors), (their_keys, their_tensors) = read_gguf(ours), read_gguf(theirs)
    kinds = [
        {name: by_ggml_type(kind).name for name, (kind, *_) in tensors.items()}  # type: ignore[union-attr]
        for tensors in (our_tensors, their_tensors)
    ]
    assert kinds[0] == kinds[1]
    assert [name for name, tensor in our_tensors.items() if tensor != their_tensors[name]] == []
    assert list(our_keys.items()) == list(their_keys.items())
    raise AssertionError("the files differ outside keys and tensors")


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.parametrize("quant", FILE_TYPES)
def test_a_file_is_that_of_llama_quantize(require: Require, source: Source, tmp_path: Path, quant: str) -> None:
    need_ggml(require)
    if source.kind != "like-4B" and quant not in SOME:
        return
    options = ("--quant", quant, "--ple-proj-type", "bf16", "-q", "-o", tmp_path / "out")
    if quant in MIXTURES and MIXTURES[quant].needs_importance:
        assert "without an importance matrix" in run("convert", source.folder, *options, code=2).stderr
        return
    llama_quantize(source.bf16, tmp_path / "theirs.gguf", quant)
    run("convert", source.folder, *options)
    same(next((tmp_path / "out").glob("*.gguf")), tmp_path / "theirs.gguf")


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.parametrize("quant", FILE_TYPES)
def test_a_file_is_that_of_llama_quantize_with_a_matrix(
    require: Require, source: Source, tmp_path: Path, quant: str
) -> None:
    need_ggml(require)
    if source.kind in ("like-1B", "like-E2B", "untied") and quant not in SOME:
        return
    if quant == "mxfp4_moe" and source.kind == "like-26B-A4B":
        return  # llama-quantize does not weigh MXFP4 with the matrix that it is given, and gemmaq refuses to
    keys = {"file": source.matrix.name, "dataset": "text.txt", "entries_count": len(source.importances)}
    told = {f"quantize.imatrix.{key}": value for key, value in (keys | {"chunks_count": 8}).items()}
    llama_quantize(source.bf16, tmp_path / "theirs.gguf", quant, dict(source.importances), QUANTIZED_BY | told)
    options = ("--quant", quant, "--ple-proj-type", "bf16", "-q", "-o", tmp_path / "out")
    run("convert", source.folder, *options, "--method", "importance", "--imatrix", source.matrix)
    same(next((tmp_path / "out").glob("*.gguf")), tmp_path / "theirs.gguf")


@pytest.mark.oracle
@pytest.mark.slow
def test_types_by_hand_are_those_of_llama_quantize(require: Require, source: Source, tmp_path: Path) -> None:
    need_ggml(require)
    by_hand = {"blk\\.[0-3]\\.attn_k": "q8_0", "attn_k": "q5_1", "ffn_(up|gate)": "q6_k", "token_embd": "q4_k"}
    numbers = {pattern: ENCODINGS[kind].ggml_type or 0 for pattern, kind in by_hand.items()}
    llama_quantize(source.bf16, tmp_path / "theirs.gguf", "q3_k_m", tensor_types=numbers)
    chosen = [word for pattern, kind in by_hand.items() for word in ("--tensor-type", f"{pattern}={kind}")]
    options = ("--quant", "q3_k_m", "--ple-proj-type", "bf16", *chosen)
    run("convert", source.folder, *options, "-q", "-o", tmp_path / "out")
    same(next((tmp_path / "out").glob("*.gguf")), tmp_path / "theirs.gguf")
    run("convert", source.folder, "--like", tmp_path / "theirs.gguf", "-q", "-o", tmp_path / "like")
    same(next((tmp_path / "like").glob("*.gguf")), tmp_path / "theirs.gguf")
