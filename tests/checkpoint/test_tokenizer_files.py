"""A tokenizer with merges: through a GGUF file and back it splits every text alike, in transformers and llama.cpp."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gemma4_tokenizer
from gemmaq.checkpoint.gguf_tokenizer import read as _tokenizer
from gemmaq.checkpoint.tokenizer import Tokenizer, from_folder
from gemmaq.checkpoint.tokenizer_files import to_files
from gemmaq.containers.gguf import _tokenize
from gemmaq.errors import InputError
from gemmaq.files import gguf_reader
from gemmaq.files.gguf_writer import Keys, header
from gemmaq.files.sentencepiece import BYTE, CONTROL, NORMAL, UNUSED, USER_DEFINED
from gemmaq.files.span import FileSpan
from gemmaq.models.gemma3 import FAMILY as GEMMA3
from gemmaq.models.gemma4 import vocabulary
from oracles import load_llama, need, need_ggml
from synthetic import TINY

FAMILY = replace(GEMMA3, title="Gemma 4", vocabulary=vocabulary)
MORE = ("<|im start|>", "<|mine|>")
CONFIG = replace(TINY, vocab_size=gemma4_tokenizer.SIZE + len(MORE) + 3)
Require = Callable[[bool, str], None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gemma4_tokenizer.write(tmp_path_factory.mktemp("hf"), more=MORE)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return from_folder(folder, FAMILY, CONFIG)


@pytest.fixture(scope="module")
def gguf(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file with nothing but the tokenizer."""
    return write_gguf(tokenizer, tmp_path_factory.mktemp("gguf") / "tokenizer.gguf")


def write_gguf(tokenizer: Tokenizer, path: Path) -> Path:
    keys = Keys()
    keys.text("general.architecture", "gemma4")
    _tokenize(keys, tokenizer, vocabulary)
    path.write_bytes(header(keys, [])[0])
    return path


def keys_of(path: Path) -> dict[str, Any]:
    return dict(gguf_reader.parse(FileSpan.of(path)).keys)


@pytest.fixture(scope="module")
def again(gguf: Path) -> Tokenizer:
    return _tokenizer(keys_of(gguf), FAMILY, "file", CONFIG)


@pytest.fixture(scope="module")
def rebuilt(again: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hugging Face files made of the GGUF file."""
    folder = tmp_path_factory.mktemp("rebuilt")
    for name, data in to_files(again, vocabulary, 4096).items():
        (folder / name).write_bytes(data)
    return folder


def test_types_are_those_of_the_converter(tokenizer: Tokenizer) -> None:
    at = {piece: number for number, piece in enumerate(tokenizer.pieces)}
    kinds = {piece: tokenizer.types[at[piece]] for piece in at}
    assert sum(kind == BYTE for kind in kinds.values()) == 256
    assert {piece for piece, kind in kinds.items() if kind == USER_DEFINED} == vocabulary.VISIBLE
    assert {piece for piece, kind in kinds.items() if kind == CONTROL} == {*gemma4_tokenizer.SPECIAL, *MORE} - set(
        vocabulary.VISIBLE
    )
    assert [piece for piece, kind in kinds.items() if kind == UNUSED] == [f"[PAD{n}]" for n in (514, 515, 516)]
    assert kinds["the"] == kinds["<unused3>"] == NORMAL
    assert tokenizer.special == {"bos": 2, "eos": 1, "unk": 3, "pad": 0, "mask": 4}
    assert dict(tokenizer.add) == {"bos": True} and tokenizer.chat_template == gemma4_tokenizer.TEMPLATE


def test_both_spellings_of_merges_are_read(tokenizer: Tokenizer, folder: Path, tmp_path: Path) -> None:
    """Older files have texts, newer ones pairs; tokenizer.model, which some folders have as well, does not count."""
    document = json.loads((folder / "tokenizer.json").read_text())
    document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    gemma4_tokenizer.write(tmp_path, more=MORE)
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    (tmp_path / "tokenizer.model").write_bytes(b"broken")
    assert from_folder(tmp_path, FAMILY, CONFIG).merges == tokenizer.merges


@pytest.mark.parametrize("merges", [None, [], [["a"]], ["a"], ["a b c"], [1], [["a", 1]], {"a": "b"}])
def test_unusable_merges_are_told(merges: Any, folder: Path, tmp_path: Path) -> None:
    document = json.loads((folder / "tokenizer.json").read_text())
    document["model"]["merges"] = merges
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="merge"):
        from_folder(tmp_path, FAMILY, CONFIG)


def test_a_vocabulary_of_another_family_is_told(folder: Path, tmp_path: Path) -> None:
    document = json.loads((folder / "tokenizer.json").read_text())
    del document["model"]["vocab"]["<turn|>"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="does not hold Gemma 4's vocabulary"):
        from_folder(tmp_path, FAMILY, CONFIG)


def test_nothing_is_lost_through_a_gguf_file(tokenizer: Tokenizer, again: Tokenizer, gguf: Path) -> None:
    keys = keys_of(gguf)
    assert keys["tokenizer.ggml.model"] == "gemma4" and "tokenizer.ggml.pre" not in keys
    assert (again.pieces, again.merges, again.special) == (tokenizer.pieces, tokenizer.merges, tokenizer.special)
    assert np.array_equal(again.types, tokenizer.types) and np.array_equal(again.scores, tokenizer.scores)
    assert (again.add, again.chat_template) == (tokenizer.add, tokenizer.chat_template)


def test_gguf_files_of_others(tokenizer: Tokenizer, gguf: Path) -> None:
    """Google's 26B says that BOS is not added; scores say nothing and may be missing; merges may not be."""
    keys = keys_of(gguf)
    keys["tokenizer.ggml.add_bos_token"], keys["tokenizer.ggml.add_eos_token"] = False, False
    del keys["tokenizer.ggml.scores"]
    read = _tokenizer(keys, FAMILY, "file", CONFIG)
    assert dict(read.add) == {"bos": True, "eos": False} and (read.scores == -1000).all()
    for merges in (None, ["a"], ["a b c"]):
        with pytest.raises(InputError, match="no usable merges"):
            _tokenizer(keys | {"tokenizer.ggml.merges": merges}, FAMILY, "file", CONFIG)
    with pytest.raises(InputError, match="holds no tokenizer of Gemma 4"):
        _tokenizer(keys | {"tokenizer.ggml.model": "llama"}, FAMILY, "file", CONFIG)


def test_gguf_files_of_ollama(tokenizer: Tokenizer, gguf: Path) -> None:
    """Its converter names the model as pre, counts scores up, and has bytes as text and all special tokens alike."""
    keys = keys_of(gguf)
    types = keys["tokenizer.ggml.token_type"].copy()
    types[types == BYTE], types[types == USER_DEFINED] = NORMAL, CONTROL
    keys |= {"tokenizer.ggml.token_type": types, "tokenizer.ggml.scores": np.arange(len(types), dtype=np.float32)}
    keys |= {"tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "gemma4"}
    read = _tokenizer(keys, FAMILY, "file", CONFIG)
    assert np.array_equal(read.types, tokenizer.types) and (read.scores == -1000).all()
    assert (read.pieces, read.merges) == (tokenizer.pieces, tokenizer.merges)


def test_the_chat_template_is_a_file(rebuilt: Path) -> None:
    assert (rebuilt / "chat_template.jinja").read_text() == gemma4_tokenizer.TEMPLATE
    assert "chat_template" not in json.loads((rebuilt / "tokenizer_config.json").read_text())
    assert not (rebuilt / "tokenizer.model").exists()


def test_a_rebuilt_folder_gives_the_same_gguf_file(rebuilt: Path, gguf: Path, tmp_path: Path) -> None:
    made = write_gguf(from_folder(rebuilt, FAMILY, CONFIG), tmp_path / "again.gguf")
    first, second = keys_of(gguf), keys_of(made)
    assert first.pop("tokenizer.ggml.add_bos_token") and second.pop("tokenizer.ggml.add_bos_token")
    assert not second.pop("tokenizer.ggml.add_eos_token")  # tokenizer_config.json says it
    assert [name for name in first | second if not np.array_equal(first.get(name), second.get(name))] == []


@pytest.mark.oracle
def test_the_converter_reads_the_same(require: Require, folder: Path, tokenizer: Tokenizer) -> None:
    """What llama.cpp's converter asks its library of a Gemma 4 folder, but for ids without a token, which it lacks."""
    need(require, "transformers")
    from gguf import LlamaHfVocab, SpecialVocab

    tokens, scores, types = zip(*LlamaHfVocab(folder).all_tokens(), strict=True)
    texts = [token.decode() for token in tokens]
    assert texts == tokenizer.pieces[: len(texts)] and len(texts) == CONFIG.vocab_size - 3
    assert set(scores) == set(tokenizer.scores[: len(texts)].tolist()) == {-1000}
    visible = {at for at, text in enumerate(texts) if text in vocabulary.VISIBLE}
    expected = [USER_DEFINED if at in visible else kind for at, kind in enumerate(types)]
    assert tokenizer.types[: len(texts)].tolist() == expected
    special = SpecialVocab(folder, load_merges=True)
    assert special.merges == tokenizer.merges and special.special_token_ids == tokenizer.special
    assert special.add_special_token == tokenizer.add and special.chat_template == tokenizer.chat_template


@pytest.mark.oracle
def test_a_folder_saved_by_transformers_reads_the_same(
    require: Require, folder: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    need(require, "transformers")
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    saved = from_folder(tmp_path, FAMILY, CONFIG)
    assert (saved.pieces, saved.merges, saved.special) == (tokenizer.pieces, tokenizer.merges, tokenizer.special)
    assert np.array_equal(saved.types, tokenizer.types) and saved.chat_template == tokenizer.chat_template


@pytest.mark.oracle
def test_transformers_and_llama_cpp_split_alike(require: Require, folder: Path, rebuilt: Path, gguf: Path) -> None:
    need(require, "transformers")
    need_ggml(require)
    from transformers import AutoTokenizer

    original, back = AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(rebuilt)
    assert set(back.all_special_tokens) == set(original.all_special_tokens)
    assert back.special_tokens_map == original.special_tokens_map
    assert back.chat_template == original.chat_template
    chat = [{"role": "user", "content": "What  is 🙂?\n\n\n"}]
    shown = [t.apply_chat_template(chat, add_generation_prompt=True).input_ids for t in (original, back)]
    assert shown[0] == shown[1] and shown[0][:2] == [2, gemma4_tokenizer.vocabulary()["<|turn>"]]
    texts = [*gemma4_tokenizer.texts(1500), "".join(gemma4_tokenizer.SPECIAL), "a".join(MORE)]
    expected = original(texts, add_special_tokens=False).input_ids
    assert back(texts, add_special_tokens=False).input_ids == expected
    assert [back.decode(ids) for ids in expected] == [original.decode(ids) for ids in expected]
    with load_llama(gguf, vocab_only=True) as model:
        got = [model.tokenize(text, special=True) for text in texts]
        assert [(t, a, b) for t, a, b in zip(texts, got, expected, strict=True) if a != b] == []
        ends = {"<eos>", "<turn|>", "<|tool_response>"}
        assert model.eog() == {gemma4_tokenizer.vocabulary()[text] for text in ends}
