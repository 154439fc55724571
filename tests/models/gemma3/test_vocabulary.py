"""The layout of the vocabulary, against the tokenizer of the real 270M."""

from __future__ import annotations

import pytest

from gemmaq.files.sentencepiece import BYTE, BYTES, CONTROL, USER_DEFINED
from gemmaq.models.gemma3 import vocabulary
from gemmaq.models.samples import SAMPLE
from gemmaq.sources.open import open_source


def test_the_sample_has_it() -> None:
    tokenizer = open_source(SAMPLE.source).tokenizer
    pieces = {piece: at for at, piece in enumerate(tokenizer.pieces)}
    assert vocabulary.is_ours(pieces)
    assert vocabulary.SPECIAL - set(pieces) == {"<image_soft_token>"}  # of models with vision
    assert set(vocabulary.IMAGE_ROLES.values()) <= vocabulary.SPECIAL
    bytes_ = [piece for piece, kind in zip(tokenizer.pieces, tokenizer.types, strict=True) if kind == BYTE]
    assert bytes_ == list(BYTES)


def test_another_layout_is_told() -> None:
    small = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3}
    assert not vocabulary.is_ours(small)
    padded = {f"p{n}": n for n in range(300_000)}
    assert not vocabulary.is_ours(padded)


def test_scores_count_down_along_the_merges_and_go_on_at_the_characters() -> None:
    first, last = vocabulary.LAST_BYTE + 1, vocabulary.LAST_PIECE
    assert [vocabulary.score(at) for at in (0, first, first + 1, last)] == [0, 0, -1, first - last]
    assert vocabulary.score(last + 1) == first - last - 1 - 31
    assert vocabulary.score(vocabulary.LAST_CHARACTER + 1) == 0


@pytest.mark.parametrize("text", ["<mask>", "<|tool|>", "<unused12>", "<\uff5cend\uff5c>", "[@BOS@]"])
def test_tokens_that_control_a_model(text: str) -> None:
    assert vocabulary.added_type(text, special=False, base=True) == CONTROL
    assert vocabulary.added_type(f"{text} ", special=False, base=True) == USER_DEFINED
    assert vocabulary.added_type(f"{text} ", special=True, base=True) == CONTROL


def test_the_processor_of_images_finds_its_tokens() -> None:
    assert vocabulary.name_special(["<start_of_turn>"]) == {}
    named = vocabulary.name_special(["<image_soft_token>", "<start_of_turn>"])
    assert named["image_token"] == named["extra_special_tokens"]["image_token"] == "<image_soft_token>"
