"""Scoring models against a reference on the same tokens.

Every model is evaluated on the weights that it really holds, decoded to f32.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.checkpoint import Checkpoint
from gemmaq.errors import InputError, UsageError
from gemmaq.evaluate import cache
from gemmaq.evaluate.chunks import Chunks
from gemmaq.evaluate.score import Score, joined
from gemmaq.inference.peers import ALONE, Peers
from gemmaq.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    from pathlib import Path

    from gemmaq.encodings import F32
    from gemmaq.inference.decoder import Decoder
    from gemmaq.inference.device import Device
    from gemmaq.inference.kv_cache import KVCache


def check_model(model: Checkpoint, reference: Checkpoint, context: int) -> None:
    """Check that a model can be compared with a reference.

    Raises:
        InputError: The two differ in vocabulary or architecture, or predict no tokens.
        UsageError: The context of the model is shorter than a chunk.
    """
    if model.family.embeds:
        raise InputError(
            f"is an {model.family.title}: it makes vectors of texts and predicts no tokens, which evaluate compares",
            "compare the vectors of your own texts",
            path=model.location,
        )
    longest = model.config.max_position_embeddings
    if context > longest:
        raise UsageError(f"--context {context}: that of {model.location} ends at {longest}", f"--context {longest}")
    if model.config.vocab_size != reference.config.vocab_size:
        raise InputError(
            f"has {model.config.vocab_size} tokens, {reference.location} {reference.config.vocab_size}: their "
            "predictions cannot be compared",
            path=model.location,
        )
    shapes = dict(reference.family.names.shapes(reference.config))
    for name, shape in model.family.names.shapes(model.config):
        if shapes.pop(name, None) != shape:
            raise InputError(
                f"is another model than {reference.location}: {name} has {list(shape)}", path=model.location
            )
    if shapes:
        raise InputError(
            f"is another model than {reference.location}: it has no {next(iter(shapes))}", path=model.location
        )


def evaluate(
    models: Sequence[Checkpoint],
    chunks: Chunks,
    *,
    device: Device,
    progress: ProgressCallback,
    cache_folder: Path | None = None,
    kv_caches: Sequence[KVCache | None] = (),
    peers: Peers = ALONE,
) -> list[Score]:
    """Score models on the same tokens.

    Args:
        models: The reference, then the models to compare with it (see `check_model`).
        chunks: Chunks of text.
        device: Device that computes.
        progress: Called after every layer and every slab of the vocabulary.
        cache_folder: Folder that keeps the last hidden states of the reference for the next run, or None.
        kv_caches: Types of the KV cache of every model, None for keys and values as they are; nothing for all models.
            The reference's are always None.
        peers: Processes that share the work, first by chunks, then by scored tokens.

    Returns:
        The scores; in processes other than the main one, nothing.

    Raises:
        InputError: A model cannot be read, or its activations are not finite.
        UsageError: The heads of a model do not fit the types of its cache.
    """
    from gemmaq.evaluate.head import block, score
    from gemmaq.inference.decoder import decoder

    caches = kv_caches or [None] * len(models)
    assert caches[0] is None, "the reference has no cache"  # what is kept of it depends on nothing else
    with ExitStack() as stack:
        pairs = zip(models, caches, strict=True)
        decoders = [stack.enter_context(decoder(model, device, kv_cache)) for model, kv_cache in pairs]
        hidden = [_cached_states(decoders[0], chunks, progress, folder=cache_folder, peers=peers)]
        hidden += [last_hidden_states(decoder, chunks, progress, peers) for decoder in decoders[1:]]
        if peers.size == 1:
            return score(decoders, hidden, chunks.targets, progress=progress)
        part = peers.share(chunks.scored, block(device))
        found: list[Score] = []
        if part.start < part.stop:
            found = score(decoders, [states[part] for states in hidden], chunks.targets[part], progress=progress)
        shares = [some for some in peers.gather(found) if some]
        return [joined(parts) for parts in zip(*shares, strict=True)]


def last_hidden_states(decoder: Decoder, chunks: Chunks, progress: ProgressCallback, peers: Peers = ALONE) -> F32:
    """Hidden states of the scored positions after the final norm, f32 [scored, hidden]; the same in all processes."""
    task = decoder.checkpoint.location
    batches = decoder.embed(chunks.tokens, peers.share(len(chunks.tokens), decoder.device.batch))
    for index in range(decoder.layers):
        progress(Progress(task, index, decoder.layers, "layers"))
        decoder.through(decoder.layer(index), index, batches)
    progress(Progress(task, decoder.layers, decoder.layers, "layers"))
    normed = decoder.device.map(lambda batch: decoder.normed(batch.hidden[:, chunks.first : -1]).cpu().numpy(), batches)
    shares = (
        peers.gather_all(np.concatenate(normed) if normed else None) if peers.size > 1 else [np.concatenate(normed)]
    )
    return np.concatenate([share for share in shares if share is not None]).reshape(chunks.scored, -1)


def _cached_states(
    decoder: Decoder, chunks: Chunks, progress: ProgressCallback, *, folder: Path | None, peers: Peers
) -> F32:
    """Last hidden states of the reference, from the main process's cache if it has them."""
    if folder is None:
        return last_hidden_states(decoder, chunks, progress, peers)
    key = cache.key(decoder.checkpoint, chunks.tokens, decoder.device.torch_device.type)
    states = cache.load(folder, key, (chunks.scored, decoder.checkpoint.config.hidden_size)) if peers.main else None
    states = peers.broadcast(states)
    if states is None:
        states = last_hidden_states(decoder, chunks, progress, peers)
        if peers.main:
            cache.store(folder, key, states)
    return states
