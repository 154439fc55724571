"""The layout of the vocabulary, against the tokenizer of the real 270M."""

from __future__ import annotations

import pytest

from gemmaq.files.sentencepiece import BYTE
from gemmaq.models.gemma3 import vocabulary
from gemmaq.models.samples import SAMPLE
from gemmaq.sources.open import open_source


def test_the_sample_has_it() -> None:
    tokenizer = open_source(SAMPLE.source).tokenizer
    pieces = {piece: at for at, piece in enumerate(tokenizer.pieces)}
    assert vocabulary.is_ours(pieces)
    assert vocabulary.SPECIAL - set(pieces) == {"<image_soft_token>"}  # of models with vision
    assert set(vocabulary.IMAGE_ROLES.values()) <= vocabulary.SPECIAL
    bytes_ = [at for at, kind in enumerate(tokenizer.types) if kind == BYTE]
    assert bytes_ == [at for at in range(len(tokenizer.pieces)) if vocabulary.is_byte(at)]


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
    assert vocabulary.looks_special(text)
    assert not vocabulary.looks_special(f"{text} ")
