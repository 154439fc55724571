"""Squared inputs of every matrix, against a naive pass through transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gemma4
from calibrating import CONTEXT, naive_inputs, opened
from gemmaq.calibration import imatrix
from gemmaq.calibration.complete import Basis, sequences
from gemmaq.calibration.statistics import squares
from gemmaq.models.gemma3.names import to_gguf
from gemmaq.planning.request import Calibration
from gemmaq.progress import ignore
from gemmaq.sources.open import open_source
from inprocess import run

pytestmark = pytest.mark.usefixtures("torch_and_transformers")


def test_statistics_are_those_of_a_naive_pass(model, checkpoint, tokens):
    inputs, reports = naive_inputs(model, tokens), []
    with opened(checkpoint) as net:
        found = squares(net, tokens, reports.append)
    assert set(found) == set(inputs) and [(report.done, report.total) for report in reports] == [(1, 2), (2, 2)]
    for name, (sums, counts) in found.items():
        np.testing.assert_allclose(sums, np.square(inputs[name]).sum(axis=0)[None], rtol=2e-4, atol=1e-12)
        assert counts == [tokens.size]
    with opened(checkpoint, 1) as net:
        for name, (sums, _) in squares(net, tokens, ignore).items():
            np.testing.assert_array_equal(sums, found[name][0])


def test_the_file_of_imatrix_holds_the_statistics(model, checkpoint, file, text, tmp_path):
    out = tmp_path / "imatrix.gguf"
    run("imatrix", model, "-o", out, "--text", file, "--calibration-context", CONTEXT, "-q")
    shown = sequences(checkpoint, Basis(Calibration(text.names, text.digest, context=CONTEXT), text, None))
    assert len(shown) > 9
    inputs, found = naive_inputs(model, shown), imatrix.read(out)
    imatrix.check(found, checkpoint)
    assert (found.datasets, found.chunks, found.chunk_size) == (("letters.txt",), len(shown), CONTEXT)
    assert set(found.entries) == {to_gguf(name) for name in inputs}
    for name, x in inputs.items():
        np.testing.assert_allclose(found.importance(to_gguf(name)), np.square(x).mean(axis=0), rtol=2e-4, atol=1e-12)


def test_every_expert_has_the_squares_of_its_tokens(tokens, tmp_path):
    """Against the experts of transformers run one token at a time."""
    import torch
    from transformers import Gemma4ForCausalLM

    folder = gemma4.write(tmp_path / "gemma-4-tiny", gemma4.EXPERTS)
    loaded = Gemma4ForCausalLM.from_pretrained(folder, dtype=torch.float32, experts_implementation="eager").eval()
    seen: list[tuple[Any, ...]] = []
    experts = loaded.model.layers[3].experts
    experts.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    with torch.no_grad():
        loaded(input_ids=torch.from_numpy(tokens))
    x, chosen, _ = seen[0]
    wanted, counts = np.zeros((16, 256)), np.zeros(16, int)
    inner = np.zeros((16, 96))
    for row, some in zip(x, chosen.tolist(), strict=True):
        for expert in some:
            counts[expert] += 1
            wanted[expert] += row.double().square().numpy()
            gate, up = (experts.gate_up_proj[expert] @ row).chunk(2)
            inner[expert] += (experts.act_fn(gate) * up).detach().double().square().numpy()
    with opened(open_source(str(folder))) as net:
        found = squares(net, tokens, ignore)
    for part, sums in (("gate_up_proj", wanted), ("down_proj", inner)):
        got, numbers = found[f"model.layers.3.experts.{part}"]
        np.testing.assert_array_equal(numbers, counts)
        np.testing.assert_allclose(got, sums, rtol=1e-3, atol=1e-3 * sums.max())
    assert set(found) == {name for name, tensor in open_source(str(folder)).matrices.items()}
    assert counts.sum() == 4 * tokens.size
