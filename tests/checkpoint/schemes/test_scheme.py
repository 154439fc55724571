"""Folders of other programs as sources: which codes are kept, what is told, what damage does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import quantized_folders as folders
from damage import edit_header, header_of
from gemmaq.checkpoint.rows import weights
from gemmaq.checkpoint.schemes.scheme import split
from gemmaq.errors import GemmaqError
from gemmaq.files.span import Reader
from gemmaq.sources.open import open_source
from inprocess import run
from quantized_folders import GPTQ, KINDS
from small import tokenizer


@pytest.mark.parametrize("kind", ["gptq", "gptq of 32", "gptq a row", "awq symmetric", "int4 of 128 in f16"])
def test_codes_around_zero_are_kept_in_q4_0(kind: str, tmp_path: Path) -> None:
    """Blocks of Q4_0 are parts of the groups, and F16 scales stay as they are."""
    config, make, _ = KINDS[kind]
    expected = folders.write(tmp_path / "model", config, make)
    done = run("convert", tmp_path / "model", "--quant", "q4_0", "--json", "-o", tmp_path / "out")
    assert json.loads(done.stdout)["artifacts"][0]["outcomes"]["exact"] == len(expected)
    for name, wanted in expected.items():
        np.testing.assert_array_equal(folders.weights_of(tmp_path / "out", name), wanted)


@pytest.mark.parametrize("kind", ["awq", "gptq v2", "int4 asymmetric"])
def test_codes_with_zero_points_are_kept_in_mlx(kind: str, tmp_path: Path) -> None:
    """Scales and minima are rounded to BF16, which is told; codes are those of the source."""
    config, make, _ = KINDS[kind]
    expected = folders.write(tmp_path / "model", config, make)
    done = run("convert", tmp_path / "model", "--to", "mlx", "--quant", "auto", "--json", "-o", tmp_path / "out")
    outcomes = json.loads(done.stdout)["artifacts"][0]["outcomes"]
    assert outcomes["rounded"] == len(expected) and "requantized" not in outcomes
    for name, wanted in expected.items():
        distance = np.abs(folders.weights_of(tmp_path / "out", name) - wanted).max()
        assert distance < np.abs(wanted).max() / 100


@pytest.mark.parametrize(
    "kind", ["gptq in order", "nf4 nested", "llm.int8", "fp8 in blocks", "int4 asymmetric in order"]
)
def test_other_codes_are_decoded_and_quantized_anew_with_a_warning(kind: str, tmp_path: Path) -> None:
    config, make, label = KINDS[kind]
    expected = folders.write(tmp_path / "model", config, make)
    done = run("convert", tmp_path / "model", "--quant", "q8_0", "-o", tmp_path / "out")
    assert f"14 tensors are quantized a second time (from {label.upper()}" in done.stderr
    run("convert", tmp_path / "model", "--quant", "f32", "--to", "safetensors", "-o", tmp_path / "f32")
    assert "quantization_config" not in json.loads((tmp_path / "f32/config.json").read_text())
    for name, wanted in expected.items():
        np.testing.assert_array_equal(folders.weights_of(tmp_path / "f32", name), wanted)
    run("verify", tmp_path / "f32", "--against", tmp_path / "model")


@pytest.mark.parametrize(
    ("kind", "format", "words"),
    [
        (
            "gptq in order",
            "gptq",
            "quantized by GPTQ: 4 bits in groups of 128, columns in the order of their activations",
        ),
        ("auto-round", "gptq", "quantized by AutoRound, packed as GPTQ: 4 bits in groups of 128"),
        ("awq", "awq", "quantized by AWQ: 4 bits in groups of 128"),
        ("nf4 nested", "bitsandbytes", "quantized by bitsandbytes: NF4, scales quantized too"),
        ("llm.int8", "bitsandbytes", "quantized by bitsandbytes: LLM.int8"),
        ("fp8 in blocks", "fp8", "quantized to FP8, with scales of blocks of 48 x 128"),
    ],
)
def test_inspect_and_estimates_know_the_scheme(kind: str, format: str, words: str, tmp_path: Path) -> None:
    config, make, label = KINDS[kind]
    folders.write(tmp_path / "model", config, make)
    facts = json.loads(run("inspect", tmp_path / "model", "--json").stdout)
    assert facts["format"] == format and label in facts["types"]
    assert any(note.startswith(words) for note in facts["notes"])
    size = len(header_of(tmp_path / "model/model.safetensors")[1])
    assert 0.95 * size < facts["tensor_bytes"] <= size
    built = json.loads(run("estimate-vram", tmp_path / "model", "--engine", "vllm", "--json").stdout)
    assert label in json.dumps(built)
    run("estimate-vram", tmp_path / "model", "--quant", "q4_0", "--json")


def test_every_second_matrix_may_be_stored_otherwise(tmp_path: Path) -> None:
    """As with modules_to_not_convert, or with bits of their own."""
    expected = folders.write(tmp_path / "model", GPTQ, folders.gptq(), others=folders.gptq(8, 64, order=True))
    checkpoint = open_source(str(tmp_path / "model"))
    assert {checkpoint.tensors[name].encoding.bits for name in expected} == {4, 8}
    for name, wanted in expected.items():
        np.testing.assert_array_equal(folders.weights_of(tmp_path / "model", name), wanted)


def test_names_of_arrays_are_split() -> None:
    for entry, expected in {
        "a.q.weight": ("a.q.weight", "weight"),
        "a.q.qzeros": ("a.q.weight", "qzeros"),
        "a.q.weight.absmax": ("a.q.weight", "absmax"),
        "a.q.weight.quant_state.bitsandbytes__nf4": ("a.q.weight", "quant_state.bitsandbytes__nf4"),
        "a.q.SCB": ("a.q.weight", "SCB"),
        "a.q.bias": ("a.q.bias", "bias"),
        "weight": ("weight", "weight"),
    }.items():
        assert split(entry) == expected


@pytest.mark.parametrize(
    "kind", ["gptq in order", "awq", "nf4 nested", "llm.int8", "fp8 in blocks", "int4 asymmetric in order"]
)
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_damaged_arrays_are_refused_or_read(
    kind: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever a header says of them, and however many are missing."""
    folder = tmp_path_factory.getbasetemp() / f"damaged {kind}"
    if not folder.exists():
        folders.write(folder, *KINDS[kind][:2])
    path = folder / "model.safetensors"
    before = path.read_bytes()
    names = sorted(name for name in header_of(path)[0] if "layers.1.mlp.up_proj" in name)
    name = data.draw(st.sampled_from(names))
    what = data.draw(st.sampled_from(["drop", "dtype", "turn", "flat", "rows"]))
    dtype = data.draw(st.sampled_from(["I32", "F16", "BF16", "U8", "I8", "F32", "F8_E4M3", "I64"]))

    def change(header: dict) -> None:
        if what == "drop":
            del header[name]
        elif what == "dtype":
            header[name]["dtype"] = dtype
        elif what == "turn":
            header[name]["shape"].reverse()
        elif what == "flat":
            header[name]["shape"] = [int(np.prod(header[name]["shape"]))]
        else:
            header[name]["shape"] = [1, *header[name]["shape"]]

    edit_header(path, change)
    try:
        checkpoint = open_source(str(folder))
        with Reader() as reader:
            tensor = checkpoint.tensors["model.layers.1.mlp.up_proj.weight"]
            assert weights(tensor, 1, 3, reader).shape == (3, tensor.columns)
    except GemmaqError as error:
        assert error.exit_code == 3
    finally:
        path.write_bytes(before)


def test_the_order_of_columns_is_told_by_the_settings_where_only_the_header_is_here(tmp_path: Path) -> None:
    """So that an estimate counts what cannot be kept."""
    folders.write(tmp_path / "model", *KINDS["gptq in order"][:2])
    path = tmp_path / "model/model.safetensors"
    data = header_of(path)[1]
    path.write_bytes(path.read_bytes()[: -len(data)] + bytes(len(data)))
    types = json.loads(run("inspect", tmp_path / "model", "--json").stdout)["types"]
    assert "gptq4-g32" in types


def test_a_quantized_head_and_arrays_of_activations(tmp_path: Path) -> None:
    """lm_head has codes of its own beside an embedding in BF16; scales of a cache and of inputs change nothing."""
    expected = folders.write(tmp_path / "model", GPTQ, folders.gptq())
    path = tmp_path / "model/model.safetensors"
    header, data = header_of(path)
    head, wanted = folders.gptq()(np.random.default_rng(1), (320, 128))
    stored: dict = {
        name: (entry["dtype"], np.frombuffer(data[slice(*entry["data_offsets"])], np.uint8))
        for name, entry in header.items()
    }
    shapes = {name: entry["shape"] for name, entry in header.items()}
    for suffix, (dtype, array) in head.items():
        stored[f"lm_head.{suffix}"], shapes[f"lm_head.{suffix}"] = (dtype, array), list(array.shape)
    for name in ("self_attn.k_scale", "self_attn.q_proj.input_scale"):
        stored[f"model.layers.0.{name}"], shapes[f"model.layers.0.{name}"] = ("F32", np.ones(1, np.float32)), [1]
    folders.save(path, stored)
    edit_header(path, lambda found: [entry.update(shape=shapes[name]) for name, entry in found.items()])
    np.testing.assert_array_equal(folders.weights_of(tmp_path / "model", "lm_head.weight"), wanted.astype(np.float32))
    name = next(iter(expected))
    np.testing.assert_array_equal(folders.weights_of(tmp_path / "model", name), expected[name])
    run("convert", tmp_path / "model", "--quant", "q4_0", "-q", "-o", tmp_path / "out")


@pytest.mark.slow
def test_evaluate_takes_such_a_folder(tmp_path: Path) -> None:
    """Its distance from its own weights in f32 is zero."""
    folders.write(tmp_path / "model", *KINDS["nf4 nested"][:2])
    for name, content in tokenizer(folders.CONFIG.vocab_size).items():
        (tmp_path / "model" / name).write_bytes(content)
    run("convert", tmp_path / "model", "--to", "safetensors", "--quant", "f32", "-q", "-o", tmp_path / "f32")
    (tmp_path / "text.txt").write_text("\n\n".join(f"The cat {n} sat on {7 * n} mats." for n in range(30)))
    options = ("--reference", tmp_path / "f32", "--text", tmp_path / "text.txt", "--context", 64, "--tokens", 31)
    done = run("evaluate", tmp_path / "model", *options, "--json")
    assert "quantized by bitsandbytes: NF4" in done.stderr
    assert [model["kl"]["mean"] for model in json.loads(done.stdout)["models"]] == [0]
