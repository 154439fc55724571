"""Gemma 4's vocabulary: types of its tokens by llama.cpp's converter, and the names of its special tokens."""

from __future__ import annotations

import pytest

import gemma4_tokenizer
from gemmaq.files.sentencepiece import CONTROL, NORMAL, USER_DEFINED
from gemmaq.models.gemma3 import vocabulary as gemma3
from gemmaq.models.gemma4 import vocabulary


def test_its_layout_is_told_from_that_of_gemma_3() -> None:
    pieces = gemma4_tokenizer.vocabulary()
    assert vocabulary.is_ours(pieces) and not gemma3.is_ours(pieces)
    for piece in ("<bos>", "<turn|>", "<0xFF>"):
        assert not vocabulary.is_ours({text: at for text, at in pieces.items() if text != piece})
    assert not vocabulary.is_ours({**pieces, "<unk>": 4})


def test_the_published_special_tokens_are_named_by_their_roles() -> None:
    assert vocabulary.ROLES == gemma4_tokenizer.NAMED
    assert vocabulary.name_special([*gemma4_tokenizer.SPECIAL[5:], "<mine>"]) == {
        **gemma4_tokenizer.NAMED,
        "extra_special_tokens": ["<|video|>", "<mine>"],
    }
    assert vocabulary.name_special(["<|turn>"]) == {"sot_token": "<|turn>"}


@pytest.mark.parametrize("text", ["<|channel>", "<channel|>", "<|tool_call>", "<tool_response|>", '<|"|>'])
def test_tokens_of_thoughts_and_tools_stay_visible(text: str) -> None:
    assert vocabulary.added_type(text, special=True, base=True) == USER_DEFINED and len(vocabulary.VISIBLE) == 7
    assert vocabulary.is_special(text, USER_DEFINED)


def test_other_added_tokens_control_the_model_if_they_are_special() -> None:
    assert vocabulary.added_type("<|turn>", special=True, base=True) == CONTROL
    assert vocabulary.added_type("<mine>", special=True, base=False) == CONTROL
    assert vocabulary.added_type("<mine>", special=False, base=False) == USER_DEFINED
    assert vocabulary.added_type("<unused7>", special=False, base=True) == NORMAL
    assert vocabulary.is_special("<mine>", CONTROL) and not vocabulary.is_special("<mine>", USER_DEFINED)
    assert vocabulary.score(77) == -1000
