"""Tokenizers of GGUF files that were written in another way: read, and put right for llama.cpp."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import gemma4
import gemma4_tokenizer
import small
from damage import edit_gguf_keys, edit_json, text
from gemmaq.files.gguf_reader import ARRAY, STRING
from gemmaq.files.sentencepiece import BYTE, BYTES, CONTROL, NORMAL, USER_DEFINED
from gemmaq.sources.open import open_source
from inprocess import run
from oracles import load_llama, need, need_ggml
from synthetic import TINY, write_checkpoint

I32 = 5
TEXT = """def f(x: int) -> str:\n    \t\treturn f"{x!r:>8}" + '\\n'   # spaces,  tabs\tand   runs
Zażółć gęślą jaźń, naïve café; Ελληνικά, русский, עברית, 日本語のテキスト 👍🏽 e\u0301\u200b
1234567890 [[1], [2]]\n\n\n"""
CHAT = "<start_of_turn>user\nWhat  is this?<end_of_turn>\n<start_of_turn>model\n"
CHAT4 = "<|turn>user\nWhat is this?<turn|>\n<|turn>model\n<|channel>thought\nhm<channel|>"


def strings(values: Sequence[str]) -> bytes:
    return struct.pack("<IQ", STRING, len(values)) + b"".join(map(text, values))


def numbers(values: np.ndarray) -> bytes:
    return struct.pack("<IQ", I32, len(values)) + values.astype("<i4").tobytes()


def retype(path: Path, change: Callable[[list[str], np.ndarray], np.ndarray]) -> None:
    """Change the types of a GGUF file's tokens."""
    tokenizer = open_source(str(path)).tokenizer
    types = change(list(tokenizer.pieces), tokenizer.types.copy())
    edit_gguf_keys(path, lambda keys: keys.update({"tokenizer.ggml.token_type": (ARRAY, numbers(types))}))


def by_merges(path: Path, merges: Sequence[str], *, pre: str = "gemma4", model: str = "gpt2") -> None:
    """Write the tokenizer as llama.cpp's converter does for a folder without tokenizer.model."""

    def change(pieces: list[str], types: np.ndarray) -> np.ndarray:
        types[types == BYTE] = NORMAL
        return types

    retype(path, change)

    def edit(keys: dict[str, tuple[int, bytes]]) -> None:
        del keys["tokenizer.ggml.scores"]
        keys["tokenizer.ggml.model"] = STRING, text(model)
        keys["tokenizer.ggml.pre"] = STRING, text(pre)
        keys["tokenizer.ggml.merges"] = ARRAY, strings(merges)

    edit_gguf_keys(path, edit)


@pytest.fixture(scope="module")
def gemma3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Gemma 3 as a GGUF file, with the first 4,096 pieces of the real tokenizer."""
    root = tmp_path_factory.mktemp("gemma3")
    run("convert", small.write_model(root / "gemma-3-small"), "--quant", "q8_0", "-o", root / "out")
    return root / "out" / "gemma-3-small-Q8_0.gguf"


@pytest.fixture(scope="module")
def whole_gemma4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gemma4")
    folder = gemma4_tokenizer.write(gemma4.write(root / "gemma-4-small", gemma4.DENSE))
    run("convert", folder, "--quant", "q8_0", "-o", root / "out")
    return root / "out" / "gemma-4-small-Q8_0.gguf"


def trimmed(folder: Path) -> Path:
    """A small model whose vocabulary was cut to pieces and characters that a text needs, under new ids."""
    config = replace(TINY, vocab_size=2048)
    write_checkpoint(folder, config)
    files = small._whole_tokenizer()
    whole = json.loads(files["tokenizer.json"])
    old = whole["model"]["vocab"]
    ordered = sorted(old, key=lambda piece: int(old[piece]))
    characters = {piece for piece in ordered if len(piece) == 1 and (piece in TEXT + CHAT or piece == "\u2581")}
    kept = [piece for at, piece in enumerate(ordered) if at < 494 or piece in characters]
    kept += [piece for piece in ordered[494:] if len(piece) > 1][: config.vocab_size - len(kept)]
    new = {piece: at for at, piece in enumerate(kept)}
    whole["model"]["vocab"] = new
    merges = whole["model"]["merges"]
    whole["model"]["merges"] = [m for m in merges if all(part in new for part in (*m, "".join(m)))]
    whole["added_tokens"] = [t | {"id": new[t["content"]]} for t in whole["added_tokens"] if t["content"] in new]
    settings = json.loads(files["tokenizer_config.json"])
    settings["added_tokens_decoder"] = {str(t["id"]): t for t in whole["added_tokens"]}
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def copied(source: Path, folder: Path) -> Path:
    path = folder / source.name
    path.write_bytes(source.read_bytes())
    return path


def converted(source: Path, out: Path) -> Path:
    run("convert", source, "--quant", "q8_0", "-o", out)
    (path,) = out.glob("*.gguf")
    return path


def listed(folder: Path) -> list[str]:
    merges = json.loads((folder / "tokenizer.json").read_text())["model"]["merges"]
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]


def as_text(*names: str, kind: int = NORMAL) -> Callable[[list[str], np.ndarray], np.ndarray]:
    def change(pieces: list[str], types: np.ndarray) -> np.ndarray:
        types[[pieces.index(name) for name in names]] = kind
        return types

    return change


@pytest.mark.oracle
@pytest.mark.parametrize("kind", [NORMAL, 0, 5])
def test_turns_typed_as_text_are_special_again(kind: int, gemma3: Path, require, tmp_path: Path) -> None:
    """The small vocabulary ends behind the tokens of turns."""
    need_ggml(require)
    path = copied(gemma3, tmp_path)
    retype(path, as_text("<start_of_turn>", "<end_of_turn>", "<bos>", kind=kind))
    note = "<bos>, <start_of_turn>, <end_of_turn> are typed as plain text, so that a chat would not work"
    assert note in run("inspect", path).stdout
    ids = open_source(str(path)).tokenizer.pieces
    with load_llama(path, vocab_only=True) as llama:
        broken = llama.tokenize(CHAT, special=True)
    with load_llama(converted(path, tmp_path / "out"), vocab_only=True) as llama:
        mended = llama.tokenize(CHAT, special=True)
    with load_llama(gemma3, vocab_only=True) as llama:
        good = llama.tokenize(CHAT, special=True)
    assert mended == good != broken
    assert mended.count(ids.index("<start_of_turn>")) == 2 and ids.index("<end_of_turn>") in mended


@pytest.mark.oracle
def test_turns_and_channels_of_gemma4_are_special_again(whole_gemma4: Path, require, tmp_path: Path) -> None:
    need_ggml(require)
    path = copied(whole_gemma4, tmp_path)
    retype(path, as_text("<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|tool_call>"))
    assert "<|turn>, <turn|>, <|channel>, <channel|> and 1 more are typed as plain text" in run("inspect", path).stdout
    result = converted(path, tmp_path / "out")
    for name, special in (("<|turn>", CONTROL), ("<channel|>", USER_DEFINED)):
        tokenizer = open_source(str(result)).tokenizer
        assert tokenizer.types[tokenizer.pieces.index(name)] == special
    found = []
    for file in (result, whole_gemma4):
        with load_llama(file, vocab_only=True) as llama:
            found.append((llama.tokenize(CHAT4, special=True), llama.eog()))
    assert found[0] == found[1]


def test_good_types_lead_to_no_note(gemma3: Path, whole_gemma4: Path) -> None:
    for path in (gemma3, whole_gemma4):
        assert not json.loads(run("inspect", path, "--json").stdout)["notes"]


@pytest.mark.oracle
@pytest.mark.parametrize(("model", "pre"), [("gpt2", "gemma4"), ("gpt2", "default"), ("gemma4", "gemma4")])
def test_merges_become_scores_that_split_texts_alike(model: str, pre: str, require, tmp_path: Path) -> None:
    """The real vocabulary cut to 2,048 pieces: its scores follow from the merges."""
    need_ggml(require)
    need(require, "tokenizers")
    from tokenizers import Tokenizer

    folder = trimmed(tmp_path / "gemma-3-trimmed")
    path = converted(folder, tmp_path / "first")
    by_merges(path, listed(folder), pre=pre, model=model)
    assert f"the tokenizer is '{model}' ('{pre}')" in run("inspect", path).stdout
    reference = Tokenizer.from_file(str(folder / "tokenizer.json"))
    result = converted(path, tmp_path / "out")
    types = open_source(str(result)).tokenizer.types
    assert (types == BYTE).sum() == 256 and (types == CONTROL).any()
    with load_llama(result, vocab_only=True) as llama:
        for sample in (TEXT, CHAT, "  " + TEXT[::-1]):
            ours = llama.tokenize(sample, special=True)
            assert ours == reference.encode(sample, add_special_tokens=False).ids


@pytest.mark.slow
@pytest.mark.oracle
def test_the_whole_vocabulary_gets_its_published_scores(require, tmp_path: Path) -> None:
    need_ggml(require)
    need(require, "tokenizers")
    from tokenizers import Tokenizer

    config = replace(TINY, hidden_size=32, vocab_size=262144, num_hidden_layers=1, layer_pattern=(True,))
    folder = write_checkpoint(tmp_path / "gemma-3-whole", config)
    for name, content in small._whole_tokenizer().items():
        (folder / name).write_bytes(content)
    good = converted(folder, tmp_path / "good")
    path = copied(good, tmp_path)
    by_merges(path, listed(folder))
    result = converted(path, tmp_path / "out")
    old, new = (open_source(str(file)).tokenizer for file in (good, result))
    assert old.pieces == new.pieces and np.array_equal(old.types, new.types) and old.merges == new.merges
    usual = old.types == NORMAL
    assert np.array_equal(old.scores[usual], new.scores[usual])
    reference = Tokenizer.from_file(str(folder / "tokenizer.json"))
    with load_llama(result, vocab_only=True) as llama:
        for sample in (TEXT, CHAT):
            assert llama.tokenize(sample, special=True) == reference.encode(sample, add_special_tokens=False).ids


@pytest.mark.oracle
def test_a_trimmed_folder_without_scores_splits_texts_alike(require, tmp_path: Path) -> None:
    need_ggml(require)
    need(require, "tokenizers")
    from tokenizers import Tokenizer

    folder = trimmed(tmp_path / "gemma-3-trimmed")
    reference = Tokenizer.from_file(str(folder / "tokenizer.json"))
    with load_llama(converted(folder, tmp_path / "out"), vocab_only=True) as llama:
        for sample in (TEXT, CHAT):
            assert llama.tokenize(sample, special=True) == reference.encode(sample, add_special_tokens=False).ids


def test_the_tokenizer_of_another_model_is_refused(gemma3: Path, tmp_path: Path) -> None:
    path = copied(gemma3, tmp_path)
    by_merges(path, ["a b"])
    pieces = open_source(str(path)).tokenizer.pieces
    foreign = [f"w{at}" if piece in BYTES else piece for at, piece in enumerate(pieces)]
    edit_gguf_keys(path, lambda keys: keys.update({"tokenizer.ggml.tokens": (ARRAY, strings(foreign))}))
    said = run("convert", path, "-o", tmp_path / "out", code=3).stderr
    assert "holds no tokenizer of Gemma 3 (its model is 'gpt2', not 'llama')" in said


def test_an_adapter_is_told_from_a_model(gemma3: Path, tmp_path: Path) -> None:
    path = copied(gemma3, tmp_path)
    edit_gguf_keys(path, lambda keys: keys.update({"general.type": (STRING, text("adapter"))}))
    said = run("inspect", path, code=3).stderr
    assert "is an adapter (LoRA), not a model" in said and "--lora" in said


def test_a_folder_without_tokenizer_says_where_it_is(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint-500", TINY)
    said = run("convert", folder, "-o", tmp_path / "out", code=5).stderr
    assert "tokenizer.json does not exist" in said and "copy the tokenizer files of the base model" in said


def test_a_trimmed_vocabulary_that_lost_its_bytes_is_told_from_another(tmp_path: Path) -> None:
    folder = trimmed(tmp_path / "gemma-3-trimmed")

    def without_bytes(document: dict) -> None:
        for piece in BYTES:
            del document["model"]["vocab"][piece]

    edit_json(folder / "tokenizer.json", without_bytes)
    said = run("convert", folder, "-o", tmp_path / "out", code=3).stderr
    assert "it was trimmed to 1,792 tokens: put the tokenizer.model" in said and "base model" not in said


def test_a_vocabulary_of_another_family_is_refused(tmp_path: Path) -> None:
    folder = gemma4_tokenizer.write(write_checkpoint(tmp_path / "gemma-3-tiny", replace(TINY, vocab_size=512)))
    said = run("convert", folder, "-o", tmp_path / "out", code=3).stderr
    assert "does not hold Gemma 3's vocabulary" in said
