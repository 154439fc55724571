"""Opening a GGUF file whose header is well-formed but whose keys make no sense."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from damage import bounded, edit_gguf_keys, small_model, text
from gemmaq.checkpoint import Checkpoint
from gemmaq.errors import InputError
from gemmaq.files.gguf_reader import ARRAY, BOOL, STRING
from gemmaq.models.gemma3 import vocabulary
from gemmaq.sources.open import open_source
from inprocess import run
from oracles import read_gguf

U32, I32, F32, U64, I64 = 4, 5, 6, 10, 11
MODEL = "gemma-3-tiny-Q8_0.gguf"


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A whole GGUF file."""
    place = tmp_path_factory.mktemp("gguf")
    run("convert", small_model(place / "gemma-3-tiny"), "-o", place / "out", "--quant", "q8_0")
    return (place / "out" / MODEL).read_bytes()


@pytest.fixture
def file(content: bytes, tmp_path: Path) -> Path:
    path = tmp_path / MODEL
    path.write_bytes(content)
    return path


def with_key(file: Path, name: str, kind: int, value: bytes) -> Checkpoint:
    edit_gguf_keys(file, lambda keys: keys.update({name: (kind, value)}))
    with bounded():
        checkpoint = open_source(str(file))
    assert checkpoint.tokenizer
    return checkpoint


def test_rewritten_keys_are_read_back(file: Path) -> None:
    assert with_key(file, "general.license", STRING, text("mit")).card["license"] == "mit"


def test_a_file_that_adds_no_bos_though_llama_cpp_does_is_noted(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "tokenizer.ggml.add_bos_token"
    checkpoint = with_key(file, name, BOOL, b"\x00")
    assert checkpoint.tokenizer.add["bos"] is False and checkpoint.notes == ()
    monkeypatch.setattr(vocabulary, "ALWAYS_BOS", True)
    checkpoint = open_source(str(file))
    assert checkpoint.tokenizer.add["bos"] is True
    assert checkpoint.notes == (f"{name} is false, but llama.cpp begins every text of Gemma 3 with BOS: taken as true",)


def test_tokens_that_must_not_be_generated_go_both_ways(file: Path, tmp_path: Path) -> None:
    """Those outside the vocabulary are read, too, but a model with such ones is written without the key."""
    name = "tokenizer.ggml.suppress_tokens"
    for ids, told in (((7, 300), True), ((7, 1 << 31), False)):
        value = struct.pack(f"<IQ{len(ids)}I", U32, len(ids), *ids)
        assert with_key(file, name, ARRAY, value).generation["suppress_tokens"] == list(ids)
        run("convert", file, "-o", tmp_path / "out", "--quant", "q8_0", "--force")
        keys, _ = read_gguf(next((tmp_path / "out").glob("*.gguf")))
        assert keys.get(name) == ((ARRAY, (I32, struct.pack("<2i", *ids))) if told else None)


KINDS = {
    "text": (STRING, text("many")),
    "empty text": (STRING, text("")),
    "flag": (BOOL, b"\x01"),
    "negative": (I32, struct.pack("<i", -1)),
    "huge": (U64, struct.pack("<Q", (1 << 64) - 1)),
    "zero": (U32, bytes(4)),
    "fraction": (F32, struct.pack("<f", 1.5)),
    "not a number": (F32, struct.pack("<f", float("nan"))),
    "numbers": (ARRAY, struct.pack("<IQ3I", U32, 3, 1, 2, 3)),
    "texts": (ARRAY, struct.pack("<IQ", STRING, 2) + text("a") + text("b")),
    "no texts": (ARRAY, struct.pack("<IQ", STRING, 0)),
}
KEYS = [
    "general.architecture",
    "general.base_model.count",
    "general.base_model.0.repo_url",
    "general.license",
    "general.tags",
    "general.languages",
    "general.sampling.temp",
    "gemma3.block_count",
    "gemma3.embedding_length",
    "gemma3.attention.head_count",
    "gemma3.attention.head_count_kv",
    "gemma3.attention.sliding_window_pattern",
    "gemma3.rope.scaling.type",
    "gemma3.rope.freq_base",
    "split.count",
    "split.no",
    "tokenizer.ggml.model",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.suppress_tokens",
    "tokenizer.chat_template",
    "tokenizer.chat_templates",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", KEYS)
def test_a_key_of_any_kind_is_read_or_refused(name: str, kind: str, file: Path, tmp_path: Path) -> None:
    try:
        with_key(file, name, *KINDS[kind])
    except InputError as refused:
        assert len(refused.message) < 1000
        run("convert", file, "-o", tmp_path / "out", code=3)
    else:
        run("convert", file, "-o", tmp_path / "out", "--quant", "q8_0")
        run("convert", file, "-o", tmp_path / "hf", "--to", "safetensors", "--quant", "bf16")


def test_a_rope_factor_that_is_no_number_is_refused(file: Path) -> None:
    edit_gguf_keys(file, lambda keys: keys.update({"gemma3.rope.scaling.type": (STRING, text("linear"))}))
    with pytest.raises(InputError, match="factor"):
        with_key(file, "gemma3.rope.scaling.factor", STRING, text("eight"))


@pytest.mark.parametrize("name", ["gemma3.block_count", "gemma3.embedding_length", "general.architecture"])
def test_a_missing_key_is_named(name: str, file: Path) -> None:
    edit_gguf_keys(file, lambda keys: keys.pop(name))
    with pytest.raises(InputError, match=name.removeprefix("general.")):
        open_source(str(file))


@pytest.mark.parametrize("name", ["tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.model"])
def test_a_missing_part_of_the_tokenizer_is_refused(name: str, file: Path, tmp_path: Path) -> None:
    edit_gguf_keys(file, lambda keys: keys.pop(name))
    assert "token" in run("convert", file, "-o", tmp_path / "out", code=3).stderr
