"""GGUF files of Gemma 4: against llama.cpp's converter and llama-quantize, for a small model of every kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import gemma4
import gemma4_tokenizer
from conversions import conversions
from gemmaq.encodings import by_ggml_type
from gemmaq.sources.open import open_source
from oracles import llama_quantize, load_llama, need_ggml, read_gguf
from reference import convert_gemma4, need_converter

Require = Callable[[bool, str], None]

SAMPLING = {"bos_token_id": 2, "eos_token_id": [1, 106], "top_k": 64, "top_p": 0.95, "temperature": 1.0}
OURS_ONLY = {"general.license": "apache-2.0", "general.license.link": "https://www.apache.org/licenses/LICENSE-2.0"}
"""Keys that the converter writes only for a folder with a card, and we always."""
NAMED_OTHERWISE = {"general.name", "general.size_label", "general.basename", "general.finetune"}
"""Keys that are made of the folder's name and of the number of parameters, by other rules."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A Hugging Face folder of every kind."""
    root = tmp_path_factory.mktemp("gemma4")
    for kind, config in gemma4.KINDS.items():
        folder = gemma4_tokenizer.write(gemma4.write(root / f"gemma-4-{kind}", config))
        (folder / "generation_config.json").write_text(json.dumps(SAMPLING))
    return {kind: root / f"gemma-4-{kind}" for kind in gemma4.KINDS}


@pytest.fixture(scope="module")
def converted(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The GGUF file of a kind in a type."""
    convert = conversions(folders, tmp_path_factory.mktemp("made"), "--quant")
    return lambda *options: next(convert(*options).glob("*.gguf"))


def test_float_files_have_the_types_of_the_converter(converted: Callable[..., Path]) -> None:
    keys, tensors = read_gguf(converted("experts", "bf16"))
    kinds = {name: by_ggml_type(kind).name for name, (kind, _, _) in tensors.items()}  # type: ignore[union-attr]
    assert kinds["blk.0.ffn_gate_up_exps.weight"] == kinds["blk.0.ffn_down.weight"] == "bf16"
    assert {
        kinds[f"blk.0.{name}"] for name in ("ffn_gate_inp.weight", "ffn_gate_inp.scale", "ffn_down_exps.scale")
    } == {"f32"}
    assert tensors["blk.0.ffn_gate_up_exps.weight"][1] == [256, 192, 16] and kinds["rope_freqs.weight"] == "f32"
    assert keys["gemma4.expert_count"][1] == 16 and keys["tokenizer.ggml.model"][1] == "gemma4"


def test_the_projection_of_layer_embeddings_is_f16_unless_told_otherwise(converted: Callable[..., Path]) -> None:
    name = "per_layer_model_proj.weight"
    for flags, kind in (((), "f16"), (("--ple-proj-type", "q8_0"), "q8_0"), (("--ple-proj-type", "bf16"), "bf16")):
        _, tensors = read_gguf(converted("effective", "q4_0", *flags))
        assert by_ggml_type(tensors[name][0]).name == kind  # type: ignore[union-attr]


def test_the_table_of_layer_embeddings_has_a_type_of_its_own(converted: Callable[..., Path]) -> None:
    _, tensors = read_gguf(converted("effective", "q4_0", "--ple-type", "q4_0", "--embedding", "q8_0"))
    kinds = [by_ggml_type(tensors[name][0]).name for name in ("per_layer_token_embd.weight", "token_embd.weight")]  # type: ignore[union-attr]
    assert kinds == ["q4_0", "q8_0"]


def test_generation_from_a_gguf_ends_where_a_turn_ends(converted: Callable[..., Path]) -> None:
    checkpoint = open_source(str(converted("experts", "bf16")))
    assert checkpoint.generation["eos_token_id"] == [1, gemma4_tokenizer.vocabulary()["<turn|>"]]


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("quant", ["f32", "bf16"])
@pytest.mark.parametrize("kind", gemma4.KINDS)
def test_keys_and_tensors_are_those_of_the_reference_converter(
    require: Require, folders: dict[str, Path], converted: Callable[..., Path], tmp_path: Path, kind: str, quant: str
) -> None:
    need_converter(require)
    theirs = tmp_path / "theirs.gguf"
    convert_gemma4([(folders[kind], quant, theirs)])
    (our_keys, our_tensors), (their_keys, their_tensors) = read_gguf(converted(kind, quant)), read_gguf(theirs)
    assert our_tensors == their_tensors
    for key in NAMED_OTHERWISE:
        our_keys.pop(key, None)
        their_keys.pop(key, None)
    assert {key: our_keys.pop(key)[1] for key in OURS_ONLY} == OURS_ONLY
    assert our_keys == their_keys


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("quant", ["q4_0", "q4_k_m", "iq4_nl"])
@pytest.mark.parametrize("kind", gemma4.KINDS)
def test_every_byte_is_that_of_llama_quantize(
    require: Require, converted: Callable[..., Path], tmp_path: Path, kind: str, quant: str
) -> None:
    need_ggml(require)
    theirs = tmp_path / "theirs.gguf"
    llama_quantize(converted(kind, "bf16"), theirs, quant)
    ours, expected = read_gguf(converted(kind, quant, "--ple-proj-type", "bf16"))[1], read_gguf(theirs)[1]
    kinds = [{name: (by_ggml_type(t[0]).name, t[1]) for name, t in tensors.items()} for tensors in (ours, expected)]  # type: ignore[union-attr]
    assert kinds[0] == kinds[1]
    assert ours == expected


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("kind", gemma4.KINDS)
def test_llama_cpp_computes_the_logits_of_transformers(
    require: Require, folders: dict[str, Path], converted: Callable[..., Path], kind: str
) -> None:
    """Of 61 tokens with a window of 16; single tokens are routed to other experts where two are almost alike."""
    need_ggml(require)
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folders[kind], dtype=torch.float32, attn_implementation="eager"
    )
    ids = [2, *np.random.default_rng(3).integers(280, 360, 60).tolist()]
    with torch.no_grad():
        expected = model.eval()(input_ids=torch.tensor([ids])).logits[0].numpy()
    with load_llama(converted(kind, "f32")) as llama:
        found = np.concatenate([part.copy() for part in llama.logits(ids, exact=True)])
    spread = float(np.ptp(expected))
    assert np.abs(found[0] - expected[0]).max() < 0.002 * spread
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.9
    if kind != "experts":
        assert np.abs(found - expected).max() < 0.025 * spread
