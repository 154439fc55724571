"""Sensitivities of small models: against a direct computation, resumed, with any number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gemma4
from calibrating import CONTEXT, opened
from embedding import write_model as embedder
from gemmaq.calibration.complete import Basis
from gemmaq.calibration.resources import Resources
from gemmaq.calibration.sensitivity import Parts, measure, parts
from gemmaq.calibration.sensitivity_groups import Settings
from gemmaq.calibration.sensitivity_layers import nearest
from gemmaq.checkpoint import Checkpoint
from gemmaq.encodings import ENCODINGS
from gemmaq.errors import InputError, OutputError
from gemmaq.inference.documents import Text
from gemmaq.planning.request import Calibration
from gemmaq.planning.sensitivities import Sensitivities, check, document
from gemmaq.progress import Progress, ignore
from gemmaq.sources.open import open_source

pytestmark = pytest.mark.usefixtures("torch_and_transformers")
SETTINGS = Settings(tokens=2 * CONTEXT, coarse=False)
TYPES = ["bf16", "q4_0", "q5_0"]
EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def basis(text: Text) -> Basis:
    return Basis(Calibration(text.names, text.digest, tokens=6 * CONTEXT, context=CONTEXT), text, None)


def measured(checkpoint: Checkpoint, basis: Basis, threads: int = 1, **more: Any) -> Sensitivities:
    given = {"resources": Resources("cpu", threads), "progress": ignore, "types": TYPES, "settings": SETTINGS, **more}
    return measure(checkpoint, basis, **given)


@pytest.fixture(scope="module")
def found(checkpoint: Checkpoint, basis: Basis) -> Sensitivities:
    return measured(checkpoint, basis)


def direct(checkpoint: Checkpoint, text: Parts, types: dict[str, str]) -> float:
    """Mean KL divergence of a model with tensors in types from the model as it is, over the whole vocabulary."""
    import torch

    def log_probabilities(changed: dict[str, str]) -> Any:
        with opened(checkpoint) as net:

            def weights(tensor: Any, first: int, count: int, reader: Any) -> np.ndarray:
                rows = net.weights(tensor, first, count, reader)
                return nearest(rows, ENCODINGS[changed[tensor.name]]) if tensor.name in changed else rows

            other = replace(net, weights=weights)
            batches = other.embed(text.probed)
            for index in range(other.layers):
                other.through(other.layer(index), index, batches)
            hidden = torch.cat([other.normed(batch.hidden[:, text.first :]).flatten(0, 1) for batch in batches])
            logits = hidden @ other.read_to_device(checkpoint.head or checkpoint.embedding).T
            cap = checkpoint.config.final_logit_softcapping
            return (logits if cap is None else cap * torch.tanh(logits / cap)).double().log_softmax(-1)

    before, after = log_probabilities({}), log_probabilities(types)
    return float((before.exp() * (before - after)).sum(-1).mean())


def test_every_matrix_and_table_is_a_group(found: Sensitivities, checkpoint: Checkpoint) -> None:
    names = [name for group in found.groups for name in group.names]
    assert sorted(names) == sorted([EMBEDDING, *checkpoint.matrices])
    assert found.tokens == 2 * (CONTEXT - CONTEXT // 8)
    check(found, checkpoint)


def test_a_loss_is_the_divergence_of_the_model_with_one_tensor_in_the_type(
    found: Sensitivities, checkpoint: Checkpoint, basis: Basis
) -> None:
    text = parts(checkpoint, basis, SETTINGS)
    for group in (found.groups[0], found.groups[3], found.groups[-1]):
        (name,) = group.names
        assert group.measured == ("q4_0",)
        assert group.losses["nearest"]["q4_0"] == pytest.approx(direct(checkpoint, text, {name: "q4_0"}), rel=0.01)


def test_other_types_are_predicted(found: Sensitivities, checkpoint: Checkpoint, basis: Basis) -> None:
    text = parts(checkpoint, basis, SETTINGS)
    types = dict.fromkeys(checkpoint.matrices, "q5_0")
    assert found.predicted(types, "nearest") == pytest.approx(direct(checkpoint, text, types), rel=0.3)
    for group in found.groups:
        nearest_losses = group.losses["nearest"]
        assert nearest_losses["bf16"] == 0 < nearest_losses["q5_0"] < nearest_losses["q4_0"]


def test_methods_lose_less_than_rounding(found: Sensitivities) -> None:
    matrices = found.groups[1:]
    for method in ("importance", "gptq"):
        shares = [group.losses[method]["q4_0"] / group.losses["nearest"]["q4_0"] for group in matrices]
        assert 0 < float(np.mean(shares)) < 1
    assert "gptq" in found.groups[0].losses
    assert "importance" not in found.groups[0].losses


def test_the_number_of_threads_does_not_change_the_file(
    found: Sensitivities, checkpoint: Checkpoint, basis: Basis
) -> None:
    assert document(measured(checkpoint, basis, threads=3)) == document(found)


class Killed(Exception):
    """Stands for the signal."""


@contextmanager
def killed(layer: int) -> Iterator[Any]:
    def progress(report: Progress) -> None:
        if report.unit == "layers" and report.done == layer:
            raise Killed

    with pytest.raises(Killed):
        yield progress


@pytest.mark.parametrize("layer", [1, 2])
def test_a_killed_run_goes_on_and_ends_with_the_same_file(
    found: Sensitivities, checkpoint: Checkpoint, basis: Basis, tmp_path: Path, layer: int
) -> None:
    folder, seen = tmp_path / "work", list[Progress]()
    with killed(layer) as progress:
        measured(checkpoint, basis, folder=folder, progress=progress)
    again = measured(checkpoint, basis, folder=folder, resume=True, progress=seen.append)
    assert document(again) == document(found)
    assert seen[0].done == layer
    assert not folder.exists()


def test_work_of_another_measurement_is_not_gone_on_with(checkpoint: Checkpoint, basis: Basis, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    with killed(1) as progress:
        measured(checkpoint, basis, folder=folder, progress=progress)
    with pytest.raises(OutputError, match="not finished"):
        measured(checkpoint, basis, folder=folder)
    with pytest.raises(InputError, match="other flags"):
        measured(checkpoint, basis, folder=folder, resume=True, settings=replace(SETTINGS, coarse=True))


def test_coarse_groups_are_run_together(checkpoint: Checkpoint, basis: Basis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gemmaq.calibration.sensitivity_groups.BANDS", 1)
    coarse = measured(checkpoint, basis, settings=replace(SETTINGS, coarse=True))
    assert len(coarse.groups) == 1 + 7
    group = coarse.groups[-1]
    assert len(group.names) == len(checkpoint.config.layers)
    text = parts(checkpoint, basis, SETTINGS)
    expected = direct(checkpoint, text, dict.fromkeys(group.names, "q4_0"))
    assert group.losses["nearest"]["q4_0"] == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("effective", ["model.embed_tokens_per_layer.weight", "model.layers.3.per_layer_input_gate.weight"]),
        ("experts", ["model.layers.1.experts.down_proj"]),
        ("unified", ["model.layers.0.self_attn.k_proj.weight"]),
    ],
)
def test_kinds_of_gemma_4_are_measured(kind: str, names: list[str], tmp_path: Path) -> None:
    config = gemma4.KINDS[kind]
    source = open_source(str(gemma4.write(tmp_path / kind, config)))
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (6, 32))
    basis = Basis(Calibration(("text",), "0", tokens=192, context=32), None, None, tokens)
    found = measured(source, basis, settings=Settings(tokens=32, coarse=True), types=["q4_0"])
    text = parts(source, basis, Settings(tokens=32))
    for name in names:
        group = next(group for group in found.groups if name in group.names)
        expected = direct(source, text, dict.fromkeys(group.names, "q4_0"))
        assert group.losses["nearest"]["q4_0"] == pytest.approx(expected, rel=0.02)


def test_models_that_embed_are_refused(tmp_path: Path, basis: Basis) -> None:
    with pytest.raises(InputError, match="predicts no tokens"):
        measured(open_source(str(embedder(tmp_path / "embeds"))), basis)
