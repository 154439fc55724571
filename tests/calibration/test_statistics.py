"""Squared inputs of every matrix, against a naive pass through transformers."""

from __future__ import annotations

import numpy as np
import pytest

from calibrating import CONTEXT, naive_inputs, opened
from gemmaq.calibration import imatrix
from gemmaq.calibration.complete import sequences
from gemmaq.calibration.statistics import squares
from gemmaq.models.gemma3.names import to_gguf
from gemmaq.planning.request import Calibration
from gemmaq.progress import ignore
from inprocess import run

pytestmark = pytest.mark.usefixtures("torch_and_transformers")


def test_statistics_are_those_of_a_naive_pass(model, checkpoint, tokens):
    inputs, reports = naive_inputs(model, tokens), []
    with opened(checkpoint) as net:
        found = squares(net, tokens, reports.append)
    assert set(found) == set(inputs) and [(report.done, report.total) for report in reports] == [(1, 2), (2, 2)]
    for name, sums in found.items():
        np.testing.assert_allclose(sums, np.square(inputs[name]).sum(axis=0), rtol=2e-4, atol=1e-12)
    with opened(checkpoint, 1) as net:
        for name, sums in squares(net, tokens, ignore).items():
            np.testing.assert_array_equal(sums, found[name])


def test_the_file_of_imatrix_holds_the_statistics(model, checkpoint, file, text, tmp_path):
    out = tmp_path / "imatrix.gguf"
    run("imatrix", model, "-o", out, "--text", file, "--calibration-context", CONTEXT, "-q")
    shown = sequences(checkpoint, text, Calibration(text.names, text.digest, context=CONTEXT))
    assert len(shown) > 9
    inputs, found = naive_inputs(model, shown), imatrix.read(out)
    imatrix.check(found, checkpoint)
    assert (found.datasets, found.chunks, found.chunk_size) == (("letters.txt",), len(shown), CONTEXT)
    assert set(found.entries) == {to_gguf(name) for name in inputs}
    for name, x in inputs.items():
        np.testing.assert_allclose(found.importance(to_gguf(name)), np.square(x).mean(axis=0), rtol=2e-4, atol=1e-12)
