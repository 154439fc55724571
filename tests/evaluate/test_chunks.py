"""Chunks of a text: those of llama-perplexity."""

from __future__ import annotations

import pytest

from gemmaq.errors import InputError, UsageError
from gemmaq.evaluate.chunks import check_lengths, cut
from gemmaq.inference.documents import Document, Text


class _Letters:
    """A token for every character."""

    def __init__(self, bos: int | None) -> None:
        self.bos = bos

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]


def _text(*parts: str) -> Text:
    return Text(tuple(Document(f"{n}.txt", part) for n, part in enumerate(parts)), ("0.txt",), "")


def test_chunks_are_those_of_llama_perplexity():
    letters = "".join(chr(65 + n % 50) for n in range(70))
    found = cut(_text(letters[:30], letters[30:]), _Letters(2), context=16, tokens=10_000)
    stream = [2, *map(ord, letters)]
    assert found.tokens.tolist() == [[2, *stream[at + 1 : at + 16]] for at in (0, 16, 32, 48)]
    assert (found.available, found.first, found.per_chunk, found.scored) == (4, 8, 7, 28)
    assert found.targets.tolist() == [stream[at + place] for at in (0, 16, 32, 48) for place in range(9, 16)]
    plain = cut(_text(letters), _Letters(None), context=16, tokens=14)
    assert plain.tokens.tolist() == [[*map(ord, letters[:16])], [*map(ord, letters[48:64])]]
    assert (plain.available, plain.scored) == (4, 14)


def test_a_text_shorter_than_a_chunk_is_told():
    with pytest.raises(InputError, match="15 tokens"):
        cut(_text("a" * 14), _Letters(2), context=16, tokens=100)
    assert cut(_text("a" * 15), _Letters(2), context=16, tokens=100).scored == 7


@pytest.mark.parametrize(("context", "tokens"), [(17, 100), (14, 100), (0, 100), (-2, 100), (512, 254), (512, 0)])
def test_what_cannot_be_cut_is_told(context, tokens):
    with pytest.raises(UsageError, match=r"--context|--tokens"):
        check_lengths(context, tokens)
