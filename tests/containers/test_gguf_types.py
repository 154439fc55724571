"""Every type of GGUF in a whole file: llama.cpp runs it and computes with the weights that gemmaq reads from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import wide_models
from damage import small_model
from gemmaq.calibration import imatrix
from gemmaq.encodings import ENCODINGS, Encoding, Kind
from gemmaq.models.gemma3.config import pattern
from gemmaq.planning.mixtures import MIXTURES
from inprocess import refused, run
from oracles import load_llama, need_ggml, read_gguf

Require = Callable[[bool, str], None]

TYPES = [encoding for encoding in ENCODINGS.values() if encoding.ggml_type is not None]
GRIDS = [encoding.name for encoding in TYPES if encoding.kind is Kind.GRID]
QUANTS = {"iq2_s": "iq2_m"}
"""Type -> the mixture that is mostly in it, where that has another name; llama-quantize's IQ2_S is mostly IQ2_XS."""
TOKENS = [2, *(3 + 7 * i % 250 for i in range(31))]


@dataclass(frozen=True)
class Source:
    """A small random model with rows for every type, and an importance matrix for it."""

    folder: Path
    matrix: Path

    def options(self, encoding: Encoding) -> tuple[str | Path, ...]:
        """Options of convert that write all matrices in a type, with importance where there is a rule for it."""
        table = encoding.name if encoding.plain and not encoding.needs_importance else "q6_k"
        weighed = ("--method", "importance", "--imatrix", self.matrix) if encoding.weighted else ()
        return ("--quant", QUANTS.get(encoding.name, encoding.name), "--embedding", table, *weighed, "-q")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    root = tmp_path_factory.mktemp("source")
    config = replace(wide_models.CONFIGS["like-1B"], num_hidden_layers=2, layer_pattern=pattern(2, 6))
    folder = small_model(root / "model", config)
    entries = {
        name: imatrix.Entry(values, np.ones(1, np.float32)) for name, values in wide_models.importances(folder).items()
    }
    matrix = root / "imatrix.gguf"
    matrix.write_bytes(imatrix.document(imatrix.Imatrix(entries, ("text.txt",), 8, 512)))
    return Source(folder, matrix)


def logits(path: Path) -> np.ndarray:
    with load_llama(path) as llama:
        return np.concatenate([part.copy() for part in llama.logits(TOKENS, exact=True)])


@pytest.mark.oracle
@pytest.mark.parametrize("encoding", TYPES, ids=lambda encoding: encoding.name)
def test_llama_cpp_computes_with_the_weights_that_gemmaq_reads(
    require: Require, source: Source, tmp_path: Path, encoding: Encoding
) -> None:
    need_ggml(require)
    run("convert", source.folder, *source.options(encoding), "-o", tmp_path / "out")
    path = next((tmp_path / "out").glob("*.gguf"))
    kinds = {kind for kind, *_ in read_gguf(path)[1].values()}
    assert encoding.ggml_type in kinds
    run("convert", path, "--quant", "f32", "-q", "-o", tmp_path / "read")
    ours, theirs = logits(path), logits(next((tmp_path / "read").glob("*.gguf")))
    assert np.isfinite(ours).all()
    off = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)  # llama.cpp computes with activations of eight bits
    assert off < 0.05


@pytest.mark.parametrize("name", ("iq4_xs", *GRIDS))
def test_iq_types_are_sources_like_any_other(source: Source, tmp_path: Path, name: str) -> None:
    options = source.options(ENCODINGS[name])
    run("convert", source.folder, *options, "-o", tmp_path / "out")
    path = next((tmp_path / "out").glob("*.gguf"))
    quant = QUANTS.get(name, name)
    assert read_gguf(path)[0]["general.file_type"][1] == (MIXTURES.get(quant) or ENCODINGS[name]).file_type
    assert name in json.loads(run("inspect", path, "--json").stdout)["types"]
    run("convert", path, "--quant", "auto", "-q", "-o", tmp_path / "kept")
    assert read_gguf(next((tmp_path / "kept").glob("*.gguf")))[1] == read_gguf(path)[1]
    run("convert", path, "--to", "mlx", "--quant", "q4_0", "-q", "-o", tmp_path / "mlx")
    estimates = json.loads(run("estimate-vram", path, "--context", "512", "--json").stdout)["estimates"]
    assert estimates[0]["quant"] == name and estimates[0]["bytes"]["weights"] > 0
    run("verify", tmp_path / "out", "--against", source.folder, "--imatrix", source.matrix, "-q")


@pytest.mark.parametrize("name", GRIDS)
def test_types_that_need_a_matrix_are_refused_without(source: Source, tmp_path: Path, name: str) -> None:
    if name == "iq3_s":
        run("convert", source.folder, "--quant", name, "-q", "-o", tmp_path / "out")
        return
    why = " without an importance matrix", "--method importance"
    for method in ("auto", "nearest"):
        arguments = ("convert", source.folder, "--quant", name, "--method", method, "-o", tmp_path / "out")
        refused(2, why, *arguments, under=tmp_path)


@pytest.mark.parametrize("name", ("iq2_xs", "iq2_xxs"))
def test_tables_have_no_importance(source: Source, tmp_path: Path, name: str) -> None:
    why = f"embed_tokens.weight cannot be {name.upper()}", "no importance matrix has data for rows", "--embedding"
    refused(2, why, "convert", source.folder, "--embedding", name, "-o", tmp_path / "out", under=tmp_path)


def test_containers_without_these_types_refuse_them(source: Source, tmp_path: Path) -> None:
    for name in ("iq4_xs", "iq3_s"):
        for container in ("mlx", "safetensors"):
            arguments = ("convert", source.folder, "--to", container, "--quant", name, "-o", tmp_path / "out")
            refused(3, (f"{container} cannot hold {name.upper()}",), *arguments, under=tmp_path)


def test_narrow_rows_are_iq4_nl(tiny: Path, tmp_path: Path) -> None:
    run("convert", tiny, "--quant", "iq3_s", "-q", "-o", tmp_path / "out")
    kinds = {kind for kind, *_ in read_gguf(next((tmp_path / "out").glob("*.gguf")))[1].values()}
    assert ENCODINGS["iq4_nl"].ggml_type in kinds and ENCODINGS["iq3_s"].ggml_type not in kinds
