"""An importance matrix of a model with experts: computed, written, and used as llama-quantize uses it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import gemma4
import gemma4_tokenizer
from gemmaq.calibration import imatrix
from gemmaq.encodings import ENCODINGS
from gemmaq.models.gemma4.config import pattern
from gemmaq.sources.open import open_source
from inprocess import run
from oracles import llama_quantize, llama_reads_imatrix, need_ggml, read_gguf

pytestmark = pytest.mark.usefixtures("torch_and_transformers")
LAYERS = 8
"""Enough for llama-quantize to give an eighth of them another type."""


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with experts, a text, and the importance matrix of it."""
    folder = tmp_path_factory.mktemp("experts")
    config = replace(gemma4.EXPERTS, num_hidden_layers=LAYERS, layer_pattern=pattern(LAYERS, 6))
    gemma4_tokenizer.write(gemma4.write(folder / "gemma-4-tiny", config))
    (folder / "text.txt").write_text("\n".join(gemma4_tokenizer.texts(60)))
    told = run(
        "imatrix", folder / "gemma-4-tiny", "-o", folder / "gemma-4-tiny.imatrix.gguf", *calibrated(folder)
    ).stderr
    assert "experts, in 8 of 8 layers, saw fewer than 128 tokens: their importance is blended" in told
    return folder


def calibrated(folder: Path) -> tuple[object, ...]:
    return ("--text", folder / "text.txt", "--calibration-context", 64, "--calibration-tokens", 256, "--device", "cpu")


def test_text_and_its_matrix_give_the_same_codes(experts: Path, tmp_path: Path) -> None:
    """By way of rows that are cut into slabs, and of MLX's stacks for each projection."""
    source = experts / "gemma-4-tiny"
    options = ("--quant", "q4_0", "--method", "importance", "--to", "gguf", "--to", "mlx")
    told = run("convert", source, *options, *calibrated(experts), "-o", tmp_path / "text").stderr
    assert told.count("experts, in 8 of 8 layers, saw fewer than 128 tokens") == 1
    run(
        "convert", source, *options, "--imatrix", experts / "gemma-4-tiny.imatrix.gguf", "-o", tmp_path / "matrix", "-q"
    )
    for name in ("gguf", "mlx"):
        (one, other) = (_weights(tmp_path / place / name) for place in ("text", "matrix"))
        assert one == other


def _weights(folder: Path) -> list[bytes]:
    found = [path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in (".gguf", ".safetensors")]
    assert found
    return found


@pytest.mark.oracle
def test_llama_quantize_makes_the_same_bytes_of_it(experts: Path, require, tmp_path: Path) -> None:
    """The same types too: the first eighth of the layers' down projections are Q4_1."""
    need_ggml(require)
    some = imatrix.read(experts / "gemma-4-tiny.imatrix.gguf")
    imatrix.check(some, open_source(str(experts / "gemma-4-tiny")))
    sums, _, _ = llama_reads_imatrix(experts / "gemma-4-tiny.imatrix.gguf")
    assert {name: values.tobytes() for name, values in sums.items()} == {
        name: entry.sums.tobytes() for name, entry in some.entries.items()
    }
    run("convert", experts / "gemma-4-tiny", "--quant", "bf16", "-o", tmp_path / "bf16", "-q")
    (source,) = (tmp_path / "bf16").glob("*.gguf")
    llama_quantize(source, tmp_path / "theirs.gguf", "q4_0", {name: some.importance(name) for name in some.entries})
    options = ("--method", "importance", "--imatrix", experts / "gemma-4-tiny.imatrix.gguf", "-q")
    run("convert", experts / "gemma-4-tiny", "--quant", "q4_0", *options, "-o", tmp_path / "ours")
    (ours,) = (tmp_path / "ours").glob("*.gguf")
    mine, theirs = read_gguf(ours)[1], read_gguf(tmp_path / "theirs.gguf")[1]
    assert mine == theirs
    wide = {name for name, (kind, _, _) in mine.items() if kind == ENCODINGS["q4_1"].ggml_type}
    assert wide == {"blk.0.ffn_down.weight", "blk.0.ffn_down_exps.weight"}
