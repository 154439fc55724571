"""Labels, sizes and errors of the models of an evaluation."""

from __future__ import annotations

import numpy as np
import pytest

from gemmaq.evaluate.result import format_kl, results, weight_errors
from gemmaq.evaluate.score import Score
from gemmaq.progress import ignore

SCORE = Score(np.ones(2), np.zeros(2), np.ones(2, bool))


@pytest.mark.parametrize(
    ("sources", "labels"),
    [
        (["a/model", "b/q4.gguf"], ["model", "q4"]),
        (["a/model", "b/model", "c/x"], ["a/model", "b/model", "x"]),
        (["a/q4.gguf", "a/q4"], ["q4.gguf", "q4"]),
        (["a/q4", "a/q4"], ["q4", "q4"]),
        (["org/model@main", "/x/y/z"], ["model@main", "z"]),
    ],
)
def test_labels_are_as_short_as_they_can_be(sources, labels, pair) -> None:
    models = [pair[0]] * len(sources)
    assert [result.label for result in results(sources, models, [SCORE] * len(sources))] == labels


def test_the_first_is_the_reference(pair) -> None:
    first, second = results(["a", "b"], pair, [SCORE, SCORE])
    assert first.is_reference and not second.is_reference
    assert first.bytes == sum(path.stat().st_size for path in pair[0].files)
    assert first.bits_per_weight == 16


def test_a_model_with_several_caches_is_told_apart(pair) -> None:
    sources, kinds = ["a/model", "a/model", "a/model", "b/x"], ["", "q8_0", "q4_0,f16", ""]
    found = results(sources, [pair[0]] * 4, [SCORE] * 4, kinds)
    assert [one.label for one in found] == ["model", "model, q8_0 cache", "model, q4_0,f16 cache", "x"]
    assert [one.title for one in found][1:] == ["a/model, q8_0 cache", "a/model, q4_0,f16 cache", "b/x"]
    assert [one.weights_label for one in found] == ["model", "model", "model", "x"]


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (0.00123, "0.0012"), (0.000123, "0.00012"), (-3e-8, "-3e-08"), (1.5, "1.5000")]
)
def test_divergences_are_written_with_what_they_tell(value: float, text: str) -> None:
    assert format_kl(value) == text


def test_errors_of_weights_model_by_model(pair) -> None:
    itself, other = weight_errors(pair[0], pair, threads=2, progress=ignore)
    assert [tensor.name for tensor in itself] == [tensor.name for tensor in other] == list(pair[0].tensors)
    assert all(tensor.error == 0 for tensor in itself)
    assert all(tensor.error > 0.5 for tensor in other if tensor.kind == "down")
