"""GGUF files: against llama-quantize, llama.cpp's converter and gguf-py, for the real 270M and small models."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader
from safetensors.torch import load_file

from damage import small_model
from gemmaq.containers import gguf
from gemmaq.encodings import by_ggml_type
from gemmaq.models.gemma3.config import pattern
from gemmaq.planning import recipe
from gemmaq.planning.mixtures import MIXTURES
from gemmaq.planning.planner import make_plan
from gemmaq.planning.recipe import of
from gemmaq.planning.request import Request
from gemmaq.sources.open import open_source
from inprocess import run
from oracles import FILE_TYPES, llama_quantize, need_ggml, read_gguf, reference_converter
from synthetic import TINY, write_checkpoint

CARD = """---
license: gemma
library_name: transformers
pipeline_tag: text-generation
base_model: google/gemma-3-270m
tags: [gemma3, gemma, google]
language: [en, de]
---
# Gemma 3 270M
"""
SAMPLING = {"bos_token_id": 2, "do_sample": True, "eos_token_id": [1, 106], "top_k": 64, "top_p": 0.95}
TEMPLATE = "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['content'] }}<end_of_turn>\n{% endfor %}"

LICENSE = "a file that is passed on must say what it is under, even where the folder has no card"
BASE = "the folder has the name of a repository of Google's, and no card"
DIFFERENCES = {
    "card": {"general.license.link": "the card says `gemma` alone: the terms are added that the license asks to name"},
    "no card": {
        "general.license": LICENSE,
        "general.license.link": LICENSE,
        "general.base_model.count": BASE,
        "general.base_model.0.name": BASE,
        "general.base_model.0.organization": BASE,
        "general.base_model.0.repo_url": BASE,
        "general.finetune": "the converter takes `4b` for a part of it, as this small model is nowhere near 4B",
    },
}
"""Keys in which our files differ from those of llama.cpp's converter, and why."""

ADDED = {
    "general.license": "gemma",
    "general.license.link": "https://ai.google.dev/gemma/terms",
    "general.base_model.count": 1,
    "general.base_model.0.name": "Gemma 3 4b It",
    "general.base_model.0.organization": "Google",
    "general.base_model.0.repo_url": "https://huggingface.co/google/gemma-3-4b-it",
    "general.finetune": "it",
}


def linked(source: Path, target: Path) -> Path:
    """A folder with links to the files of another."""
    target.mkdir(parents=True)
    for path in source.iterdir():
        os.link(path, target / path.name)
    return target


def replaced(path: Path, text: str) -> None:
    """Write a file that may be a link to another folder's."""
    path.unlink(missing_ok=True)
    path.write_text(text)


@pytest.fixture(scope="module")
def with_card(tmp_path_factory: pytest.TempPathFactory, sample_bf16: Path) -> Path:
    """The real 270M with a model card and sampling parameters."""
    folder = linked(sample_bf16, tmp_path_factory.mktemp("card") / "gemma-3-270m")
    replaced(folder / "README.md", CARD)
    replaced(folder / "generation_config.json", json.dumps(SAMPLING | {"temperature": 0.7}))
    return folder


@pytest.fixture(scope="module")
def like_4b(tmp_path_factory: pytest.TempPathFactory, sample_bf16: Path) -> Path:
    """A small model with what 4B has and 270M lacks: rope scaling, 64 rows more than tokens, a template, two ends."""
    folder = tmp_path_factory.mktemp("like") / "gemma-3-4b-it"
    config = replace(TINY, vocab_size=262208, rope_factor=8.0, eos_token_ids=(1, 106))
    write_checkpoint(folder, config, tokenizer=sample_bf16)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"chat_template": TEMPLATE, "eos_token": "<end_of_turn>"}
    replaced(folder / "tokenizer_config.json", json.dumps(settings))
    replaced(folder / "generation_config.json", json.dumps(SAMPLING | {"min_p": 0.05}))
    return folder


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory, sample_bf16: Path) -> Path:
    """A small model whose rows take K-quants, and one matrix whose rows do not."""
    config = replace(TINY, hidden_size=256, num_attention_heads=8)
    return write_checkpoint(tmp_path_factory.mktemp("wide") / "gemma-3-wide", config, tokenizer=sample_bf16)


WIDE = replace(TINY, hidden_size=256, intermediate_size=256, head_dim=64, query_pre_attn_scalar=64)
"""All rows take all types."""


def of_layers(folder: Path, layers: int, tokenizer: Path, **dimensions: int) -> Path:
    """A small model of so many layers, 256 wide unless told otherwise."""
    wide = {"hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 8, **dimensions}
    config = replace(TINY, num_hidden_layers=layers, layer_pattern=pattern(layers, 6), **wide)
    return write_checkpoint(folder / f"gemma-3-{layers}-layers", config, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory, sample_bf16: Path) -> Path:
    """All rows take K-quants, and every rule of a mixture has layers to apply to and others to leave."""
    folder = tmp_path_factory.mktemp("deep")
    return of_layers(folder, 18, sample_bf16, intermediate_size=512)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory, sample_bf16: Path) -> Path:
    """Rows of 640, as in 270M, that no K-quant fits."""
    return of_layers(tmp_path_factory.mktemp("narrow"), 18, sample_bf16, hidden_size=640)


@pytest.fixture(scope="module")
def as_bf16(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Folder -> its BF16 GGUF, made by gemmaq."""
    made: dict[Path, Path] = {}

    def convert(folder: Path) -> Path:
        if folder not in made:
            out = tmp_path_factory.mktemp("bf16")
            run("convert", folder, "--quant", "bf16", "-o", out, "--force")
            made[folder] = next(out.glob("*.gguf"))
        return made[folder]

    return convert


def differences(a: dict[str, Any], b: dict[str, Any]) -> set[str]:
    """The names whose values differ or that one of the two lacks."""
    return {name for name in a.keys() | b.keys() if a.get(name) != b.get(name)}


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder for files of some hundred MB."""
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize(
    ("model", "quant"),
    [
        ("with_card", "q4_k_m"),
        ("wide", "q4_k_m"),
        *(("narrow", quant) for quant in FILE_TYPES if not of(quant).needs_importance),
    ],
)
def test_every_file_equals_that_of_llama_quantize(require, request, as_bf16, scratch, model, quant):
    """Of rows that K-quants do not fit; test_gguf_whole_files has those that they do."""
    need_ggml(require)
    folder = request.getfixturevalue(model)
    theirs = scratch / "theirs.gguf"
    llama_quantize(as_bf16(folder), theirs, quant)
    run("convert", folder, "--quant", quant, "-o", scratch / "ours")
    (ours,) = (scratch / "ours").glob("*.gguf")
    assert ours.name == f"{folder.name}-{quant.upper()}.gguf"
    (our_keys, our_tensors), (their_keys, their_tensors) = read_gguf(ours), read_gguf(theirs)
    assert differences(our_tensors, their_tensors) == set()
    assert differences(our_keys, their_keys) == set()
    assert filecmp.cmp(ours, theirs, shallow=False)


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize(("layers", "heads"), [(9, 2), (35, 1), (62, 2)])
def test_mixtures_give_the_layers_of_any_model_the_types_of_llama_quantize(require, as_bf16, scratch, layers, heads):
    """Of zero weights, with an importance matrix of ones where a mixture needs one."""
    need_ggml(require)
    config = replace(WIDE, num_hidden_layers=layers, layer_pattern=pattern(layers, 6), num_attention_heads=4)
    folder = small_model(scratch / "model", replace(config, num_key_value_heads=heads), sparse=True)
    checkpoint = open_source(str(folder))
    to_gguf = checkpoint.family.names.to_gguf
    ones = {to_gguf(name): np.ones(tensor.columns, np.float32) for name, tensor in checkpoint.matrices.items()}
    for name in FILE_TYPES.keys() & MIXTURES:
        mixture = MIXTURES[name]
        matrix, method = (ones, "importance") if mixture.needs_importance else (None, "nearest")
        llama_quantize(as_bf16(folder), scratch / "theirs.gguf", name, matrix)
        theirs = {tensor: by_ggml_type(kind) for tensor, (kind, *_) in read_gguf(scratch / "theirs.gguf")[1].items()}
        request = Request(recipe.of(name, method=method), ("gguf",), mmproj=None)
        plan = make_plan(checkpoint, request, gguf.FORMAT)
        assert {tensor.name: tensor.encoding for tensor in plan.tensors} == theirs


def test_what_a_mixture_falls_back_to_is_said(narrow):
    done = run("convert", narrow, "--quant", "q5_k_m", "--dry-run", "--json")
    fallbacks = [text for text in json.loads(done.stdout)["warnings"] if " instead of " in text]
    ends = "whose blocks of 256 do not fit rows of 640"
    assert fallbacks == [
        f"10 tensors are Q8_0 instead of Q6_K, {ends}",
        f"81 tensors are Q5_1 instead of Q5_K, {ends}",
    ]


def test_plain_k_quants_for_body_and_embedding(scratch, deep):
    run("convert", deep, "--quant", "Q5_K", "--embedding", "q4_k", "-o", scratch / "out")
    keys, tensors = read_gguf(scratch / "out/gemma-3-18-layers-Q5_K.gguf")
    assert keys["general.file_type"][1] == FILE_TYPES["q5_k_m"]
    kinds = {name: by_ggml_type(kind).name for name, (kind, shape, _) in tensors.items() if len(shape) == 2}
    assert kinds.pop("token_embd.weight") == "q4_k" and set(kinds.values()) == {"q5_k"}


def test_a_mixture_converted_with_auto_keeps_every_byte(scratch, deep):
    run("convert", deep, "--quant", "q4_k_m", "-o", scratch / "mixed")
    run("convert", scratch / "mixed/gemma-3-18-layers-Q4_K_M.gguf", "--quant", "auto", "-o", scratch / "kept")
    (mixed, tensors), (kept, same) = (
        read_gguf(scratch / name)
        for name in ("mixed/gemma-3-18-layers-Q4_K_M.gguf", "kept/gemma-3-18-layers-Q4_K.gguf")
    )
    assert same == tensors
    assert kept["general.file_type"] == mixed["general.file_type"]


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize(("kind", "model"), (("card", "with_card"), ("no card", "like_4b")))
def test_keys_and_tensors_are_those_of_the_reference_converter(require, request, as_bf16, scratch, kind, model):
    converter = reference_converter()
    require(converter is not None, "the reference converter ($GEMMAQ_REFERENCE_CONVERTER)")
    folder = request.getfixturevalue(model)
    theirs = scratch / "theirs.gguf"
    command = [converter, folder, "--outtype", "bf16", "--outfile", theirs]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (our_keys, our_tensors), (their_keys, their_tensors) = read_gguf(as_bf16(folder)), read_gguf(theirs)
    assert differences(our_tensors, their_tensors) == set()
    assert differences(our_keys, their_keys) == set(DIFFERENCES[kind])
    assert {key: our_keys[key][1] for key in DIFFERENCES[kind]} == {key: ADDED[key] for key in DIFFERENCES[kind]}


def test_rope_scaling_and_end_of_turn_of_a_4b(as_bf16, like_4b):
    keys = {key: value for key, (_, value) in read_gguf(as_bf16(like_4b))[0].items()}
    expected = {
        "gemma3.rope.scaling.type": "linear",
        "gemma3.rope.scaling.factor": 8.0,
        "gemma3.rope.freq_base": 1e6,
        "gemma3.rope.freq_base_swa": 1e4,
        "gemma3.attention.sliding_window": 64,
        "gemma3.block_count": 7,
        "general.file_type": 32,
        "general.sampling.top_k": 64,
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 106,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.chat_template": TEMPLATE,
    }
    assert {key: keys.get(key) for key in expected} == expected
    assert keys["general.sampling.top_p"] == pytest.approx(0.95, rel=1e-7)
    assert keys["tokenizer.ggml.tokens"][262143:] == ["<unused6241>", *(f"[PAD{at}]" for at in range(262144, 262208))]


def test_a_model_without_rope_scaling_says_nothing_of_it(as_bf16, wide):
    assert not [key for key in read_gguf(as_bf16(wide))[0] if ".rope.scaling" in key]


def test_gguf_py_reads_norms_that_hold_one_more(as_bf16, wide):
    stored = {t.name: t.data for t in GGUFReader(as_bf16(wide)).tensors if t.name.endswith("norm.weight")}
    assert len(stored) == 7 * 6 + 1 and {data.dtype.name for data in stored.values()} == {"float32"}
    weights = load_file(wide / "model.safetensors")
    for ours, theirs in {"output_norm": "model.norm", "blk.3.attn_q_norm": "model.layers.3.self_attn.q_norm"}.items():
        expected = weights[f"{theirs}.weight"].float().numpy() + 1
        np.testing.assert_array_equal(stored[f"{ours}.weight"], expected)


@pytest.mark.parametrize("settings_too", (False, True))
def test_tokenizer_json_alone_gives_the_same_bytes(as_bf16, scratch, like_4b, settings_too):
    folder = linked(like_4b, scratch / like_4b.name)
    (folder / "tokenizer.model").unlink()
    if settings_too:  # transformers 5 lists the added tokens in tokenizer.json only
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        del settings["added_tokens_decoder"]
        replaced(folder / "tokenizer_config.json", json.dumps(settings))
    run("convert", folder, "--quant", "bf16", "-o", scratch / "out")
    (ours,) = (scratch / "out").glob("*.gguf")
    (our_keys, _), (their_keys, _) = read_gguf(ours), read_gguf(as_bf16(like_4b))
    assert differences(our_keys, their_keys) == set()
    assert filecmp.cmp(ours, as_bf16(like_4b), shallow=False)


@pytest.mark.parametrize(
    "setting",
    [{"top_k": 1 << 40}, {"top_k": float("nan")}, {"temperature": 1e300}, {"top_p": float("inf")}, {"top_k": 10**400}],
)
def test_settings_that_no_key_holds_are_left_out(setting, tmp_path):
    """As JSON spells them; the others stay."""
    folder = small_model(tmp_path)
    (folder / "generation_config.json").write_text(json.dumps({"min_p": 0.25} | setting))
    run("convert", folder, "-o", tmp_path / "out")
    keys, _ = read_gguf(next((tmp_path / "out").glob("*.gguf")))
    assert [key for key in keys if key.startswith("general.sampling.")] == ["general.sampling.min_p"]
