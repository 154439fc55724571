"""Text cut into chunks of tokens, as llama-perplexity does it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.errors import InputError, UsageError
from gemmaq.inference.documents import Text, by_kind, windows

if TYPE_CHECKING:
    from gemmaq.inference.documents import Tokens
    from gemmaq.inference.tokenize import Encoder

CONTEXT = 512
TOKENS = 8192
LEAST_CONTEXT = 16


@dataclass(frozen=True, slots=True)
class Chunks:
    """Runs of tokens that models read independently; the second half of each is scored.

    The convention is that of llama-perplexity: runs of `context` tokens of the text after BOS, the first token of each
    overwritten by BOS; positions `context / 2` up to the last but one predict the token after them.

    Attributes:
        tokens: Token ids, i64 [chunks, context].
        available: Number of chunks in the whole text.
        kinds: Kind of text -> number of its chunks, in the order of `tokens`; empty for the user's text alone.
    """

    tokens: Tokens
    available: int
    kinds: tuple[tuple[str, int], ...] = ()

    @property
    def context(self) -> int:
        """Tokens per chunk."""
        return int(self.tokens.shape[1])

    @property
    def first(self) -> int:
        """First scored position of a chunk."""
        return self.context // 2

    @property
    def per_chunk(self) -> int:
        """Scored tokens per chunk."""
        return self.context - 1 - self.first

    @property
    def scored(self) -> int:
        """Scored tokens of all chunks."""
        return len(self.tokens) * self.per_chunk

    @property
    def scored_of(self) -> dict[str, slice]:
        """Kind of text -> its scored tokens."""
        slices, start = {}, 0
        for kind, count in self.kinds:
            slices[kind] = slice(start, start + count * self.per_chunk)
            start += count * self.per_chunk
        return slices

    @property
    def targets(self) -> Tokens:
        """Tokens to be predicted, i64 [scored]."""
        return self.tokens[:, self.first + 1 :].reshape(-1)


def check_lengths(context: int, tokens: int) -> None:
    """Check a context and a number of scored tokens before any text is read.

    Raises:
        UsageError: The context is odd or too short, or one chunk scores more tokens.
    """
    if context < LEAST_CONTEXT or context % 2:
        raise UsageError(
            f"--context {context}: the second half of every chunk is scored", f"an even number from {LEAST_CONTEXT} on"
        )
    each = context // 2 - 1
    if tokens < each:
        raise UsageError(f"--tokens {tokens} is less than one chunk of {context} scores", f"--tokens {each} or more")


def cut_kinds(text: Text, encoder: Encoder, *, context: int, tokens: int) -> Chunks:
    """Cut texts of several kinds into as many chunks each, as far as they have them; arguments and errors as in `cut`.

    Conversations that ship are in the chat template, if the model has one; the user's text is the kind `text`.
    """
    groups = by_kind(text)
    if list(groups) == [""]:
        return cut(text, encoder, context=context, tokens=tokens)
    share = tokens // len(groups)
    parts = {
        kind or "text": cut(
            replace(text, documents=documents), encoder, context=context, tokens=share, in_template=bool(kind)
        )
        for kind, documents in groups.items()
    }
    return Chunks(
        np.concatenate([part.tokens for part in parts.values()]),
        sum(part.available for part in parts.values()),
        tuple((kind, len(part.tokens)) for kind, part in parts.items()),
    )


def cut(text: Text, encoder: Encoder, *, context: int, tokens: int, in_template: bool = False) -> Chunks:
    """Cut a text into chunks, spread evenly over it.

    Args:
        text: Taken as it stands, but see `in_template`.
        encoder: Tokenizer of the reference.
        context: Tokens per chunk, an even number.
        tokens: Maximum number of scored tokens.
        in_template: Put conversations into the chat template, if the model has one.

    Raises:
        InputError: The text is shorter than a chunk.
    """
    from gemmaq.inference.tokenize import plain

    ids = plain(text, encoder, in_template=in_template)
    if encoder.bos is not None:
        ids = np.concatenate([[encoder.bos], ids])
    if len(ids) < context:
        raise InputError(
            f"{', '.join(text.names)}: {len(ids)} tokens are not even one chunk of {context}",
            "give more text, or a smaller --context",
        )
    chunks = windows(ids, context, None, limit=max(1, tokens // (context // 2 - 1))).copy()
    if encoder.bos is not None:
        chunks[:, 0] = encoder.bos
    return Chunks(chunks, len(ids) // context)
