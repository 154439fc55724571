"""The text as training sees it: sequences, which of them are held out, and their order."""

from __future__ import annotations

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
"""Share of the sequences, from the end of the text, where no other text is given."""
MOST_HELD_OUT = 16


@dataclass(frozen=True, slots=True)
class Data:
    """Sequences to train on and to measure with.

    Attributes:
        train: i64 [sequences, length].
        held_out: the same; never trained on.
        names: of the files trained on.
        digest: SHA-256 over them.
        held_out_names: of those measured with; empty if they are the end of the same text.
        held_out_digest: SHA-256 over them, None if there are none.
    """

    train: Tokens
    held_out: Tokens
    names: tuple[str, ...]
    digest: str
    held_out_names: tuple[str, ...] = ()
    held_out_digest: str | None = None

    def places(self, seed: int, number: int, size: int) -> Tokens:
        """Which sequences a batch has, counted from 0: a new order for every time through the text."""
        count = len(self.train)
        wanted = np.arange(number * size, (number + 1) * size)
        rounds, offsets = wanted // count, wanted % count
        orders = {n: np.random.default_rng([seed, int(n)]).permutation(count) for n in np.unique(rounds)}
        return np.array([orders[n][offset] for n, offset in zip(rounds, offsets, strict=True)], np.int64)

    def batch(self, seed: int, number: int, size: int) -> Tokens:
        """The sequences of a batch, i64 [size, length]."""
        found: Tokens = self.train[self.places(seed, number, size)]
        return found


def load(texts: list[Path], held_out: list[Path], using: Encoder, length: int, batch: int, size: int) -> Data:
    """Read and cut the texts.

    Args:
        texts: files to train on.
        held_out: files to measure with; empty to take the end of the others.
        using: the model's tokenizer.
        length: tokens a sequence.
        batch: sequences that a batch needs.
        size: of the model's vocabulary.

    Raises:
        NotFoundError: a file is missing.
        InputError: one cannot be read, or there is not enough text.
    """
    text = read(texts)
    train = calibration(text, using, length=length, limit=_ALL)
    if held_out:
        other = read(held_out)
        apart = calibration(other, using, length=length, limit=MOST_HELD_OUT)
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
    if largest >= size:
        raise InputError(
            f"the tokenizer gives token {largest}, the model knows {size}", "the tokenizer is that of another model"
        )
    return Data(train, apart, text.names, text.digest, names, digest)
