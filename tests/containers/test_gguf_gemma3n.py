"""GGUF files of Gemma 3n: against llama.cpp's converter, llama-quantize and transformers, and read back."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gemma3n
from gemmaq.checkpoint.folder import open_folder
from gemmaq.checkpoint.rows import weights
from gemmaq.encodings import by_ggml_type
from gemmaq.files.span import Reader
from gemmaq.models.gemma3n import names
from oracles import llama_quantize, load_llama, need_ggml, read_gguf, reference_converter

Require = Callable[[bool, str], None]
Convert = Callable[..., Path]

OURS_ONLY = {"general.license": "gemma", "general.license.link": "https://ai.google.dev/gemma/terms"}
"""Keys that the converter writes only for a folder with a card, and we always."""
BY_TOKENIZER_JSON = {
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.ggml.add_eos_token": False,
    "tokenizer.ggml.add_sep_token": False,
    "tokenizer.ggml.unknown_token_id": 3,
}
"""Keys that the converter takes from tokenizer.json alone, which this folder lacks."""
NAMED_OTHERWISE = {"general.name", "general.size_label", "general.basename", "general.finetune"}
"""Keys that are made of the folder's name and of the number of parameters, by other rules."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder with all tensors of a release."""
    return gemma3n.write(tmp_path_factory.mktemp("gemma3n") / "gemma-3n-tiny", dict(gemma3n.weights(idle=True)))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without the keys and values that no layer uses, as transformers saves it."""
    return gemma3n.write(tmp_path_factory.mktemp("gemma3n") / "gemma-3n-tiny", dict(gemma3n.weights()))


@pytest.fixture(scope="module")
def converted(gemmaq: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Convert:
    """What a source becomes in a type: the GGUF file, or the folder of another container."""
    made: dict[tuple[Path, str, str], Path] = {}

    def convert(source: Path, quant: str, to: str = "gguf") -> Path:
        key = (source, quant, to)
        if key not in made:
            out = tmp_path_factory.mktemp("out") / "made"
            gemmaq("convert", source, "--quant", quant, "--to", to, "-o", out)
            made[key] = next(out.glob("*.gguf")) if to == "gguf" else out
        return made[key]

    return convert


def kinds(path: Path) -> dict[str, str]:
    return {name: by_ggml_type(kind).name for name, (kind, _, _) in read_gguf(path)[1].items()}  # type: ignore[union-attr]


def test_streams_are_stacks_and_layer_embeddings_end_in_zeros(converted: Convert, folder: Path) -> None:
    tensors = read_gguf(converted(folder, "f32"))[1]
    assert tensors["altup_proj.weight"][1] == tensors["altup_unembd_proj.weight"][1] == [256, 256, 3]
    assert tensors["per_layer_token_embd.weight"][1] == [6400, 400]


def test_matrices_of_altup_and_laurel_stay_floats(converted: Convert, folder: Path) -> None:
    quantized, floats = kinds(converted(folder, "q4_0")), kinds(converted(folder, "bf16"))
    for part in ("altup_router", "laurel_l", "laurel_r"):
        assert (quantized[f"blk.3.{part}.weight"], floats[f"blk.3.{part}.weight"]) == ("f16", "bf16")
    assert quantized["altup_proj.weight"] == "f16" and quantized["per_layer_token_embd.weight"] == "q6_k"
    for part in ("altup_predict_coef", "altup_correct_coef", "altup_correct_scale", "altup_router_norm"):
        assert quantized[f"blk.3.{part}.weight"] == floats[f"blk.3.{part}.weight"] == "f32"


def test_keys_and_values_that_no_layer_uses_are_in_gguf_files_whether_the_source_has_them_or_not(
    converted: Convert, folder: Path, saved: Path
) -> None:
    with_them, without = (read_gguf(converted(source, "f32"))[1] for source in (folder, saved))
    idle = {names.to_gguf(name): names.to_gguf(other) for name, other in names.idle(gemma3n.CONFIG).items()}
    assert list(with_them) == list(without) and len(idle) == 15
    assert all(without[name] == without[other] != with_them[name] for name, other in idle.items())
    assert {name for name in without if without[name] != with_them[name]} == set(idle)


def test_a_gguf_file_gives_the_folder_that_it_came_from(converted: Convert, folder: Path) -> None:
    made = [converted(source, "bf16", "safetensors") for source in (folder, converted(folder, "bf16"))]
    first, again = (open_folder(path, "m", "m") for path in made)
    assert list(first.tensors) == list(again.tensors) and first.notes == again.notes == ()
    with Reader() as reader:
        for tensor, same in zip(first.tensors.values(), again.tensors.values(), strict=True):
            assert np.array_equal(weights(tensor, 0, tensor.rows, reader), weights(same, 0, tensor.rows, reader))
    one, other = (json.loads((path / "config.json").read_text()) for path in made)
    assert one.pop("vocab_size_per_layer_input") == 320 and other.pop("vocab_size_per_layer_input") == 400
    assert one == other


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("quant", ["f32", "bf16"])
def test_keys_and_tensors_are_those_of_the_reference_converter(
    require: Require, folder: Path, converted: Convert, tmp_path: Path, quant: str
) -> None:
    converter = reference_converter()
    require(converter is not None, "the reference converter ($GEMMAQ_REFERENCE_CONVERTER)")
    assert converter is not None
    theirs = tmp_path / "theirs.gguf"
    command = [converter, folder, "--outtype", quant, "--outfile", theirs]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (our_keys, our_tensors), (their_keys, their_tensors) = read_gguf(converted(folder, quant)), read_gguf(theirs)
    assert our_tensors == their_tensors
    for key in NAMED_OTHERWISE:
        our_keys.pop(key, None)
        their_keys.pop(key, None)
    only = OURS_ONLY | BY_TOKENIZER_JSON
    assert {key: our_keys.pop(key)[1] for key in only} == only
    assert our_keys == their_keys


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("quant", ["q4_0", "q4_k_m", "q6_k"])
def test_every_byte_is_that_of_llama_quantize(
    require: Require, folder: Path, converted: Convert, tmp_path: Path, quant: str
) -> None:
    """Besides the matrices that stay floats: F16 here, BF16 as in its source there."""
    need_ggml(require)
    theirs = tmp_path / "theirs.gguf"
    llama_quantize(converted(folder, "bf16"), theirs, quant)
    ours, expected = read_gguf(converted(folder, quant))[1], read_gguf(theirs)[1]
    differing = {name for name in ours if ours[name] != expected[name]}
    assert differing == {name for name, kind in kinds(theirs).items() if kind == "bf16"}
    assert {kinds(converted(folder, quant))[name] for name in differing} == {"f16"}


@pytest.mark.slow
@pytest.mark.oracle
def test_llama_cpp_computes_the_first_logits_of_transformers(
    require: Require, folder: Path, saved: Path, converted: Convert
) -> None:
    """Of one token: at later ones llama.cpp differs, for files of its own converter too."""
    need_ggml(require)
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model, said = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not said["missing_keys"] and not said["unexpected_keys"]
    ids = [2, 300, 310]
    with torch.no_grad():
        expected = model.eval()(input_ids=torch.tensor([ids])).logits[0].numpy()
    found = []
    for source in (folder, saved):
        with load_llama(converted(source, "f32")) as llama:
            found.append(np.concatenate([part.copy() for part in llama.logits(ids, exact=True)]))
    assert np.array_equal(found[0], found[1])
    assert np.abs(found[0][0] - expected[0]).max() < 0.005 * float(np.ptp(expected))
