"""Token sequences of a text: plain for models that complete, in the chat template for models that chat."""

from __future__ import annotations

import gc
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import gemma4_tokenizer
from damage import SMALL, small_model
from gemmaq.checkpoint.tokenizer import TokenizerFiles, from_folder
from gemmaq.errors import GemmaqError, InputError
from gemmaq.inference.documents import Document, Text, shipped
from gemmaq.inference.tokenize import Encoder, calibration, load_encoder, plain
from gemmaq.models.gemma4 import vocabulary
from gemmaq.sources.open import open_source
from small import write_model

CHAT = (
    "{{ bos_token }}{% for m in messages %}{{ '<' ~ m['role'] ~ '>' ~ m['content'] ~ '</>' }}{% endfor %}"
    "{% if messages[0]['role'] == 'assistant' %}{{ raise_exception('the user speaks first') }}{% endif %}"
)


@pytest.fixture(scope="module")
def bytewise(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """The tokenizer of a small model, whose tokens are bytes; of one to complete text."""
    pytest.importorskip("tokenizers")
    return load_encoder(open_source(str(small_model(tmp_path_factory.mktemp("model") / "gemma-3-tiny"))))


@pytest.fixture(scope="module")
def chatting(bytewise: Encoder) -> Encoder:
    """The same of a model to talk to."""
    pytest.importorskip("transformers")
    return replace(bytewise, tokenizer=replace(bytewise.tokenizer, chat_template=CHAT))


def text(*documents: str | tuple[dict[str, str], ...]) -> Text:
    made = [Document("a.txt", d) if isinstance(d, str) else Document("a.jsonl", "", d) for d in documents]
    return Text(tuple(made), ("a.txt", "b.txt"), "")


def test_merges_encode_alike_from_files_and_from_a_gguf_file(tmp_path):
    """A folder's tokenizer.json is taken as it is; the one made of a GGUF file's merges splits the same."""
    pytest.importorskip("tokenizers")
    folder = gemma4_tokenizer.write(tmp_path / "hf")
    model = open_source(str(small_model(tmp_path / "gemma-3-tiny")))
    family = replace(model.family, vocabulary=vocabulary)
    read = from_folder(folder, family, replace(model.config, vocab_size=gemma4_tokenizer.SIZE))
    sources = [TokenizerFiles(lambda _: read, files) for files in ({"tokenizer.json": folder / "tokenizer.json"}, {})]
    encoders = [load_encoder(replace(model, family=family, tokenizer_files=files)) for files in sources]
    first, second = ([encoder.encode(text) for text in gemma4_tokenizer.texts(300)] for encoder in encoders)
    assert first == second and encoders[1].bos == 2
    turn = [{"role": "user", "content": "the 🙂"}]
    conversation = encoders[0].conversation(turn)
    assert conversation == encoders[1].conversation(turn) == encoders[0].encode("<bos><|turn>user\nthe 🙂<turn|>\n")
    assert encoders[0].backend.decode(conversation, skip_special_tokens=True) == "user\nthe 🙂\n"


USER, ANSWER = {"role": "user", "content": "17 * 24?"}, {"role": "assistant", "content": "408"}


def test_documents_follow_each_other_as_they_stand(bytewise):
    found = plain(text("ab", (USER,), "é"), bytewise)
    assert found.tolist() == [*bytewise.encode("ab"), *bytewise.encode("é")]
    assert bytewise.backend.decode(found.tolist()) == "abé"
    assert bytewise.bos is not None and bytewise.bos not in found


def test_a_model_that_completes_is_shown_the_text(bytewise):
    assert not bytewise.chats
    shown = "".join(chr(97 + n % 26) for n in range(100))
    found = calibration(text(shown[:50], shown[50:]), bytewise, length=16, limit=99)
    assert found.shape == (6, 16) and (found[:, 0] == bytewise.bos).all()
    assert bytewise.backend.decode(found[:, 1:].reshape(-1).tolist()) == shown[:90]
    assert np.array_equal(calibration(text(shown), bytewise, length=16, limit=2), found[[0, -1]])
    assert len(calibration(text("x" * 15), bytewise, length=16, limit=1)) == 1
    with pytest.raises(InputError, match=r"a\.txt, b\.txt: fewer than 16 tokens") as told:
        calibration(text("x" * 14), bytewise, length=16, limit=1)
    assert "shorter sequences" in str(told.value.hint)


def test_a_model_that_chats_is_shown_conversations_in_its_template(chatting):
    assert chatting.chats
    found = calibration(text((USER, ANSWER), (USER,)), chatting, length=10, limit=99)
    rendered = "<user>17 * 24?</><assistant>408</>"
    stream = [chatting.bos, *chatting.encode(rendered), chatting.bos, *chatting.encode("<user>17 * 24?</>")]
    assert found.reshape(-1).tolist() == stream[: len(stream) // 10 * 10]


def test_a_model_that_chats_is_shown_plain_text_as_exchanges(chatting):
    shown = "".join(chr(97 + n % 26) for n in range(120))
    found = calibration(text(shown), chatting, length=64, limit=99).reshape(-1).tolist()
    first = [chatting.bos, *chatting.encode(f"<user>{shown[:12]}</><assistant>{shown[12:48]}</>")]
    assert found[: len(first)] == first
    assert found[len(first)] == chatting.bos
    assert found[len(first) + 1 :][:19] == chatting.encode(f"<user>{shown[48:60]}</>")[:19]


def test_kinds_give_alike_and_the_users_text_as_much_as_all_others(bytewise):
    kinds = {"": "a" * 1500, "prose": "b" * 3000, "code": "c" * 300, "tools": "d" * 20}
    made = Text(tuple(Document("x", words, kind=kind) for kind, words in kinds.items()), ("x",), "")
    found = calibration(made, bytewise, length=16, limit=40)
    letters = [bytewise.backend.decode(row[1:2].tolist()) for row in found]
    assert {letter: letters.count(letter) for letter in "abcd"} == {"a": 20, "b": 10, "c": 9, "d": 1}
    assert letters[0] != letters[1]
    everything = calibration(made, bytewise, length=16, limit=10_000)
    assert len(everything) == 100 + 200 + 20 + 1


def test_a_conversation_that_the_template_refuses_is_told(chatting):
    with pytest.raises(InputError, match="the user speaks first"):
        calibration(text((ANSWER,)), chatting, length=16, limit=1)
    for broken in ("{{ messages[0]['role'] + 1 }}", "{{ 1 // 0 }}", "{% if", "{{ nothing.at.all }}"):
        using = replace(chatting, tokenizer=replace(chatting.tokenizer, chat_template=broken))
        with pytest.raises(InputError, match="the chat template refuses"):
            using.conversation([USER])


def test_a_broken_tokenizer_is_told(tmp_path):
    folder = small_model(tmp_path / "gemma-3-tiny", SMALL)
    (folder / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    with pytest.raises(GemmaqError) as told:
        load_encoder(open_source(str(folder)))
    assert told.value.exit_code == 3 and "tokenizer" in told.value.message


def test_a_prompt_is_a_users_turn_or_plain_text_after_bos(bytewise: Encoder, chatting: Encoder) -> None:
    assert bytewise.prompt("a b") == "<bos>a b" and bytewise.encode("<bos>")[0] == bytewise.bos
    opened = CHAT + "{% if add_generation_prompt %}{{ '<model>' }}{% endif %}"
    encoder = replace(chatting, tokenizer=replace(chatting.tokenizer, chat_template=opened))
    assert encoder.prompt("a b") == "<bos><user>a b</><model>"
    assert encoder.conversation([{"role": "user", "content": "a"}]) == encoder.encode("<bos><user>a</>")


@pytest.mark.slow
def test_a_tokenizer_that_goes_takes_its_memory_along(tmp_path: Path) -> None:
    """Its words are kept by no thread: 5 MB stayed of each tokenizer that had seen the code that ships."""
    pytest.importorskip("tokenizers")
    checkpoint, text = open_source(str(write_model(tmp_path / "model")), tokenizer=True), shipped(("code",))

    def tokenized() -> int:
        plain(text, load_encoder(checkpoint))
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    first = [tokenized() for _ in range(2)][-1]
    assert max(tokenized() for _ in range(3)) - first < 3e6
