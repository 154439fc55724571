"""Scoring models against a reference on the same tokens.

Every model is evaluated on the weights that it really holds, decoded to f32.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.calibration.resume import Kept, bytes_kept, check_room, remove
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
    work: Path | None = None,
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
        work: Folder in which the main process keeps the layers that are done, to go on after an interruption; None for
            none. Nothing is left there at the end.

    Returns:
        The scores; in processes other than the main one, nothing.

    Raises:
        InputError: A model cannot be read, or its activations are not finite.
        UsageError: The heads of a model do not fit the types of its cache.
        OutputError: What is done cannot be kept.
    """
    from gemmaq.evaluate.head import block, score
    from gemmaq.inference.decoder import decoder

    caches = kv_caches or [None] * len(models)
    assert caches[0] is None, "the reference has no cache"  # what is kept of it depends on nothing else
    with ExitStack() as stack:
        pairs = zip(models, caches, strict=True)
        decoders = [stack.enter_context(decoder(model, device, kv_cache)) for model, kv_cache in pairs]
        keeps = [_kept(work, decoder, chunks, peers) for decoder in decoders]
        hidden = [_cached_states(decoders[0], chunks, progress, folder=cache_folder, peers=peers, kept=keeps[0])]
        hidden += [
            last_hidden_states(one, chunks, progress, peers, kept)
            for one, kept in zip(decoders[1:], keeps[1:], strict=True)
        ]
        part = peers.share(chunks.scored, block(device))
        found: list[Score] = []
        if part.start < part.stop:
            found = score(decoders, [states[part] for states in hidden], chunks.targets[part], progress=progress)
        shares = [some for some in peers.gather(found) if some]
        for kept in filter(None, keeps if peers.main else ()):
            remove(kept.folder)
        return [joined(parts) for parts in zip(*shares, strict=True)]


def _kept(work: Path | None, decoder: Decoder, chunks: Chunks, peers: Peers) -> Kept | None:
    """What is kept of a model's layers, in a folder for these files, tokens, types of the cache and versions.

    Raises:
        OutputError: It does not fit on the disk.
    """
    if work is None:
        return None
    key = cache.key(decoder.checkpoint, chunks.tokens, decoder.device.torch_device.type)
    label = "" if decoder.kv_cache is None else f"-{decoder.kv_cache.label}"
    folder = work / (key + label.replace("/", "-"))
    if peers.main:
        check_room(folder, bytes_kept(decoder.checkpoint.config, chunks.tokens.size, 0))
    return Kept(folder, {}, decoder.device, peers)


def last_hidden_states(
    decoder: Decoder, chunks: Chunks, progress: ProgressCallback, peers: Peers = ALONE, kept: Kept | None = None
) -> F32:
    """Hidden states of the scored positions after the final norm, f32 [scored, hidden]; the same in all processes."""
    task = decoder.checkpoint.location
    share, done = peers.share(len(chunks.tokens), decoder.device.batch), 0
    batches, first = decoder.embed(chunks.tokens, share), share.start // decoder.device.batch
    if kept is not None:
        done, _ = kept.begin()
        if done:
            kept.restore(done, batches, first)
    for index in range(done, decoder.layers):
        progress(Progress(task, index, decoder.layers, "layers"))
        decoder.through(decoder.layer(index), index, batches)
        if kept is not None:
            kept.close(index + 1, batches, first, {})
    progress(Progress(task, decoder.layers, decoder.layers, "layers"))
    normed = decoder.device.map(lambda batch: decoder.normed(batch.hidden[:, chunks.first : -1]).cpu().numpy(), batches)
    shares = peers.gather_all(np.concatenate(normed) if normed else None)
    return np.concatenate([share for share in shares if share is not None]).reshape(chunks.scored, -1)


def _cached_states(
    decoder: Decoder,
    chunks: Chunks,
    progress: ProgressCallback,
    *,
    folder: Path | None,
    peers: Peers,
    kept: Kept | None,
) -> F32:
    """Last hidden states of the reference, from the main process's cache if it has them."""
    if folder is None:
        return last_hidden_states(decoder, chunks, progress, peers, kept)
    key = cache.key(decoder.checkpoint, chunks.tokens, decoder.device.torch_device.type)
    states = cache.load(folder, key, (chunks.scored, decoder.checkpoint.config.hidden_size)) if peers.main else None
    states = peers.broadcast(states)
    if states is None:
        states = last_hidden_states(decoder, chunks, progress, peers, kept)
        if peers.main:
            cache.store(folder, key, states)
    return states
