"""The text as token sequences: those to train on, those held out, and the order of batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.errors import InputError
from gemmaq.inference.documents import read
from gemmaq.inference.tokenize import Encoder, calibration

if TYPE_CHECKING:
    from gemmaq.inference.documents import Tokens

_ALL = 1 << 40
HELD_OUT = 0.05
"""Share of the sequences that is held out, from the end of the text, where no other text is given."""
MOST_HELD_OUT = 16
"""Sequences held out at most."""


@dataclass(frozen=True, slots=True)
class TokenDataset:
    """Token sequences to train on and to measure with.

    Attributes:
        train: sequences to train on, i64 [sequences, length].
        held_out: sequences to measure with, never trained on.
        names: names of the files trained on.
        digest: SHA-256 over these files.
        held_out_names: names of the files measured with; empty if the end of the training text is held out.
        held_out_digest: SHA-256 over these files, None if there are none.
    """

    train: Tokens
    held_out: Tokens
    names: tuple[str, ...]
    digest: str
    held_out_names: tuple[str, ...] = ()
    held_out_digest: str | None = None

    def indices(self, seed: int, number: int, size: int) -> Tokens:
        """Indices of a batch's sequences; every pass through the text has an order of its own.

        Args:
            seed: seed of the orders.
            number: number of the batch, from 0.
            size: sequences per batch.
        """
        count = len(self.train)
        positions = np.arange(number * size, (number + 1) * size)
        epochs, offsets = positions // count, positions % count
        orders = {n: np.random.default_rng([seed, int(n)]).permutation(count) for n in np.unique(epochs)}
        return np.array([orders[n][offset] for n, offset in zip(epochs, offsets, strict=True)], np.int64)

    def batch(self, seed: int, number: int, size: int) -> Tokens:
        """The sequences of a batch, i64 [size, length]; arguments as for `indices`."""
        sequences: Tokens = self.train[self.indices(seed, number, size)]
        return sequences


def load(
    texts: Sequence[Path], held_out: Sequence[Path], encoder: Encoder, *, length: int, batch: int, vocabulary: int
) -> TokenDataset:
    """Read texts and cut them into sequences.

    Args:
        texts: files to train on.
        held_out: files to measure with; empty to hold out the end of the others.
        encoder: the model's tokenizer.
        length: tokens per sequence.
        batch: sequences per batch.
        vocabulary: size of the model's vocabulary.

    Raises:
        NotFoundError: a file is missing.
        InputError: a file cannot be read, or the text is too short.
    """
    text = read(list(texts))
    train = calibration(text, encoder, length=length, limit=_ALL)
    if held_out:
        other = read(list(held_out))
        apart = calibration(other, encoder, length=length, limit=MOST_HELD_OUT)
        names, digest = other.names, other.digest
    else:
        count = min(MOST_HELD_OUT, max(1, round(len(train) * HELD_OUT)))
        train, apart = train[:-count], train[-count:]
        names, digest = (), None
    if len(train) < batch:
        raise InputError(
            f"{', '.join(text.names)}: {len(train)} sequences of {length} tokens to train on, a batch is {batch}",
            "give more text, a smaller --context or a smaller --batch",
        )
    largest = max(int(train.max()), int(apart.max()))
    if largest >= vocabulary:
        raise InputError(
            f"the tokenizer gives token {largest}, the model has {vocabulary}",
            "the tokenizer belongs to another model",
        )
    return TokenDataset(train, apart, text.names, text.digest, names, digest)
