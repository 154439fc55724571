"""QAT checkpoints of Gemma 4: experts and tables, recovered where they lie on the grid and told where they do not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import gemma4
import gemma4_tokenizer
from gemmaq.checkpoint import Checkpoint
from gemmaq.checkpoint.rows import weights
from gemmaq.encodings import ENCODINGS, dequantize
from gemmaq.files.span import Reader
from gemmaq.methods import Choice, quantize
from gemmaq.models.gemma4.names import EMBEDDING, LAYER_EMBEDDING, place
from gemmaq.sources.open import open_source
from grids import extremum, trained_for_q4_0, wide
from inprocess import run
from synthetic import bf16

OFF = (1, 5, 12)
STACK = "model.layers.3.experts.down_proj"
Q4_0 = ENCODINGS["q4_0"]


def trained(kind: str) -> dict[str, np.ndarray]:
    """Weights of a kind by canonical name: all matrices and tables on the grid."""
    made = {}
    for name, x in gemma4.weights(gemma4.KINDS[kind]):
        role = place(name).role
        made[name] = trained_for_q4_0(x) if role.is_quantizable else x
    return made


def folder(path: Path, kind: str, made: dict[str, np.ndarray]) -> Path:
    return gemma4_tokenizer.write(gemma4.write(path / f"gemma-4-{kind}-it-qat", gemma4.KINDS[kind], made))


def converted(source: Path, out: Path, *options: object) -> Checkpoint:
    run("convert", source, "--quant", "q4_0", *options, "-q", "-o", out)
    return open_source(str(next(out.glob("*.gguf"))))


def stored(checkpoint: Checkpoint, name: str) -> np.ndarray:
    tensor = checkpoint.tensors[name]
    with Reader() as reader:
        return weights(tensor, 0, tensor.rows, reader).reshape(tensor.shape)


def test_experts_off_the_grid_do_not_cost_the_others(tmp_path: Path) -> None:
    made = trained("experts")
    plain = dict(gemma4.weights(gemma4.EXPERTS))[STACK]
    for expert in OFF:
        made[STACK][expert] = wide(bf16(plain[expert]))
    source = folder(tmp_path, "experts", made)
    result = converted(source, tmp_path / "out")
    for name, x in made.items():
        if place(name).role.is_quantizable:
            found, on = stored(result, name), [n for n in range(16) if n not in OFF] if name == STACK else slice(None)
            assert result.tensors[name].encoding is Q4_0, name
            assert np.allclose(found[on], x[on], rtol=2**-7, atol=0), name
    rounded = quantize(made[STACK][list(OFF)].reshape(-1, 96), Q4_0, Choice("nearest"))
    exact = dequantize(Q4_0, replace(rounded, scales=rounded.scales.astype(np.float16).astype(np.float32)))
    assert np.array_equal(stored(result, STACK)[list(OFF)].reshape(-1, 96), exact)


def test_experts_are_reported_one_by_one(tmp_path: Path) -> None:
    made = trained("experts")
    plain = dict(gemma4.weights(gemma4.EXPERTS))[STACK]
    for expert in OFF:
        made[STACK][expert] = plain[expert]
    source = folder(tmp_path, "experts", made)
    report = json.loads(run("convert", source, "--dry-run", "--json").stdout)
    assert sum("3 of 16 experts of 1 tensor lie on no int4 grid" in text for text in report["warnings"]) == 1
    (entry,) = (entry for entry in report["grid"] if entry["tensor"] == STACK)
    assert entry["experts"] == {"whole": 13, "partial": 0, "none": 3} and 0.06 < entry["distance"] < 0.1
    shown = run("inspect", source).stdout
    assert "layer 3 experts down: 13 of 16 experts on the grid" in shown
    kinds = json.loads(run("inspect", source, "--json").stdout)["grid"]["kinds"]
    down, both = kinds["experts down"], kinds["experts gate+up"]
    assert (down["whole"], down["none"], both["whole"], both["none"]) == (93, 3, 96, 0)


@pytest.mark.parametrize("off", [None, EMBEDDING, LAYER_EMBEDDING])
def test_a_table_is_q4_0_if_it_lies_on_the_grid(off: str | None, tmp_path: Path) -> None:
    made = trained("effective")
    if off is not None:
        made[off] = dict(gemma4.weights(gemma4.EFFECTIVE))[off]
    source = folder(tmp_path, "effective", made)
    result = converted(source, tmp_path / "out")
    for table in (EMBEDDING, LAYER_EMBEDDING):
        assert result.tensors[table].encoding.name == ("q6_k" if table == off else "q4_0")
        assert table == off or np.allclose(stored(result, table), made[table], rtol=2**-7, atol=0)
    asked = converted(source, tmp_path / "asked", "--embedding", "q8_0")
    assert asked.tensors[EMBEDDING].encoding.name == "q8_0"


def drifted(x: np.ndarray) -> np.ndarray:
    """On the grid, but with scales of which training has left the largest code of many blocks below 8."""
    random = np.random.default_rng(7)
    scales = extremum(x)[0] * random.choice([1.0, 8 / 7, 8 / 6], len(x.reshape(-1, 32)))
    scales = scales.astype(np.float16).astype(np.float32)[:, None]
    codes = np.clip(np.rint(x.reshape(-1, 32) / np.where(scales == 0, 1, scales)), -8, 7)
    return wide(bf16((scales * codes).astype(np.float32))).reshape(x.shape)


@pytest.mark.slow
@pytest.mark.parametrize("kind", gemma4.KINDS)
def test_a_recovered_grid_keeps_the_predictions_that_the_plain_rule_loses(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    weights = gemma4.weights(gemma4.KINDS[kind])
    made = {name: drifted(x) if place(name).role.is_quantizable else x for name, x in weights}
    source, text = folder(tmp_path, kind, made), tmp_path / "text"
    text.write_text("the man and the other man in the tin hat " * 60)
    files = []
    for method in ("auto", "nearest"):
        out = tmp_path / method
        run("convert", source, "--quant", "q4_0", "--method", method, "-q", "-o", out)
        files.append(next(out.glob("*.gguf")))
    options = ("--reference", source, "--text", text, "--context", "64", "--tokens", "128", "--json")
    recovered, plain = json.loads(run("evaluate", *files, *options).stdout)["models"]
    print(f"{kind}: KL {recovered['kl']['mean']:.6f} recovered, {plain['kl']['mean']:.4f} by the plain rule")
    assert recovered["kl"]["mean"] <= 0.001 and plain["kl"]["mean"] > 10 * recovered["kl"]["mean"]
