"""Norms tuned end to end: the loss is transformers', it falls, and the result can be had again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gemma4
from calibrating import CONTEXT, dense, opened
from damage import SMALL
from gemmaq.calibration import refine_norms
from gemmaq.calibration.refine_norms import Schedule, Tuned, tune
from gemmaq.checkpoint import Checkpoint, Tensor
from gemmaq.checkpoint.rows import weights
from gemmaq.errors import InputError
from gemmaq.files.span import Reader
from gemmaq.inference.decoder import Decoder
from gemmaq.models.families import require_size
from gemmaq.models.roles import Role
from gemmaq.sources.open import open_source

pytestmark = pytest.mark.usefixtures("torch_and_transformers")


def disturbed(tensor: Tensor, first: int, count: int, reader: Reader) -> np.ndarray:
    """Norms that are all off by the same number."""
    rows = weights(tensor, first, count, reader)
    return rows + np.float32(0.25) if tensor.place.role is Role.NORM else rows


@contextmanager
def pair(checkpoint: Checkpoint, threads: int = 2) -> Iterator[tuple[Decoder, Decoder]]:
    with opened(checkpoint, threads) as teacher:
        yield teacher, replace(teacher, weights=disturbed)


def tuned(
    checkpoint: Checkpoint, tokens: np.ndarray, *, threads: int = 2, streamed: bool = False, **schedule: Any
) -> Tuned:
    said: list[tuple[int, int, float | None]] = []
    with pair(checkpoint, threads) as (teacher, student):
        plan = Schedule(**{"deadline": None, "steps": 12} | schedule)
        parts = tokens[:-1], tokens[-1:]
        made = tune(teacher, student, parts, schedule=plan, streamed=streamed, progress=lambda *at: said.append(at))
    if plan.last is None:
        assert [at[0] for at in said] == list(range(1, made.steps + 1))
        assert min([made.before, *(at[2] for at in said if at[2] is not None)]) == pytest.approx(made.after, abs=1e-6)
    return made


@pytest.fixture(scope="module")
def made(checkpoint: Checkpoint, tokens: np.ndarray) -> Tuned:
    return tuned(checkpoint, tokens)


def test_what_is_measured_is_the_divergence_of_the_predictions_in_transformers(
    checkpoint: Checkpoint, model: Path, tokens: np.ndarray, made: Tuned
) -> None:
    import torch
    from transformers import Gemma3ForCausalLM

    found = []
    for norms in ({}, {name: dense(checkpoint, name)[0] + 0.25 for name in made.norms}, made.norms):
        loaded = Gemma3ForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        for name, values in norms.items():
            loaded.get_parameter(name).data.copy_(torch.from_numpy(values))
        with torch.no_grad():
            found.append(loaded(input_ids=torch.from_numpy(tokens[-1:])).logits[0].double().log_softmax(-1))
    reference, before, after = found
    for said, other in ((made.before, before), (made.after, after)):
        divergence = float((reference.exp() * (reference - other)).sum(-1).mean())
        assert said == pytest.approx(divergence, rel=1e-3)


def test_norms_learn_what_was_lost(made: Tuned, checkpoint: Checkpoint) -> None:
    assert made.kept > 0 and made.after < 0.9 * made.before
    norms = {name for name, tensor in checkpoint.tensors.items() if tensor.place.role is Role.NORM}
    assert made.norms.keys() == norms and len(norms) == 6 * SMALL.num_hidden_layers + 1
    for name, values in made.norms.items():
        assert values.shape == checkpoint.tensors[name].shape
        assert not (values.view(np.uint32) & 0xFFFF).any(), "BF16 holds them"
        assert not np.array_equal(values, dense(checkpoint, name)[0] + np.float32(0.25)), name


def test_the_same_steps_give_the_same_norms_whatever_the_threads(
    made: Tuned, checkpoint: Checkpoint, tokens: np.ndarray
) -> None:
    again = tuned(checkpoint, tokens, threads=1, steps=made.steps, last=made.kept)
    assert all(np.array_equal(again.norms[name], values) for name, values in made.norms.items())


def test_a_layer_in_memory_at_a_time_gives_the_same_norms(
    made: Tuned, checkpoint: Checkpoint, tokens: np.ndarray
) -> None:
    again = tuned(checkpoint, tokens, streamed=True)
    assert (again.steps, again.kept, again.before, again.after) == (made.steps, made.kept, made.before, made.after)
    assert all(np.array_equal(again.norms[name], values) for name, values in made.norms.items())


def test_the_schedule_is_that_of_all_steps(made: Tuned, checkpoint: Checkpoint, tokens: np.ndarray) -> None:
    early = tuned(checkpoint, tokens, last=6)
    other = tuned(checkpoint, tokens, steps=6, last=6)
    assert any(not np.array_equal(early.norms[name], values) for name, values in other.norms.items())


def test_steps_fit_the_time(checkpoint: Checkpoint, tokens: np.ndarray) -> None:
    assert tuned(checkpoint, tokens, steps=0, deadline=time.monotonic()).steps == refine_norms.TIMED + 1
    started = time.monotonic()
    made = tuned(checkpoint, tokens, steps=0, deadline=started + 3)
    assert made.steps > refine_norms.TIMED + 1 and time.monotonic() - started < 30


def test_norms_that_cannot_be_bettered_stay(checkpoint: Checkpoint, tokens: np.ndarray) -> None:
    with opened(checkpoint) as teacher:
        made = tune(teacher, teacher, (tokens[:-1], tokens[-1:]), schedule=Schedule(None, 4), progress=lambda *_: None)
    assert (made.kept, made.before, made.after) == (0, 0, 0)
    assert all(np.array_equal(values, dense(checkpoint, name)[0]) for name, values in made.norms.items())


def test_a_loss_that_is_not_finite_is_told(
    checkpoint: Checkpoint, tokens: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refine_norms, "RATE", 1e38)
    with pytest.raises(InputError, match="not finite"):
        tuned(checkpoint, tokens)


@pytest.mark.parametrize("kind", ["effective", "experts"])
def test_layers_of_gemma_4_are_tuned(kind: str, tmp_path: Path) -> None:
    """Shared keys, layer embeddings and experts let gradients through to all norms."""
    checkpoint = open_source(str(gemma4.write(tmp_path / "gemma-4-tiny", gemma4.KINDS[kind])))
    tokens = np.random.default_rng(1).integers(0, 512, (3, 24))
    made = tuned(checkpoint, tokens, steps=6)
    assert made.after < made.before
    streamed = tuned(checkpoint, tokens, steps=6, streamed=True)
    assert streamed.after == pytest.approx(made.after, rel=1e-4)
    assert all(np.allclose(streamed.norms[name], values, atol=1e-2) for name, values in made.norms.items())
    shifted = {name: dense(checkpoint, name)[0] + np.float32(0.25) for name in made.norms}
    assert not [name for name, values in made.norms.items() if np.array_equal(values, shifted[name])]
    assert not [name for name, values in made.norms.items() if np.abs(values - shifted[name]).max() < 1e-3]


def test_the_memory_grows_with_the_model_and_the_workers(checkpoint: Checkpoint) -> None:
    config = checkpoint.config
    one, two, many = (refine_norms.memory(config, 1000, CONTEXT, workers, streamed=False) for workers in (1, 2, 9))
    assert 4 * sum(config.layer_parameters) < one < two == many
    large = require_size("12b").config
    whole, layer = (refine_norms.memory(large, 32768, 512, 2, streamed=streamed) for streamed in (False, True))
    assert whole > 40e9 and layer < 5e9
