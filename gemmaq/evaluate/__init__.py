"""What a quantization costs: perplexity, and how far its predictions are from those of a reference, on the same tokens.

Every model is evaluated on the weights it really holds, decoded to f32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.checkpoint import Checkpoint
from gemmaq.errors import InputError, UsageError
from gemmaq.evaluate import cache
from gemmaq.inference.documents import Text, windows
from gemmaq.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from gemmaq.encodings import F32
    from gemmaq.inference.decoder import Decoder
    from gemmaq.inference.device import Device
    from gemmaq.inference.documents import Tokens
    from gemmaq.inference.tokenize import Encoder

    F64 = NDArray[np.float64]

CONTEXT = 512
TOKENS = 8192
LEAST_CONTEXT = 16


@dataclass(frozen=True, slots=True)
class Chunks:
    """Runs of tokens that models read independently; the second half of each is scored.

    The convention is that of llama-perplexity: runs of `context` tokens of the text after BOS, the first token of each
    overwritten by BOS; positions `context / 2` up to the last but one predict the token after them.

    Attributes:
        tokens: i64 [chunks, context].
        available: chunks the text has.
    """

    tokens: Tokens
    available: int

    @property
    def context(self) -> int:
        """Tokens a chunk."""
        return int(self.tokens.shape[1])

    @property
    def first(self) -> int:
        """The first scored position of a chunk."""
        return self.context // 2

    @property
    def per_chunk(self) -> int:
        """Scored tokens a chunk."""
        return self.context - 1 - self.first

    @property
    def scored(self) -> int:
        """Scored tokens in all."""
        return len(self.tokens) * self.per_chunk

    @property
    def targets(self) -> Tokens:
        """What is to be predicted, i64 [scored]."""
        return self.tokens[:, self.first + 1 :].reshape(-1)


def check(context: int, tokens: int) -> None:
    """See whether these can be had of any text.

    Raises:
        UsageError: a context that is odd or too short, or fewer tokens than one chunk scores.
    """
    if context < LEAST_CONTEXT or context % 2:
        raise UsageError(
            f"--context {context}: the second half of every chunk is scored", f"an even number from {LEAST_CONTEXT} on"
        )
    each = context // 2 - 1
    if tokens < each:
        raise UsageError(f"--tokens {tokens} is less than one chunk of {context} scores", f"--tokens {each} or more")


def chunks(text: Text, using: Encoder, context: int, tokens: int) -> Chunks:
    """Cut a text.

    Args:
        text: taken as it stands.
        using: tokenizer of the reference.
        context: tokens a chunk, even.
        tokens: to be scored at most; the chunks are spread evenly over the text.

    Raises:
        InputError: the text is shorter than a chunk.
    """
    from gemmaq.inference.tokenize import plain

    ids = plain(text, using)
    if using.bos is not None:
        ids = np.concatenate([[using.bos], ids])
    if len(ids) < context:
        raise InputError(
            f"{', '.join(text.names)}: {len(ids)} tokens are not even one chunk of {context}",
            "give more text, or a smaller --context",
        )
    cut = windows(ids, context, None, limit=max(1, tokens // (context // 2 - 1))).copy()
    if using.bos is not None:
        cut[:, 0] = using.bos
    return Chunks(cut, len(ids) // context)


def check_model(model: Checkpoint, reference: Checkpoint, context: int) -> None:
    """See whether a model can be compared with a reference.

    Raises:
        InputError: it is another model.
        UsageError: its context ends before that of the chunks.
    """
    longest = model.config.max_position_embeddings
    if context > longest:
        raise UsageError(f"--context {context}: that of {model.location} ends at {longest}", f"--context {longest}")
    if model.config.vocab_size != reference.config.vocab_size:
        raise InputError(
            f"{model.location} has {model.config.vocab_size} tokens, {reference.location} "
            f"{reference.config.vocab_size}: their predictions cannot be compared"
        )
    wanted = dict(reference.family.names.shapes(reference.config))
    for name, shape in model.family.names.shapes(model.config):
        if wanted.pop(name, None) != shape:
            raise InputError(f"{model.location} is another model than {reference.location}: {name} has {list(shape)}")
    if wanted:
        raise InputError(f"{model.location} is another model than {reference.location}: it has no {next(iter(wanted))}")


@dataclass(frozen=True, slots=True)
class Score:
    """What a model makes of every scored token.

    Attributes:
        surprise: -log p of the token, nats, f64 [scored].
        kl: Kullback-Leibler divergence of its prediction from the reference's, KL(reference || model), nats; zeros for
            the reference.
        same: whether its likeliest token is the reference's, bool [scored].
    """

    surprise: F64
    kl: F64
    same: NDArray[np.bool_]

    @property
    def perplexity(self) -> float:
        """The exponential of the mean surprise."""
        return math.exp(self.surprise.mean())

    @property
    def perplexity_stderr(self) -> float:
        """Standard error of the perplexity, to first order, tokens taken as independent (as llama-perplexity does)."""
        return self.perplexity * _stderr(self.surprise)

    @property
    def kl_mean(self) -> float:
        """Mean divergence."""
        return float(self.kl.mean())

    @property
    def kl_stderr(self) -> float:
        """Its standard error, tokens taken as independent."""
        return _stderr(self.kl)

    @property
    def kl_p99(self) -> float:
        """Divergence that one token in a hundred exceeds."""
        return float(np.percentile(self.kl, 99))

    @property
    def top1(self) -> float:
        """Share of tokens of which both models' likeliest is the same."""
        return float(self.same.mean())


def _stderr(values: F64) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0


def evaluate(
    reference: Checkpoint,
    models: Sequence[Checkpoint],
    chunks: Chunks,
    device: Device,
    progress: ProgressCallback,
    kept: Path | None = None,
) -> list[Score]:
    """Score the reference, then every model, on the same tokens.

    Args:
        reference: to compare with.
        models: of the same shape, see `check_model`.
        chunks: of text.
        device: Device that computes.
        progress: told of layers and slabs of the vocabulary.
        kept: folder where the reference's last activations are kept for the next time, None for not at all.

    Raises:
        InputError: a model cannot be read, or what it computes is not finite.
    """
    from gemmaq.evaluate.head import score
    from gemmaq.inference.decoder import decoder

    with ExitStack() as stack:
        decoders = [stack.enter_context(decoder(model, device)) for model in (reference, *models)]
        hidden = [_reference(decoders[0], chunks, progress, kept)]
        hidden += [body(one, chunks, progress) for one in decoders[1:]]
        return score(decoders, hidden, chunks.targets, progress)


def body(decoder: Decoder, chunks: Chunks, progress: ProgressCallback) -> F32:
    """Activations of the scored positions after the last norm, f32 [scored, hidden]."""
    label = decoder.checkpoint.location
    hidden = decoder.embed(chunks.tokens)
    for index in range(decoder.layers):
        progress(Progress(label, index, decoder.layers, "layers"))
        decoder.through(decoder.layer(index), index, hidden)
    progress(Progress(label, decoder.layers, decoder.layers, "layers"))
    ends = decoder.device.map(lambda some: decoder.normed(some[:, chunks.first : -1]).cpu().numpy(), hidden)
    return np.concatenate(ends).reshape(chunks.scored, -1)


def _reference(decoder: Decoder, chunks: Chunks, progress: ProgressCallback, kept: Path | None) -> F32:
    """The same of the reference, kept from an earlier time if it was."""
    if kept is None:
        return body(decoder, chunks, progress)
    key = cache.key(decoder.checkpoint, chunks.tokens, decoder.device.torch_device.type)
    shape = (chunks.scored, decoder.checkpoint.config.hidden_size)
    found = cache.load(kept, key, shape)
    if found is None:
        found = body(decoder, chunks, progress)
        cache.store(kept, key, found)
    return found
