"""Vocabularies that no text can be split with, or that would take hours, are refused; long ones take linear time."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from gemmaq.checkpoint import tokenizer_limits
from gemmaq.checkpoint.tokenizer import Tokenizer, TokenizerFiles
from gemmaq.checkpoint.tokenizer_files import merges
from gemmaq.errors import InputError
from gemmaq.files.sentencepiece import NORMAL
from synthetic import TINY


def problem(pieces: list[str], *, unused: bool = False) -> str | None:
    return tokenizer_limits.problem(pieces, np.full(len(pieces), unused))


@pytest.mark.parametrize("text", ["", "a", "▁"])
def test_tokens_that_are_all_alike(text: str) -> None:
    assert problem([text] * 1000) == "of 1,000 tokens, of which only 1 differ"
    assert problem([text] * 1000, unused=True) is None
    assert problem([str(number) for number in range(1000)] + [text] * 900) is None


def test_tokens_that_are_too_long() -> None:
    assert problem(["a" * 512, "b"]) is None and problem([]) is None
    assert problem(["a", "b" * 513]) == "whose token 1 has 513 characters, 512 are allowed"
    assert "characters in all" in str(problem([f"{number:0512}" for number in range(20_000)]))


@pytest.mark.parametrize(
    ("pieces", "scores", "words"),
    [
        (["a", "b"], [0.0, math.nan], "whose token 1 has no finite score"),
        (["a", "b"], [-math.inf, 0.0], "whose token 0 has no finite score"),
        (["a"] * 10, [0.0] * 10, "of 10 tokens, of which only 1 differ"),
    ],
)
def test_a_model_with_such_a_vocabulary_is_refused(pieces: list[str], scores: list[float], words: str) -> None:
    types = np.full(len(pieces), NORMAL, np.int32)
    found = Tokenizer(pieces, np.array(scores, np.float32), types, {}, {})
    with pytest.raises(InputError, match=f"^model has a tokenizer {words}$"):
        TokenizerFiles(lambda _: found).read(TINY, "model")


def naive(pieces: list[str]) -> set[tuple[str, str]]:
    known = set(pieces)
    cuts = ((piece[:k], piece[k:]) for piece in pieces for k in range(1, len(piece)))
    return {cut for cut in cuts if cut[0] in known and cut[1] in known}


def test_merges_of_long_tokens_take_no_quadratic_time() -> None:
    pieces = ["a" * length for length in (1, 2, 3, 5, 8)] + ["ab", "b", "ba", "aab"]
    assert set(merges(pieces, [0.0] * len(pieces))) == naive(pieces)
    long = ["a" * 100_000 + str(number) for number in range(30)] + ["a", "b"]
    begun = time.process_time()
    assert merges(long, [0.0] * len(long)) == []
    assert time.process_time() - begun < 1  # of 3,000,000 cuts each would copy 100,000 letters
