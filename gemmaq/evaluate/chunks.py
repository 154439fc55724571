"""Text cut into chunks of tokens, as llama-perplexity does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.errors import InputError, UsageError
from gemmaq.inference.documents import Text, windows

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
    """

    tokens: Tokens
    available: int

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


def cut(text: Text, encoder: Encoder, *, context: int, tokens: int) -> Chunks:
    """Cut a text into chunks, spread evenly over it.

    Args:
        text: Taken as it stands, without a chat template.
        encoder: Tokenizer of the reference.
        context: Tokens per chunk, an even number.
        tokens: Maximum number of scored tokens.

    Raises:
        InputError: The text is shorter than a chunk.
    """
    from gemmaq.inference.tokenize import plain

    ids = plain(text, encoder)
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
