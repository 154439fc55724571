"""Folders with floating point codes are sources: those of gemmaq, and those of mlx_lm.convert."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gemmaq.checkpoint.rows import weights
from gemmaq.files.span import Reader
from gemmaq.sources.open import open_source
from inprocess import refused, run
from oracles import read_gguf
from runtimes import Require, need

MODES = {"mxfp4": (32, 4), "mxfp8": (32, 8), "nvfp4": (16, 4)}
"""Mode of MLX -> group size and bits."""


@pytest.mark.parametrize("mode", MODES)
def test_an_mlx_folder_comes_back_as_it_was(mode: str, tiny: Path, tmp_path: Path) -> None:
    run("convert", tiny, "--to", "mlx", "--quant", mode, "--embedding", mode, "-q", "-o", tmp_path / "first")
    config = json.loads((tmp_path / "first/config.json").read_text())
    group, bits = MODES[mode]
    assert config["quantization"] == {"group_size": group, "bits": bits, "mode": mode}
    run("convert", tmp_path / "first", "--to", "mlx", "--quant", "auto", "-q", "-o", tmp_path / "second")
    before, after = (tmp_path / folder / "model.safetensors" for folder in ("first", "second"))
    assert before.read_bytes() == after.read_bytes()
    assert mode in json.loads(run("inspect", tmp_path / "first", "--json").stdout)["types"]
    run("verify", tmp_path / "first", "--against", tiny, "-q")


def test_mxfp4_has_the_same_codes_in_every_container(tiny: Path, tmp_path: Path) -> None:
    run(
        "convert",
        tiny,
        "--quant",
        "mxfp4",
        "--to",
        "gguf",
        "--to",
        "mlx",
        "--to",
        "safetensors",
        "-q",
        "-o",
        tmp_path / "all",
    )
    first = read_gguf(next((tmp_path / "all/gguf").glob("*.gguf")))[1]
    for container in ("mlx", "safetensors"):
        run("convert", tmp_path / "all" / container, "--quant", "auto", "-q", "-o", tmp_path / container)
        again = read_gguf(next((tmp_path / container).glob("*.gguf")))[1]
        same = [name for name in first if first[name] == again[name]]
        assert set(first) - set(same) <= {"token_embd.weight"}, container
    report = json.loads(
        run(
            "convert", tmp_path / "mlx", "--to", "mlx", "--quant", "auto", "--json", "-q", "-o", tmp_path / "back"
        ).stdout
    )
    assert report["artifacts"][0]["outcomes"].keys() == {"exact", "float"}


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_what_mlx_lm_converts_is_read(mode: str, tiny: Path, tmp_path: Path, require: Require) -> None:
    need(require, "mlx_lm")
    import mlx.core as mx

    command = ["--hf-path", str(tiny), "--mlx-path", str(tmp_path / "theirs"), "-q", "--q-mode", mode]
    subprocess.run([sys.executable, "-m", "mlx_lm", "convert", *command], check=True, capture_output=True)
    source = open_source(str(tmp_path / "theirs"))
    arrays = mx.load(str(tmp_path / "theirs/model.safetensors"))
    assert {t.encoding.name for t in source.tensors.values() if t.place.role.is_quantizable} == {mode}
    for name, tensor in source.tensors.items():
        if tensor.place.role.is_quantizable:
            stem = name.removesuffix("weight")
            theirs = mx.dequantize(arrays[name], arrays[f"{stem}scales"], mode=mode, dtype=mx.float32)
            with Reader() as reader:
                np.testing.assert_array_equal(weights(tensor, 0, tensor.rows, reader), np.array(theirs))


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_mlx_lm_computes_with_these_weights(mode: str, tiny: Path, tmp_path: Path, require: Require) -> None:
    need(require, "mlx_lm", "torch", "transformers")
    import runtimes

    run("convert", tiny, "--to", "mlx", "--quant", mode, "-q", "-o", tmp_path / "mlx")
    run("convert", tmp_path / "mlx", "--to", "safetensors", "--quant", "f32", "-q", "-o", tmp_path / "f32")
    ids = [2, *range(100, 140)]
    theirs, expected = (
        runtimes.mlx_logits(tmp_path / "mlx", ids),
        runtimes.logits(runtimes.whole(tmp_path / "f32"), ids),
    )
    assert np.abs(theirs - expected).max() < 1e-5 * np.ptp(expected)


def test_odd_arrays_are_refused(tiny: Path, tmp_path: Path) -> None:
    run("convert", tiny, "--to", "mlx", "--quant", "mxfp4", "-q", "-o", tmp_path / "out")
    path = tmp_path / "out/model.safetensors"
    data = path.read_bytes()
    assert b'"U8","shape":[64,2]' in data
    path.write_bytes(data.replace(b'"U8","shape":[64,2]', b'"U8","shape":[2,64]'))
    refused(3, ("which cannot be read", "q_proj"), "convert", tmp_path / "out", "-o", tmp_path / "no", under=tmp_path)


def test_a_divisor_of_scales_is_kept_where_the_container_has_one(tiny: Path, tmp_path: Path) -> None:
    """As in folders of other tools, whose divisors are any number."""
    run("convert", tiny, "--to", "safetensors", "--quant", "nvfp4", "-q", "-o", tmp_path / "first")
    path, ours = tmp_path / "first/model.safetensors", np.float32(64).tobytes()
    data = path.read_bytes()
    theirs = np.float32(100.3).tobytes()
    head = 8 + int.from_bytes(data[:8], "little")
    constants = data[head:].find(ours)
    changed = data[:head] + data[head:].replace(ours * 49, theirs * 49, 1)
    assert constants == 0 and changed != data
    path.write_bytes(changed)
    run("convert", tmp_path / "first", "--to", "safetensors", "--quant", "auto", "-q", "-o", tmp_path / "second")
    assert (tmp_path / "second/model.safetensors").read_bytes() == changed
    run("convert", tmp_path / "first", "--to", "mlx", "--quant", "auto", "-q", "-o", tmp_path / "mlx")
    run("convert", tmp_path / "mlx", "--to", "safetensors", "--quant", "auto", "-q", "-o", tmp_path / "third")
    one = np.float32(1).tobytes() * 49
    assert (tmp_path / "third/model.safetensors").read_bytes()[head:].startswith(one)


def test_nvfp4_has_finer_scales_where_no_other_container_takes_part(tiny: Path, tmp_path: Path) -> None:
    for folder, *to in (("alone", "safetensors"), ("both", "safetensors", "mlx")):
        run(
            "convert",
            tiny,
            *(part for name in to for part in ("--to", name)),
            "--quant",
            "nvfp4",
            "-q",
            "-o",
            tmp_path / folder,
        )
    name = "model.layers.0.self_attn.q_proj.weight"
    found = []
    for folder in (tiny, tmp_path / "alone", tmp_path / "both/safetensors", tmp_path / "both/mlx"):
        tensor = open_source(str(folder)).tensors[name]
        with Reader() as reader:
            found.append(weights(tensor, 0, tensor.rows, reader))
    np.testing.assert_array_equal(found[2], found[3])
    assert np.square(found[1] - found[0]).sum() <= np.square(found[2] - found[0]).sum()
