"""Losses and gradients of a model in memory, and of one that is read a layer at a time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gemma4
from calibrating import opened
from gemmaq.calibration.refine_students import Resident, Streamed
from gemmaq.checkpoint import Checkpoint
from gemmaq.inference.decoder import Decoder
from gemmaq.sources.open import open_source

pytestmark = pytest.mark.usefixtures("torch_and_transformers")


def both(checkpoint: Checkpoint, tokens: np.ndarray) -> Any:
    """Results of both kinds for all sequences: losses, losses with gradients, names of norms."""
    import torch

    def loss(output: torch.Tensor, sequence: int) -> torch.Tensor:
        return (output.square() * torch.linspace(1, 2, output.shape[1])).mean() + sequence

    for kind in (Resident, Streamed):
        with opened(checkpoint) as decoder:
            inputs = [single for batch in decoder.embed(tokens) for single in batch.split()]
            student = kind(decoder, inputs, loss)
            each = range(len(tokens))
            yield student.losses(each), student.gradients(each), list(student.norms)


def test_gradients_are_the_same_to_the_bit(checkpoint: Checkpoint, tokens: np.ndarray) -> None:
    (losses, slopes, names), (streamed_losses, streamed_slopes, streamed_names) = both(checkpoint, tokens[:3])
    assert (losses, names) == (streamed_losses, streamed_names)
    for (loss, own), (streamed_loss, streamed) in zip(slopes, streamed_slopes, strict=True):
        assert loss == streamed_loss in losses and len(own) == len(streamed) == len(names)
        assert all(a.equal(b) and bool(a.count_nonzero()) for a, b in zip(own, streamed, strict=True))


@pytest.mark.parametrize("kind", ["effective", "experts"])
def test_gradients_go_through_shared_keys_layer_inputs_and_experts(kind: str, tmp_path: Path) -> None:
    checkpoint = open_source(str(gemma4.write(tmp_path / "gemma-4-tiny", gemma4.KINDS[kind])))
    tokens = np.random.default_rng(1).integers(0, 512, (2, 24))
    (_, slopes, names), (_, streamed_slopes, _) = both(checkpoint, tokens)
    for (_, own), (_, streamed) in zip(slopes, streamed_slopes, strict=True):
        for name, a, b in zip(names, own, streamed, strict=True):
            assert a.count_nonzero() and a.allclose(b, rtol=1e-4, atol=1e-5 * float(a.abs().max())), name


def test_a_step_reads_every_layer_twice(
    checkpoint: Checkpoint, tokens: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, whole = Counter[int](), Decoder.layer

    def counted(self: Decoder, index: int) -> Any:
        read[index] += 1
        return whole(self, index)

    monkeypatch.setattr(Decoder, "layer", counted)
    with opened(checkpoint) as decoder:
        inputs = [single for batch in decoder.embed(tokens[:2]) for single in batch.split()]
        student = Streamed(decoder, inputs, lambda output, _: output.square().mean())
        assert not read
        student.gradients(range(2))
    assert read == dict.fromkeys(range(decoder.layers), 2)
